"""The settings of a training, read strictly from TOML."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
import tables


@dataclass(frozen=True)
class Model:
    latent_channels: int
    width: int
    depth: int
    heads: int
    ff_mult: float
    memory_tokens: int
    frames: int
    max_seconds: float
    clock: bool


@dataclass(frozen=True)
class Text:
    width: int
    layers: int
    heads: int
    hidden: int
    max_length: int


@dataclass(frozen=True)
class Data:
    batch: int
    first_share: float
    bar_share: float
    known_share: float
    short_share: float
    known_weight: float
    no_caption: float
    unknown_words: float


@dataclass(frozen=True)
class Noise:
    location: float
    scale: float


@dataclass(frozen=True)
class Training:
    steps: int
    learning_rate: float
    last_rate: float
    decay_from: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    average: float
    precision: str
    compile: bool
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
    noise: Noise
    training: Training

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Raises OptionError for a file that is no TOML, or has other settings than these."""
        return tables.read(cls, path)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
