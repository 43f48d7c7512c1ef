"""The settings of a training, read strictly from TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import tables


@dataclass(frozen=True)
class Part:
    """One of the two networks, its excerpts and its steps."""

    layers: int
    heads: int
    width: int
    codebooks: int
    conditioning: int
    window: int
    batch: int
    buckets: int
    furthest: int
    steps: int
    decay_steps: int


@dataclass(frozen=True)
class Masks:
    anywhere: float
    periodic: float
    periods: tuple[int, int]
    gap: tuple[float, float]


@dataclass(frozen=True)
class Training:
    learning_rate: float
    bias_rate: float
    warmup: int
    momentum: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    precision: str
    checkpoint_every: int
    evaluate_every: int
    held_out: int


@dataclass(frozen=True)
class Settings:
    """Everything a training depends on but the corpus. The meanings stand in config.toml."""

    seed: int
    coarse: Part
    fine: Part
    masks: Masks
    training: Training

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Raises OptionError for a file that is no TOML, or has other settings than these."""
        return tables.read(cls, path)

    @classmethod
    def read_dict(cls, values: Mapping[str, Any]) -> Settings:
        """What `to_dict` made. Raises OptionError."""
        return tables.made(cls, values)

    def part(self, name: str) -> Part:
        """`coarse` or `fine`."""
        parts = {"coarse": self.coarse, "fine": self.fine}
        if name not in parts:
            raise OptionError(f"there is no network {name!r}: coarse or fine")
        return parts[name]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
