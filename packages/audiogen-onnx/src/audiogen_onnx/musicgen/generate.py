"""MusicGen in onnxruntime: from a prompt to music."""

from __future__ import annotations

import warnings
from functools import cached_property

from audiogen_core.jobs import imported
from audiogen_core.musicgen.generate import MusicGenBase
from audiogen_core.musicgen.options import Defaults
from audiogen_core.options import verb
from audiogen_core.threads import use as use_threads
from audiogen_onnx.manifest import NAME, sha256
from audiogen_onnx.musicgen.load import Parts
from audiogen_onnx.musicgen.manifest import MusicGenManifest
from audiogen_onnx.musicgen.options import Load
from audiogen_onnx.session import providers_of


class MusicGen(MusicGenBase):
    """A model, ready to generate. Make one with `load`."""

    _parts: Parts

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> MusicGen:
        """An exported folder, or a model of the catalogue by its name: `demo` comes with the package, what is
        fetched is exported the first time, which needs the extra `export`.

        Raises UnknownModel, DownloadError, MissingDependency; ManifestError when the folder is none, or its
        files are not those it describes; OptionError for a provider that is not installed or an impossible
        number of threads.
        """
        exported = imported("audiogen_onnx.exporter.musicgen.export:exported")  # to run takes no exporter
        folder = exported(opening.model, notify=warnings.warn, fetch=opening.fetch, unlisted=opening.unlisted)
        threads = use_threads(opening.threads)
        with MusicGenManifest.opened(folder, verify=opening.verify) as manifest:
            parts = Parts(
                manifest, folder, providers_of(opening.device, opening.providers), threads, opening.fetch
            )
            parts.tokenizer  # noqa: B018 - read while its file is known to be the one described
        return cls(parts, str(opening.model), threads, opening, Defaults.from_dict(manifest.defaults))

    @cached_property
    def revision(self) -> str:
        """Hash of what was loaded, for recipes."""
        return sha256(self._parts.folder / NAME)[:16]
