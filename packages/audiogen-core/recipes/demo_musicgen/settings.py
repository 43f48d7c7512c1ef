"""The settings of a training, read strictly from TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import tables


@dataclass(frozen=True)
class Model:
    width: int
    layers: int
    heads: int
    hidden: int
    codebooks: int
    codebook_size: int
    dropout: float
    clock: tuple[float, ...]


@dataclass(frozen=True)
class Text:
    width: int
    layers: int
    heads: int
    hidden: int


@dataclass(frozen=True)
class Data:
    window: int
    batch: int
    silent: int
    phrase_share: float
    bar_share: float
    step_share: float
    no_caption: float
    unknown_words: float
    beat_weight: float
    book_weights: tuple[float, ...]


@dataclass(frozen=True)
class Mistakes:
    share: float
    codes: float
    forgotten: float
    stretches: int
    length: tuple[int, int]
    frames: int


@dataclass(frozen=True)
class Openings:
    batch: int
    frames: int
    every: int
    told: float


@dataclass(frozen=True)
class Training:
    steps: int
    learning_rate: float
    text_rate: float
    table_rate: float
    head_rate: float
    decay_steps: int
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
    model: Model
    text: Text
    data: Data
    mistakes: Mistakes
    openings: Openings
    training: Training

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Raises OptionError for a file that is no TOML, or has other settings than these."""
        return tables.read(cls, path)

    @classmethod
    def read_dict(cls, values: Mapping[str, Any]) -> Settings:
        """What `to_dict` made. Raises OptionError."""
        return tables.made(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
