"""The settings of a training run, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from audiogen_core.codecs.frame import FrameConfig
from audiogen_core.errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """The pieces kept, and the excerpts taken from them."""

    pool: int
    piece_seconds: float
    steps_per_piece: int
    batch: int
    excerpt_frames: int


@dataclass(frozen=True)
class Training:
    plain_steps: int
    codebook_counts: tuple[int, ...]
    last_rate: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    precision: str
    checkpoint_every: int
    evaluate_every: int


@dataclass(frozen=True)
class Loss:
    """Weights of the terms that keep them throughout."""

    spectrum: float
    waveform: float
    commitment: float


@dataclass(frozen=True)
class Quantizing:
    decay: float
    dead: float
    revived: float
    start_batches: int
    start_rounds: int


@dataclass(frozen=True)
class Refit:
    """When the codebooks are refitted, and on what."""

    step: int
    batches: int
    rounds: int
    seed: int
    first_piece: int


@dataclass(frozen=True)
class Phase:
    """A stretch of the training, up to step `until`, with draws and pieces of its own."""

    until: int
    part: str
    learning_rate: float
    since: int
    schedule: int
    mel: float
    seed: int
    first_piece: int


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result, besides the machine's arithmetic."""

    seed: int
    codec: FrameConfig
    data: Data
    training: Training
    loss: Loss
    quantizer: Quantizing
    refit: Refit
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        return self.phases[-1].until

    def phase(self, step: int) -> Phase:
        """The phase that a step, counted from 0, belongs to."""
        return next(phase for phase in self.phases if step < phase.until)

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Raises OptionError when a table or a key is missing, unknown or of the wrong kind."""
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise OptionError(f"{path}: cannot be read as TOML ({error})") from error
        known = {field.name for field in fields(cls)}
        if set(tree) != known:
            raise OptionError(f"{path}: expected {sorted(known)}, found {sorted(tree)}")
        return cls(
            seed=int(tree["seed"]),
            codec=_table(FrameConfig, tree["codec"], path, complete=False),
            data=_table(Data, tree["data"], path),
            training=_table(Training, tree["training"], path),
            loss=_table(Loss, tree["loss"], path),
            quantizer=_table(Quantizing, tree["quantizer"], path),
            refit=_table(Refit, tree["refit"], path),
            phases=tuple(_table(Phase, table, path) for table in tree["phases"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _table(kind: type[T], table: dict[str, Any], path: Path, complete: bool = True) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    wrong = set(table) ^ known if complete else set(table) - known
    if wrong:
        raise OptionError(f"{path}: missing or unknown in a table: {', '.join(sorted(wrong))}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
