"""Which of the package's models lies at a path."""

from __future__ import annotations

from pathlib import Path

from audiogen_core.codecs.same import is_same
from audiogen_core.models import Fetch, find
from audiogen_core.settings import read_json
from audiogen_mlx.catalog import CATALOG


def located(model: str, fetch: Fetch, *, unlisted: bool = False) -> tuple[str, Path]:
    """The family of a model by name, hub id or path, and where it lies; fetched when it is not there.

    Raises UnknownModel, DownloadError, or ModelError for settings that cannot be read.
    """
    found = find(CATALOG, model, unlisted=unlisted)
    if isinstance(found, Path):
        return family(found), found
    path = fetch(found)
    return found.family or family(path), path


def family(path: Path) -> str:
    """Which of the package's models lies at a path: "musicgen", "stable-audio" or "stable-audio-3".

    MusicGen where nothing says otherwise. Raises ModelError for settings that cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    index, config = folder / "model_index.json", folder / "model_config.json"
    if path.suffix == ".npz" or any(folder.glob("dit_*.npz")):
        return "stable-audio-3"
    if index.is_file():
        name = read_json(index).get("_class_name")
        return "stable-audio-3" if str(name).startswith("StableAudio3") else "stable-audio"
    if config.is_file():
        return "stable-audio-3" if is_same(read_json(config)) else "stable-audio"
    return "musicgen"
