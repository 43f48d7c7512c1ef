"""How a MusicGen is tuned: the options of `tune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from audiogen_core.errors import OptionError
from audiogen_core.musicgen.options import Located
from audiogen_core.options import Field, argument, described, option
from audiogen_core.training.schedule import parse_time

TIME = 1800.0
"""Seconds that a run takes where nobody says."""

RATE = 0.384
"""The learning rate by width: what is learned beside a matrix moves its outputs the more, the wider it is
(arXiv 2203.03466)."""

FREE = ("steps", "time", "samples", "threads", "unlisted")
"""What may change when a run goes on."""


@dataclass(frozen=True, kw_only=True)
class Tuning(Located):
    """A folder of clips to learn from, the model that learns, and how long and how."""

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
    rank: Annotated[int, option("Rows of what is learned for each matrix.", ge=1, le=1024)] = 16
    alpha: Annotated[float | None, option("Its weight times the rank; the rank when absent.", gt=0)] = None
    targets: Annotated[
        tuple[str, ...],
        option("Ends of names of the matrices beside which is learned, or attention, or all."),
    ] = ("all",)
    lr: Annotated[
        float | None,
        option(
            "Full learning rate; when absent by the model's width: 2e-3 for demo, 3.7e-4 for small.",
            gt=0,
            le=1,
        ),
    ] = None
    batch: Annotated[int, option("Clips in one forward pass.", ge=1, le=4096)] = 1
    accumulate: Annotated[int, option("Forward passes in one update.", ge=1, le=4096)] = 2
    seconds: Annotated[
        float, option("Length of the clips that files are cut into.", unit="s", ge=1, le=60)
    ] = 10.0
    text_dropout: Annotated[
        float, option("Share of clips shown without their caption.", ge=0, le=1, advanced=True)
    ] = 0.1
    clip_dropout: Annotated[
        float,
        option(
            "Share of clips shown without their melody or style, where the model follows one.",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = 0.5
    dora: Annotated[bool, option("Learn the lengths of the matrices' rows beside (DoRA).", advanced=True)] = (
        False
    )
    warmup: Annotated[
        float, option("Share of the run in which the rate rises.", ge=0, le=1, advanced=True)
    ] = 0.05
    cooldown: Annotated[
        float, option("Share of the run in which it falls to zero.", ge=0, le=1, advanced=True)
    ] = 0.3
    weight_decay: Annotated[float, option("Of what is learned.", ge=0, le=1, advanced=True)] = 0.01
    clip: Annotated[float, option("Greatest norm of the gradient; 0 does not clip.", ge=0, advanced=True)] = (
        1.0
    )
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        option("Of the model, which stays as it is; what is learned is float32.", advanced=True),
    ] = "float32"
    checkpoint: Annotated[
        bool,
        option(
            "Work each layer out again for its gradients: less memory, and half as much work again.",
            advanced=True,
        ),
    ] = False
    samples: Annotated[int, option("How often clips are made by the way; 0 makes none.", ge=0, le=100)] = 2
    seed: Annotated[int, option("Seed of the beginning, the order and the samples.", ge=0, lt=2**31)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.time is not None:
            raise OptionError("give steps or a time, not both")
        if self.warmup + self.cooldown > 1:
            raise OptionError("warmup and cooldown are shares of one run, together at most 1")
        if self.lora:
            raise OptionError("lora: tune the model without it, or a folder that convert --lora wrote")

    @property
    def goal(self) -> dict[str, float | int | None]:
        """What a run's plan follows from."""
        budget = None if self.steps is not None else self.time or TIME
        return {"steps": self.steps, "seconds": budget, "warmup": self.warmup, "cooldown": self.cooldown}


def plain() -> list[Field]:
    """What a page asks for: which model learns and how long, and below a heading the rest."""
    fields = [each for each in described(Tuning) if not (each.option.advanced or each.option.local)]
    first = {each.name: each for each in fields if each.name in ("model", "time")}
    rest = [
        replace(each, option=replace(each.option, group="Options"))
        for each in fields
        if each.option.role == "value" and not (each.option.argument or each.name in first)
    ]
    return [first["model"], first["time"], *rest]
