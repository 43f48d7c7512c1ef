"""What MAGNeT can be asked: `Options` as asked, `Load` to open it, `Settings` as carried out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from audiogen_core.errors import OptionError
from audiogen_core.musicgen.options import HIGHEST, LONGEST, OneClip, Padding
from audiogen_core.options import Clip, Place, audio, option, place
from audiogen_onnx.musicgen import options as musicgen

if TYPE_CHECKING:
    from audiogen_onnx.magnet.config import MagnetConfig
    from audiogen_onnx.magnet.staged import Staging

Span = tuple[float, float]

MOST_STEPS = 1000

_ROUNDING = 1e-6  # frames


@dataclass(frozen=True, kw_only=True)
class Batch(Padding):
    """What the clips of a batch have in common. None leaves a choice to the model. Raises OptionError."""

    seconds: Annotated[
        float | None,
        option(
            "Length of the clip, with what is continued; what the model was trained on when absent.",
            "-s",
            label="Length",
            old=("--duration",),
            unit="s",
            gt=0,
            le=LONGEST,
        ),
    ] = None
    steps: Annotated[
        int | None,
        option("Passes for the first codebook; 2 for each second when absent.", ge=1, le=MOST_STEPS),
    ] = None
    fine_steps: Annotated[
        int, option("Passes for each of the other codebooks.", ge=1, le=MOST_STEPS, advanced=True)
    ] = 10
    guidance_scale: Annotated[
        float | None,
        option(
            "Weight of the prompt in the first pass; 10, for sounds 20 when absent.",
            label="Prompt strength",
            ge=0,
            le=HIGHEST,
        ),
    ] = None
    guidance_end: Annotated[
        float, option("Weight of the prompt in the last pass; 1 is off.", ge=0, le=HIGHEST, advanced=True)
    ] = 1.0
    temperature: Annotated[
        float | None,
        option("Above: bolder; it falls to 0. 3, for sounds 3.5 when absent.", ge=0, le=100, advanced=True),
    ] = None
    top_k: Annotated[
        int,
        option(
            "Draw from so many tokens, in place of top_p; 0 from all.", label="Top-k", ge=0, advanced=True
        ),
    ] = 0
    top_p: Annotated[
        float | None,
        option(
            "Draw from the likeliest with this share; 0.9, for sounds 0.8.",
            label="Top-p",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = None
    spans: Annotated[
        str,
        option(
            "Which spans of frames are masked together: any, or those that lie side by side.",
            choices=("overlapping", "separate"),
            advanced=True,
        ),
    ] = "overlapping"
    span_scoring: Annotated[
        str,
        option(
            "How sure a span beside others is: as its surest token, or as all together.",
            choices=("max", "prod"),
            advanced=True,
        ),
    ] = "max"
    prompt_audio: Annotated[
        Clip | None, audio("A clip to go on with; it comes first.", "--continue", label="Clip to continue")
    ] = None
    init_audio: Annotated[Clip | None, audio("A clip to inpaint.", "--init", label="Clip to inpaint")] = None
    inpaint: Annotated[
        tuple[Span, ...] | None,
        option(
            "Seconds of the clip to inpaint that are made anew; the rest is kept; may be repeated.", unit="s"
        ),
    ] = None
    loop: Annotated[bool, option("Let the end lead into the beginning.")] = False

    def __post_init__(self) -> None:
        spans: Any = self.inpaint
        if isinstance(spans, tuple | list) and len(spans) == 2 and not isinstance(spans[0], tuple | list):
            object.__setattr__(self, "inpaint", (spans,))  # one span alone
        super().__post_init__()
        if (self.init_audio is None) != (self.inpaint is None):
            raise OptionError(
                "a clip to inpaint and the seconds to make anew go together: init_audio, inpaint"
            )
        if self.init_audio is not None and (self.prompt_audio is not None or self.seconds is not None):
            raise OptionError("a clip that is inpainted keeps its length, and is not continued")
        if self.loop and (self.init_audio is not None or self.prompt_audio is not None):
            raise OptionError(
                "what runs in a ring is made as a whole: give loop, or a clip to continue or to inpaint",
                "loop",
            )


@dataclass(frozen=True)
class Options(OneClip, Batch):
    """One clip. Raises OptionError."""


@dataclass(frozen=True)
class Load(musicgen.Load):
    """How a MAGNeT is opened."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = (
        "magnet-small-10secs"
    )


@dataclass(frozen=True)
class Settings:
    """`Batch` with nothing left open.

    frames   of the clip, or None where it is as long as the one that goes in
    window   frames that are made at once
    staging  how codes are filled
    asked    the options with the model's defaults put in, as recipes keep them
    """

    seconds: float
    frames: int
    window: int
    seed: int
    staging: Staging
    asked: Mapping[str, Any]


def resolve(config: MagnetConfig, frame_rate: float, options: Batch) -> Settings:
    """Options with nothing left open. Raises OptionError when one does not fit the model."""
    from audiogen_onnx.magnet.staged import Staging  # numpy, which `--help` does without

    seconds = config.seconds if options.seconds is None else options.seconds
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    sampling = options.sampling
    told: dict[str, Any] = {
        "temperature": 3.5 if config.sound else 3.0,
        "top_p": 0.8 if config.sound else 0.9,
        "guidance_scale": 20.0 if config.sound else 10.0,
        "steps": max(1, round(2 * min(seconds, config.seconds))),
        **({} if options.init_audio is not None else {"seconds": seconds}),
    }
    missing = {name: value for name, value in told.items() if getattr(options, name) is None}
    if sampling is not None:
        missing |= {
            name: value
            for name, value in (("temperature", sampling.temperatures[0]), ("top_p", sampling.top_p))
            if name in missing
        }
    filled = replace(options, **missing, seed=seed)
    assert filled.temperature is not None and filled.top_p is not None
    assert filled.guidance_scale is not None and filled.steps is not None
    books = config.network.codebooks
    staging = Staging(
        steps=(filled.steps, *[filled.fine_steps] * (books - 1)),
        temperature=filled.temperature,
        top_k=filled.top_k,
        top_p=0.0 if filled.top_k else filled.top_p,
        guidance=(filled.guidance_scale, filled.guidance_end),
        spans="overlapping" if filled.spans == "overlapping" else "separate",
        span_length=config.span,
        scoring="prod" if filled.span_scoring == "prod" else "max",
        sampled=filled.temperature > 0,
    )
    frames = math.ceil(seconds * frame_rate - _ROUNDING)
    window = max(2 * config.span, round(config.seconds * frame_rate))
    return Settings(seconds, frames, window, seed, staging, filled.asked())
