"""Which files make up a model: its configuration, its checkpoint, its text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ModelError
from audiogen_core.models import ModelSpec, find
from audiogen_mlx.stable_audio.catalog import CATALOG, TEXT_ENCODERS
from audiogen_mlx.stable_audio.config import Config
from audiogen_mlx.stable_audio.read_config import read_diffusers, read_stable_audio_tools

_CONFIG = "model_config.json"
_INDEX = "model_index.json"
_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")


Fetch = Callable[[ModelSpec], Path]
"""Gives the folder of a model in the catalogue, fetching it when needed."""

_SAMPLE = 1 << 20  # bytes of a checkpoint that tell it from others: its header and some weights


def fetch_from_hub(spec: ModelSpec) -> Path:
    """With the settings of the environment, and silently."""
    from audiogen_core import hub

    return hub.fetch(spec)


@dataclass(frozen=True)
class Files:
    """Where a model lies. `checkpoint` is its file, or the folder itself in the diffusers layout."""

    folder: Path
    config: Path
    checkpoint: Path
    diffusers: bool

    def fingerprint(self) -> str:
        """16 hex digits that change with the configuration, the size or the beginning of the weights."""
        digest = hashlib.sha256(self.config.read_bytes())
        for path in weight_files(self.checkpoint):
            digest.update(path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE))
        return digest.hexdigest()[:16]

    def read_config(self) -> Config:
        """Its facts. Raises ModelError."""
        return read_diffusers(self.folder) if self.diffusers else read_stable_audio_tools(self.config)


def weight_files(root: Path) -> list[Path]:
    """A file itself, or all weights below a folder, in order."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)


def locate(name_or_path: str | Path, *, unlisted: bool = False, fetch: Fetch = fetch_from_hub) -> Files:
    """The files of a catalogue name (fetched when needed), a hub id or a path.

    A path is a folder, a `..._config.json` in it, or a checkpoint beside one. Raises UnknownModel,
    DownloadError or ModelError.
    """
    found = find(CATALOG, name_or_path, unlisted=unlisted)
    if isinstance(found, Path):
        return _at(found)
    folder = fetch(found)
    named = [file.name for file in found.files if file.name.endswith("_config.json")]
    return _at(folder / named[0]) if named else _at(folder)


def _at(path: Path) -> Files:
    if path.is_dir():
        if (path / _INDEX).is_file():
            return Files(path, path / _INDEX, path, True)
        if (path / _CONFIG).is_file():
            return Files(path, path / _CONFIG, _checkpoint(path, "model"), False)
        raise ModelError(
            f"{path}: no Stable Audio model in this folder; expected {_CONFIG} of stable-audio-tools "
            f"or {_INDEX} of diffusers"
        )
    if path.name.endswith("_config.json"):
        return Files(
            path.parent, path, _checkpoint(path.parent, path.name.removesuffix("_config.json")), False
        )
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path}: neither a folder, nor a configuration, nor a checkpoint")
    for config in (path.with_name(f"{path.stem}_config.json"), path.with_name(_CONFIG)):
        if config.is_file():
            return Files(path.parent, config, path, False)
    raise ModelError(f"{path}: has no {_CONFIG} beside it; the geometry of a model is never guessed")


def _checkpoint(folder: Path, stem: str) -> Path:
    """The checkpoint of that name, or the only one there."""
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    if (folder / f"{stem}.safetensors.index.json").is_file():
        return folder / f"{stem}.safetensors.index.json"
    others = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if len(others) == 1:
        return others[0]
    names = f"several ({', '.join(file.name for file in others[:5])}); name one of them" if others else "none"
    raise ModelError(f"{folder}: expected a checkpoint {stem}.safetensors or {stem}.ckpt, found {names}")


@dataclass(frozen=True)
class TextFiles:
    """Folders of a T5: config.json with weights, and tokenizer.json."""

    encoder: Path
    tokenizer: Path


def locate_text(
    files: Files, config: Config, given: str | Path | None, *, fetch: Fetch = fetch_from_hub
) -> TextFiles:
    """The text encoder: what was given, what lies beside the model, or what its configuration names.

    Raises ModelError, saying where it was looked for.
    """
    wanted = config.text.t5
    if given is None and files.diffusers:
        return TextFiles(files.folder / "text_encoder", files.folder / "tokenizer")
    if given is None:
        for place in (files.folder / wanted, files.folder / "t5", files.folder / "text_encoder"):
            if (place / "config.json").is_file():
                return _in_one(place)
    name = str(wanted if given is None else given)
    spec = TEXT_ENCODERS.get(name.removeprefix("google-t5/"))
    if given is not None and Path(given).expanduser().exists():
        return _in_one(Path(given).expanduser())
    if spec is None:
        raise ModelError(
            f"{files.folder}: the model's text encoder {name!r} is not there, nor in the catalogue; "
            "give the folder of that T5 (--t5 PATH)"
        )
    return _in_one(fetch(spec))


def _in_one(folder: Path) -> TextFiles:
    """A folder with everything, or with the two folders of diffusers."""
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        return TextFiles(folder / "text_encoder", folder / "tokenizer")
    return TextFiles(folder, folder)
