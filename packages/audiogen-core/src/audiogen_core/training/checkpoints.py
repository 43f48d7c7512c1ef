"""Checkpoints: folders that are there whole or not at all. What all runs do with them is here; and what is
kept of that which is learned beside a model:

    RUN/ckpt/step-00001234/
        NAME.safetensors  tensors, a file for each table
        state.json        JSON values
        manifest.json     sha256 of the others

One is written under a name that starts with ".tmp-", flushed, and renamed; the newest that is as it was
written counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.errors import AudiogenError, ModelError
from audiogen_core.files import TEMPORARY, atomic_folder, remove_folder
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.recipe import hash_file
from audiogen_core.settings import read_json
from audiogen_core.training.errors import DiskFull, means_full

FOLDER = "ckpt"
STATE = "state.json"
MANIFEST = "manifest.json"

Table = Mapping[str, NDArray[Any]]

Found = TypeVar("Found")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are as they were written."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """How many updates it has had."""
        return int(self.state["step"])

    def table(self, name: str) -> dict[str, NDArray[Any]]:
        """The tensors of one of its tables."""
        return dict(weights.read(self.path / f"{name}.safetensors"))


def listed(run: str | Path) -> list[Path]:
    """The folders of a run's checkpoints, newest first, unchecked."""
    return sorted((Path(run) / FOLDER).glob("step-*"), reverse=True)


def folder(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return Path(run) / FOLDER / f"step-{step:08d}"


def valid(run: str | Path, read: Callable[[Path], Found]) -> Iterator[Found]:
    """What is read of a run's checkpoints, newest first. A damaged one is told in the log and passed over."""
    for folder in listed(run):
        try:
            yield read(folder)
        except AudiogenError as error:
            log.warning("damaged checkpoint passed over: %s", error)


@contextmanager
def writing(run: str | Path, step: int) -> Iterator[Path]:
    """A folder to write the checkpoint of a step into, which appears whole or not at all.

    One of that step gives way: it is damaged, or training went back to an earlier step. Raises DiskFull.
    """
    target = folder(run, step)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(target, replace=True) as made:
            yield made
    except OSError as error:
        if means_full(error):
            raise DiskFull(
                f"{target}: no room for this checkpoint ({error.strerror}); free some space"
            ) from error
        raise


def clean(run: str | Path) -> None:
    """Delete what a killed process left unfinished. Only for the holder of the run's lock."""
    for folder in (Path(run) / FOLDER).glob(f"{TEMPORARY}*"):
        shutil.rmtree(folder, ignore_errors=True)


def prune(run: str | Path, keep: int = 2, best: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints and the one of step `best`."""
    for each in listed(run)[keep:]:
        if best is None or each != folder(run, best):
            remove_folder(each)


def save(run: Path, step: int, tables: Mapping[str, Table], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint; one of that step gives way. Returns its folder. Raises DiskFull."""
    with writing(run, step) as target:
        sums = {}
        for name, table in tables.items():
            arrays = {key: StoredArray.of(np.ascontiguousarray(value)) for key, value in table.items()}
            sums[f"{name}.safetensors"] = write_safetensors(target / f"{name}.safetensors", arrays)
        payload = json.dumps({**state, "step": step}, indent=2).encode()
        (target / STATE).write_bytes(payload)
        sums[STATE] = hashlib.sha256(payload).hexdigest()
        (target / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
    return folder(run, step)


def read(folder: Path) -> Checkpoint:
    """A checkpoint by its own folder. Raises ModelError when a file is missing or not as it was written."""
    sums = read_json(folder / MANIFEST)
    if STATE not in sums or any(Path(name).name != name for name in sums):
        raise ModelError(f"{folder / MANIFEST}: the list of files is damaged")
    for name, digest in sums.items():
        if hash_file(folder / name) != digest:
            raise ModelError(f"{folder / name}: damaged; its hash is not the one of the manifest")
    state = read_json(folder / STATE)
    if type(state.get("step")) is not int:
        raise ModelError(f"{folder / STATE}: does not say which step it is of")
    return Checkpoint(folder, state)


def newest(run: Path) -> Checkpoint | None:
    """The newest valid checkpoint of a run, or None."""
    return next(valid(run, read), None)
