"""The settings of a training, read strictly from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError


@dataclass(frozen=True)
class Model:
    width: int
    layers: int
    heads: int
    hidden: int
    codebooks: int
    codebook_size: int
    dropout: float


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
    no_caption: float
    unknown_words: float
    beat_weight: float


@dataclass(frozen=True)
class Mistakes:
    share: float
    codes: float
    stretches: int
    length: tuple[int, int]
    frames: int


@dataclass(frozen=True)
class Openings:
    batch: int
    frames: int
    weight: float
    told: float


@dataclass(frozen=True)
class Training:
    steps: int
    learning_rate: float
    text_rate: float
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
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{path}: cannot be read ({error})") from error
        except tomllib.TOMLDecodeError as error:
            raise OptionError(f"{path}: not TOML ({error})") from error
        return cls.read_dict(values, str(path))

    @classmethod
    def read_dict(cls, values: Mapping[str, Any], where: str = "the settings") -> Settings:
        """What `to_dict` made. Raises OptionError."""
        kinds = {
            "model": Model,
            "text": Text,
            "data": Data,
            "mistakes": Mistakes,
            "openings": Openings,
            "training": Training,
        }
        if set(values) != {"seed", *kinds}:
            raise OptionError(f"{where}: expected seed and {', '.join(kinds)}, found {', '.join(values)}")
        made = {name: _part(kind, values[name], f"{where}: [{name}]") for name, kind in kinds.items()}
        if made["training"].precision not in ("bfloat16", "float32"):
            raise OptionError(f"{where}: precision must be bfloat16 or float32")
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
