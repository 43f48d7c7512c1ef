"""MusicGen in mlx: from a prompt to music."""

from __future__ import annotations

from functools import cached_property

from audiogen_core import lora
from audiogen_core.hub import asking
from audiogen_core.musicgen.files import Places
from audiogen_core.musicgen.generate import MusicGenBase
from audiogen_core.options import verb
from audiogen_mlx import blas
from audiogen_mlx.device import use
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen.load import Parts, find_files
from audiogen_mlx.musicgen.options import Load


class MusicGen(MusicGenBase):
    """A model, ready to generate. Make one with `load`."""

    bounded = staticmethod(bounded_cache)
    _parts: Parts

    @classmethod
    @verb(Load)
    def load(cls, opening: Load) -> MusicGen:
        """A model from the catalogue, a hub id, or a folder of transformers, audiocraft or `convert`.

        Raises UnknownModel, DownloadError, ModelError, WeightsError or OptionError.
        """
        use(opening.device)
        threads = blas.set_threads(opening.threads)
        fetch = opening.fetch or asking(unlisted=opening.unlisted)
        adapters = lora.local(opening.lora or (), fetch)
        places = Places(opening.t5, opening.tokenizer, opening.codec, opening.mert, fetch, adapters)
        files = find_files(opening.model, places, unlisted=opening.unlisted)
        parts = Parts(files, dtype=opening.dtype, bits=opening.bits)
        return cls(parts, str(opening.model), threads, opening, files.defaults)

    @cached_property
    def revision(self) -> str:
        """16 hex digits that change with the model's files."""
        return self._parts.files.fingerprint()
