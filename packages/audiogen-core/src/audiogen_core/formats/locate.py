"""Which files hold the weights that a path names: one file, shards with an index, or a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import shorten
from audiogen_core.settings import read_json

MAX_SHARDS = 10_000

TORCH_SUFFIXES = (".pth", ".bin", ".th", ".ckpt", ".pt")

_ORDER = (
    "*.safetensors.index.json",
    "model.safetensors",
    "*.safetensors",
    "*.bin.index.json",
    "pytorch_model.bin",
)


_OF_TRAINING = re.compile(r"optim|sched|scaler|rng|random|training_args", re.IGNORECASE)
"""How files begin that training leaves beside the weights."""


@dataclass(frozen=True)
class Located:
    """`path` as it is called in messages; each file, with the names it must hold (None = any)."""

    path: Path
    files: dict[Path, set[str] | None]


def locate(path: Path) -> Located:
    """The weight files at a path. Raises WeightsError when there are none, or several and no index."""
    if path.is_dir():
        path = _in_folder(path)
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder")
    if path.name.endswith(".index.json"):
        return Located(path, _shards(path))
    suffixes = (".safetensors", ".npz", *TORCH_SUFFIXES)
    if path.suffix not in suffixes:
        known = " ".join(suffixes)
        raise WeightsError(f"{path}: not a weight file by its name; known endings: {known} and .index.json")
    return Located(path, {path: None})


def torch_files(folder: Path) -> list[Path]:
    """Those in a folder by their names, but for what training leaves beside weights."""
    files = (file for suffix in TORCH_SUFFIXES for file in folder.glob(f"*{suffix}"))
    return sorted(file for file in files if not _OF_TRAINING.match(file.name))


def _in_folder(folder: Path) -> Path:
    for pattern in (*_ORDER, None):
        files = torch_files(folder) if pattern is None else sorted(folder.glob(pattern))
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:5])
            raise WeightsError(f"{folder}: several weight files and no index ({names}); name one of them")
        if files:
            return files[0]
    raise WeightsError(f"{folder}: no weights in this folder; expected model.safetensors or a torch file")


def _shards(index: Path) -> dict[Path, set[str] | None]:
    table = _weight_map(index)
    files: dict[Path, set[str]] = {}
    suffix = ".safetensors" if index.name.endswith(".safetensors.index.json") else ".bin"
    for name, file in table.items():
        if (
            not isinstance(file, str)
            or PurePosixPath(file).name != file
            or "\\" in file
            or not file.endswith(suffix)
        ):
            raise WeightsError(
                f"{index}: shard {shorten(file)} is not the name of a {suffix} file beside the index"
            )
        files.setdefault(index.parent / file, set()).add(name)
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise WeightsError(f"{index}: shards are missing: {', '.join(missing[:10])}; fetch them again")
    if len(files) > MAX_SHARDS:
        raise WeightsError(f"{index}: {len(files)} shards, more than {MAX_SHARDS}")
    return dict(files)


def _weight_map(index: Path) -> dict[str, object]:
    try:
        table = read_json(index, WeightsError)
    except WeightsError as error:
        raise WeightsError(f"{error}; expected an index of shards") from error
    shards = table.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{index}: no weight_map in this index of shards")
    return shards
