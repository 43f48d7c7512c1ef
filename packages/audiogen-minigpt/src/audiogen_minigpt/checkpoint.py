"""Checkpoints: folders that are there whole or not at all, and the loader that takes the newest valid one.

    RUN/ckpt/step-00001234/
        model.safetensors      the weights, float32
        training.safetensors   the optimizer's state
        state.json             step, model, data and training facts, versions
        manifest.json          size and sha256 of the other three

A checkpoint is written under a name that starts with ".tmp-", flushed, and renamed. Nothing else is needed to
go on training or to generate, not even the data. One that `light` wrote lacks training.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import AudiogenError, ModelError
from audiogen_core.files import sync
from audiogen_minigpt.catalog import CATALOG, locate
from audiogen_minigpt.config import ModelConfig, check_choice
from audiogen_minigpt.errors import DiskFull, means_full

if TYPE_CHECKING:
    from torch import Tensor

    from audiogen_minigpt.model import GPT

FORMAT_VERSION = 1
FOLDER = "ckpt"
_TEMPORARY = ".tmp-"
_MODEL, _TRAINING, _STATE, _MANIFEST = (
    "model.safetensors",
    "training.safetensors",
    "state.json",
    "manifest.json",
)
_SPARE = 1 << 20  # bytes asked for beyond the tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are as they were written.

    path   its folder
    state  what state.json says
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """How many updates the weights have had."""
        return int(self.state["step"])

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return ModelConfig.from_dict(self.state["model"], f"{self.path / _STATE}: model")

    @property
    def facts(self) -> dict[str, Any]:
        """The codec and geometry of the data it was trained on; see `facts.FACTS`."""
        return dict(self.state["data"])

    def model_tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        from audiogen_minigpt.tensor_file import read_tensors

        return read_tensors(self.path / _MODEL)

    @property
    def revision(self) -> str:
        """What recipes call it: its own word for it, or the name of its folder."""
        return str(self.state.get("revision") or self.path.name)

    def training_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by name. Raises ModelError for a checkpoint without it."""
        if not (self.path / _TRAINING).exists():
            raise ModelError(f"{self.path}: made for generating alone; training cannot go on from it")
        from audiogen_minigpt.tensor_file import read_tensors

        return read_tensors(self.path / _TRAINING)


def save(
    run: str | Path,
    step: int,
    model: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint. Returns its folder.

    run              the run's folder
    model, training  tensors by name: the weights, and the optimizer's state
    state            JSON values: at least "model" (a ModelConfig as a dict) and "data" (see `facts.FACTS`)

    Raises DiskFull when there is no room, before or while writing; what was there stays.
    """
    from audiogen_minigpt.tensor_file import byte_size

    root = Path(run) / FOLDER
    target = root / f"step-{step:08d}"
    temporary = root / f"{_TEMPORARY}{target.name}-{secrets.token_hex(4)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _require_room(root, byte_size(model) + byte_size(training) + _SPARE)
        write_files(temporary, model, training, {**_versions(), **state, "step": step})
        if target.exists():  # a damaged one, or training went back to an earlier step
            grave = root / f"{_TEMPORARY}old-{secrets.token_hex(4)}"
            target.replace(grave)
            shutil.rmtree(grave, ignore_errors=True)
        temporary.replace(target)
        sync(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if means_full(error):
            raise DiskFull(
                f"{target}: no room for this checkpoint ({error.strerror}); free some space"
            ) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def read(folder: str | Path) -> Checkpoint:
    """A checkpoint by its own folder, every file checked against the manifest.

    Raises ModelError, naming the file, when one is missing, cut short, altered or of a newer version.
    """
    folder = Path(folder)
    manifest = _read_json(folder / _MANIFEST)
    _check_version(folder / _MANIFEST, manifest)
    files = manifest.get("files")
    needed = {_MODEL, _STATE}
    if not isinstance(files, dict) or not needed <= set(files) <= needed | {_TRAINING}:
        raise ModelError(f"{folder / _MANIFEST}: the list of files is damaged")
    for name, facts in files.items():
        _check_file(folder / name, facts)
    state = _read_json(folder / _STATE)
    _check_version(folder / _STATE, state)
    missing = [key for key in ("step", "model", "data") if key not in state]
    if missing:
        raise ModelError(
            f"{folder / _STATE}: no {', '.join(missing)} in it; it is no checkpoint of this package"
        )
    return Checkpoint(folder, state)


def listed(run: str | Path) -> list[Path]:
    """The folders of a run's checkpoints, newest first, unchecked."""
    return sorted((Path(run) / FOLDER).glob("step-*"), reverse=True)


def newest(run: str | Path) -> Checkpoint | None:
    """The newest valid checkpoint of a run, or None. A damaged one is reported in the log and passed over."""
    return next(_valid(run), None)


def place(path: str | Path) -> Path:
    """The folder of a run or of a checkpoint that a path or a name in the catalogue means.

    Raises ModelError when it is neither.
    """
    path = locate(path)
    if any((path / name).exists() for name in (_MANIFEST, _STATE, FOLDER)):
        return path
    raise ModelError(
        f"{path}: neither a run nor a checkpoint; a run has a folder named {FOLDER!r}. "
        f"Known by name: {', '.join(CATALOG) or 'none'}"
    )


def find(path: str | Path, which: str = "last") -> Checkpoint:
    """The checkpoint that a path means: a run's folder, a checkpoint's own, or a name in the catalogue.

    which  of a run: "last", the newest, or "best", the one with the lowest loss on validation data

    Raises ModelError when there is none.
    """
    check_choice("checkpoint", which, ("last", "best"))
    path = place(path)
    if not (path / FOLDER).is_dir():
        return read(path)
    found = list(_valid(path)) if which == "best" else [entry for entry in [newest(path)] if entry]
    if not found:
        raise ModelError(f"{path / FOLDER}: no valid checkpoint; train first")
    scored = [entry for entry in found if entry.state.get("val_loss") is not None]
    return (
        min(scored, key=lambda entry: float(entry.state["val_loss"]))
        if scored and which == "best"
        else found[0]
    )


def load_model(
    path: str | Path, *, which: str = "last", device: str = "cpu"
) -> tuple[GPT, ModelConfig, dict[str, Any]]:
    """The model of a run or checkpoint, ready to generate: the GPT in eval mode, its config, and its facts.

    The facts are those of `facts.FACTS`, with "step" and "checkpoint" (its revision). Raises ModelError.
    """
    import torch

    from audiogen_minigpt.model import GPT
    from audiogen_minigpt.tensor_file import load_into

    found = find(path, which)
    config = found.config
    with torch.random.fork_rng(devices=[]):
        model = GPT(config)
    load_into(model, found.model_tensors(), found.path / _MODEL)
    facts = {**found.facts, "step": found.step, "checkpoint": found.revision}
    return model.to(device).eval(), config, facts


def prune(run: str | Path, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the one of step `best`."""
    for folder in listed(run)[keep:]:
        if best is None or folder.name != f"step-{best:08d}":
            grave = folder.with_name(f"{_TEMPORARY}old-{secrets.token_hex(4)}")
            folder.replace(grave)
            shutil.rmtree(grave, ignore_errors=True)


def clean(run: str | Path) -> None:
    """Delete what a killed process left unfinished. Only for the holder of the run's lock."""
    for folder in (Path(run) / FOLDER).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _valid(run: str | Path) -> Iterator[Checkpoint]:
    for folder in listed(run):
        try:
            yield read(folder)
        except AudiogenError as error:
            log.warning("damaged checkpoint passed over: %s", error)


def write_files(
    folder: Path, model: Mapping[str, Tensor], training: Mapping[str, Tensor] | None, state: Mapping[str, Any]
) -> None:
    """Write the files of a checkpoint into a new folder, flushed; None is one for generating alone."""
    from audiogen_minigpt.tensor_file import write_tensors

    folder.mkdir()
    hashes = {_MODEL: write_tensors(folder / _MODEL, model)}
    if training is not None:
        hashes[_TRAINING] = write_tensors(folder / _TRAINING, training)
    hashes[_STATE] = _write_json(folder / _STATE, state)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": value} for name, value in hashes.items()
    }
    _write_json(folder / _MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
    sync(folder)


def _write_json(path: Path, value: Mapping[str, Any]) -> str:
    payload = json.dumps(value, indent=2).encode()
    path.write_bytes(payload)
    sync(path)
    return hashlib.sha256(payload).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: the file is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _check_version(path: Path, found: Mapping[str, Any]) -> None:
    version = found.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {version}, but this package reads up to {FORMAT_VERSION}; "
            "update audiogen-minigpt"
        )


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: the file is missing")
    size = path.stat().st_size
    if size != facts.get("size"):
        raise ModelError(f"{path}: {size} bytes instead of {facts.get('size')}; it was cut short or replaced")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts.get("sha256"):
            raise ModelError(f"{path}: its content is not what was written (sha256 differs)")


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{folder}: a checkpoint needs {needed / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free; "
            "make some room"
        )


def _versions() -> dict[str, Any]:
    import torch

    return {
        "format_version": FORMAT_VERSION,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
