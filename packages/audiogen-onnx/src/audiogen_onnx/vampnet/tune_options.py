"""How a VampNet is tuned: the options of `tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from audiogen_core.jobs import JobLoad
from audiogen_core.options import Field, Place, option, place
from audiogen_core.training import options
from audiogen_core.training.options import Accumulate, Batch, Clipped, Warmup


@dataclass(frozen=True, kw_only=True)
class Tuning(options.Tuning, JobLoad):
    """A folder of clips to learn from, the VampNet that learns, and how long and how.

    Where nothing is said, as the original trains: conf/lora/lora.yml over conf/vampnet.yml; but for the
    cool-down, which it does not have.
    """

    model: Annotated[
        Place,
        place(
            "Catalogue name, hub id, folder of checkpoints, or an exported one.",
            "-m",
            metavar="NAME|PATH",
        ),
    ] = "vampnet"
    networks: Annotated[Literal["both", "coarse", "fine"], option("Which of the two learn.")] = "both"
    lr: Annotated[
        float | None,
        option("Full learning rate; the original's schedule (Noam) when absent.", gt=0, le=1),
    ] = None
    seconds: Annotated[
        float | None,
        option(
            "Length of the clips that files are cut into; as long as the coarse network was trained on when "
            "absent. The fine network sees parts of them.",
            unit="s",
            ge=1,
            le=60,
        ),
    ] = None
    dropout: Annotated[float, option("Of the network, while it learns.", ge=0, lt=1, advanced=True)] = 0.1
    batch: Batch = 7
    accumulate: Accumulate = 1
    warmup: Warmup = 0.0
    clip: Clipped = 5.0


def plain() -> list[Field]:
    """What a page asks for."""
    return options.plain(Tuning)
