"""How any model is tuned: what the options of every `tune` have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from audiogen_core.errors import OptionError
from audiogen_core.options import Described, Field, argument, described, option
from audiogen_core.times import parse_time

TIME = 1800.0
"""Seconds that a run takes where nobody says."""

Batch = Annotated[int, option("Clips in one forward pass.", ge=1, le=4096)]
Accumulate = Annotated[int, option("Forward passes in one update.", ge=1, le=4096)]
Warmup = Annotated[float, option("Share of the run in which the rate rises.", ge=0, le=1, advanced=True)]
Clipped = Annotated[float, option("Greatest norm of the gradient; 0 does not clip.", ge=0, advanced=True)]
"""Options whose defaults are the model's own."""


@dataclass(frozen=True, kw_only=True)
class Tuning(Described):
    """A folder of clips to learn from, how long and how. Each model adds itself, and what it has of its own.

    free  what may change when a run goes on
    """

    free: ClassVar[tuple[str, ...]] = ("steps", "time", "samples", "threads", "unlisted")

    folder: Annotated[Path, argument("Folder of audio, with captions.", metavar="FOLDER")]
    steps: Annotated[int | None, option("How many updates, instead of a time.", ge=1)] = None
    time: Annotated[
        float | None,
        option(
            "How long to train: 45s, 10m, 1h30m; 30m when nothing is said.",
            unit="s",
            gt=0,
            parse=parse_time,
            metavar="TIME",
        ),
    ] = None
    batch: Batch = 2
    accumulate: Accumulate = 4
    warmup: Warmup = 0.05
    cooldown: Annotated[
        float, option("Share of the run in which it falls to zero.", ge=0, le=1, advanced=True)
    ] = 0.3
    weight_decay: Annotated[float, option("Of what is learned.", ge=0, le=1, advanced=True)] = 0.01
    clip: Clipped = 1.0
    samples: Annotated[int, option("How often clips are made by the way; 0 makes none.", ge=0, le=100)] = 2
    seed: Annotated[int, option("Seed of the beginning, the order and the samples.", ge=0, lt=2**31)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.time is not None:
            raise OptionError("give steps or a time, not both")
        if self.warmup + self.cooldown > 1:
            raise OptionError("warmup and cooldown are shares of one run, together at most 1")

    @property
    def goal(self) -> dict[str, float | int | None]:
        """What a run's plan follows from."""
        budget = None if self.steps is not None else self.time or TIME
        return {"steps": self.steps, "seconds": budget, "warmup": self.warmup, "cooldown": self.cooldown}


def plain(tuning: type[Tuning]) -> list[Field]:
    """What a page asks for: which model learns and how long, and below a heading the rest."""
    fields = [each for each in described(tuning) if not (each.option.advanced or each.option.local)]
    first = {each.name: each for each in fields if each.name in ("model", "time")}
    rest = [
        replace(each, option=replace(each.option, group="Options"))
        for each in fields
        if each.option.role == "value" and not (each.option.argument or each.name in first)
    ]
    return [first["model"], first["time"], *rest]
