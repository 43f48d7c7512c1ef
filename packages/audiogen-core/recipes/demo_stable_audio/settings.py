"""The settings of a training, read strictly from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError


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
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise OptionError(f"{path}: cannot be read as TOML ({error})") from error
        parts = {"model": Model, "text": Text, "data": Data, "noise": Noise, "training": Training}
        made = {name: _part(kind, values.pop(name, {}), f"{path}: [{name}]") for name, kind in parts.items()}
        if set(values) != {"seed"}:
            raise OptionError(f"{path}: expected seed and {', '.join(parts)}, found {', '.join(values)}")
        if made["training"].precision not in ("bfloat16", "float32"):
            raise OptionError(f"{path}: precision must be bfloat16 or float32")
        return cls(seed=values["seed"], **made)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _part(kind: type, values: dict[str, Any], where: str) -> Any:
    expected = {field.name for field in fields(kind)}
    if set(values) != expected:
        wrong = ", ".join(sorted(expected ^ set(values)))
        raise OptionError(f"{where}: missing or unknown settings: {wrong}")
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
