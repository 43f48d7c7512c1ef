"""The models that can be fetched by name, and where their exported folders are kept."""

from __future__ import annotations

import os
from pathlib import Path

from audiogen_core.models import FileSpec, ModelSpec, Shipped

CHECKPOINTS = ("codec.pth", "coarse.pth", "c2f.pth")
"""The files of VampNet's authors that an export is made from."""

CATALOG: dict[str, ModelSpec | Shipped] = {
    "demo": Shipped(
        name="demo",
        family="vampnet",
        package="audiogen_onnx",
        folder="data/demo",
        license="Apache-2.0",
        note="A toy that has heard composed music only (audiogen-core compose); works offline at once.",
    ),
    "vampnet": ModelSpec(
        name="vampnet",
        family="vampnet",
        repo="hugggof/vampnet",
        revision="main",
        files=tuple(FileSpec(name) for name in CHECKPOINTS),
        license="CC-BY-NC-SA-4.0",
        note="Non-commercial. Neither a commit nor a sha256 is known here, so the newest files of the "
        "repository are taken; they are exported once, which needs the [export] extra.",
    ),
}


def located(name_or_path: str | Path) -> Path:
    """A path, or the folder of a model that comes with the package; a path that exists wins over a name.

    Raises ModelError when the package is installed without the model.
    """
    found, path = CATALOG.get(str(name_or_path)), Path(name_or_path)
    return found.path if isinstance(found, Shipped) and not path.exists() else path


def cache() -> Path:
    """Where exported folders are kept: AUDIOGEN_ONNX_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get("AUDIOGEN_ONNX_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audiogen-onnx"
