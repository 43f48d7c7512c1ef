"""The models that can be fetched by name, and where their exported folders are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from audiogen_core.errors import DownloadError, ModelError
from audiogen_core.models import FileSpec, ModelSpec, Shipped, find
from audiogen_onnx.manifest import NAME

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

Notify = Callable[[str], None]


def located(name_or_path: str | Path) -> Path:
    """A path, or the folder of a model that comes with the package; a path that exists wins over a name.

    Raises ModelError when the package is installed without the model.
    """
    found, path = CATALOG.get(str(name_or_path)), Path(name_or_path)
    return found.path if isinstance(found, Shipped) and not path.exists() else path


def exported(name_or_path: str, *, offline: bool = False, notify: Notify | None = None) -> Path:
    """The exported folder of a model: a path, or a name of the catalogue.

    A model of the catalogue is fetched and exported the first time, into the user's cache. notify is told
    what is being done.

    Raises UnknownModel, DownloadError, ModelError for a folder of checkpoints that is not exported yet, and
    MissingDependency when an export is needed and the [export] extra is not installed.
    """
    found = find(CATALOG, name_or_path)
    if isinstance(found, Path):
        if any((found / name).exists() for name in CHECKPOINTS) and not (found / NAME).exists():
            raise ModelError(
                f"{found}: holds checkpoints, which have to be exported first: "
                f"audiogen-onnx export {found} -o FOLDER"
            )
        return found
    return _from_hub(found, offline, notify)


def checkpoints(name_or_path: str, *, offline: bool = False, notify: Notify | None = None) -> Path:
    """The folder with a model's checkpoints: a path, or fetched by a name of the catalogue."""
    from audiogen_core.hub import fetch

    found = find(CATALOG, name_or_path)
    return found if isinstance(found, Path) else fetch(found, offline=offline or None, notify=notify)


def cache() -> Path:
    """Where exported folders are kept: AUDIOGEN_ONNX_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get("AUDIOGEN_ONNX_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audiogen-onnx"


def _from_hub(spec: ModelSpec, offline: bool, notify: Notify | None) -> Path:
    kept = sorted(cache().glob(f"{spec.name}-*/{NAME}"), key=lambda path: path.stat().st_mtime)
    if kept:
        return kept[-1].parent
    from audiogen_onnx.vampnet.export import export, require_export

    require_export()
    try:
        folder = checkpoints(spec.name, offline=offline, notify=notify)
    except DownloadError as error:
        raise DownloadError(f"{error}; or export a folder elsewhere and name it with --model") from error
    target = cache() / f"{spec.name}-{folder.name[:12]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if notify is not None:
        notify(f"exporting {spec.name} to {target}, once; this takes minutes and about 8 GB of memory")
    export(folder, target)
    return target
