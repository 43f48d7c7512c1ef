"""The models that can be named: what models.toml says, and where their exported folders are."""

from __future__ import annotations

import os
from pathlib import Path

from audiogen_core.models import ModelSpec, Shipped, read_catalog
from audiogen_core.musicgen import catalog as musicgen
from audiogen_core.values import closed

_ALL = read_catalog("audiogen_onnx")

CATALOG = {name: spec for name, spec in _ALL.items() if spec.family == "vampnet"}
"""Those of VampNet."""

MUSICGEN: dict[str, ModelSpec | Shipped] = {
    **{spec.name: spec for spec in _ALL.values() if spec.family == "musicgen"},
    **musicgen.MUSICGEN,
}
"""MusicGens, which core knows; `demo` is there twice: each command has one."""

MAGNET = {name: spec for name, spec in _ALL.items() if spec.family == "magnet"}

MODELS = (*CATALOG.values(), *MUSICGEN.values(), *MAGNET.values())


@closed()
def located(name_or_path: str | Path) -> Path:
    """A path, or the folder of a model that comes with the package; a path that exists wins over a name.

    Raises ModelError when the package is installed without the model.
    """
    spec, path = CATALOG.get(str(name_or_path)), Path(name_or_path)
    return spec.path if isinstance(spec, Shipped) and not path.exists() else path


def cache() -> Path:
    """Where folders are kept that were exported from fetched checkpoints: AUDIOGEN_ONNX_CACHE, or a folder in
    the user's cache.
    """
    chosen = os.environ.get("AUDIOGEN_ONNX_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audiogen-onnx"
