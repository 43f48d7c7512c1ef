"""How a MusicGen is tuned: the options of `tune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from audiogen_core.errors import OptionError
from audiogen_core.musicgen.options import Located
from audiogen_core.options import Field, option
from audiogen_core.training import options

RATE = 0.384
"""The learning rate by width: what is learned beside a matrix moves its outputs the more, the wider it is
(arXiv 2203.03466)."""


@dataclass(frozen=True, kw_only=True)
class Tuning(options.Tuning, Located):
    """A folder of clips to learn from, the MusicGen that learns, and how long and how."""

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
    batch: options.Batch = 1
    accumulate: options.Accumulate = 2
    seconds: Annotated[
        float, option("Length of the clips that files are cut into.", unit="s", ge=1, le=60)
    ] = 10.0
    keep: Annotated[
        Path | None,
        option(
            "Folder of clips, with captions, of what the model is to go on making as it does.",
            metavar="FOLDER",
            local=True,
        ),
    ] = None
    keep_share: Annotated[
        float, option("Share of the clips of an update that are of these.", ge=0, lt=1, advanced=True)
    ] = 0.3
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora:
            raise OptionError("lora: tune the model without it, or a folder that convert --lora wrote")


def plain() -> list[Field]:
    """What a page asks for."""
    return options.plain(Tuning)
