"""Files that a release made and that later ones make again: tests/fixtures/replay and its index."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

FIXTURES = Path(__file__).parents[1] / "fixtures"
INDEX = FIXTURES / "replay" / "index.json"


@dataclass(frozen=True)
class Stored:
    """One file of the index.

    file     its name, beside the index
    command  that made it, in tests/fixtures; the output left out
    use      role -> where the model, its parts and the clips lie, below tests/fixtures
    sha256   of its samples as 16 bit integers, channel after channel in each instant
    """

    file: str
    command: str
    use: dict[str, str]
    sha256: str

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def path(self) -> Path:
        return INDEX.parent / self.file

    @property
    def program(self) -> str:
        return self.command.split()[0]


def stored() -> list[Stored]:
    """All files of the index."""
    return [Stored(**entry) for entry in json.loads(INDEX.read_text(encoding="utf-8"))["files"]]


def recorded_here() -> bool:
    """Whether the files were made with what this machine has, so that samples are the same to the bit."""
    return json.loads(INDEX.read_text(encoding="utf-8"))["made_on"] == made_on()


def samples(path: Path) -> NDArray[np.int16]:
    """(time, channels), as a file of 16 bits holds them."""
    return soundfile.read(path, dtype="int16", always_2d=True)[0]


def digest(path: Path) -> str:
    """sha256 of the samples."""
    return hashlib.sha256(np.ascontiguousarray(samples(path)).tobytes()).hexdigest()


def made_on() -> dict[str, str]:
    """What the last bits of a product depend on, beside the versions in the lock file: the kind of processor,
    and the library that multiplies for mlx. (And the threads of torch, of which there is one.)
    """
    from audiogen_mlx import blas

    facts, listed = {}, Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    known = [facts[name] for name in ("vendor_id", "cpu family", "model", "model name") if name in facts]
    kind = [platform.system(), platform.machine(), *(known or [platform.processor()])]
    return {"processor": ", ".join(kind), "blas": Path(blas.use().library).name}
