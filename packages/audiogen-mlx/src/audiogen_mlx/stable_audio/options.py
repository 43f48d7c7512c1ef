"""What Stable Audio can be asked: `Options` of a clip, and `Load` of opening the model.

Nothing heavy is imported here; `settings` works out what the options come to for a model.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from numbers import Real
from typing import Annotated, Any, Literal, Protocol

from audiogen_core.errors import OptionError
from audiogen_core.jobs import Continuing, JobLoad, Loras
from audiogen_core.options import Clip, Noise, Place, argument, audio, hidden, option, place

MAX_STEPS = 10_000
LONGEST = 1e6
"""Seconds of a clip of several windows, which is eleven days."""

SAMPLERS = (
    "pingpong", "euler", "rk4", "dpmpp",  # of models of rectified flow; the rest of those of the v objective
    "v-ddim", "v-ddim-cfgpp", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m-sde", "k-heun", "cosine-dpm",
)  # fmt: skip

Span = tuple[float, float]


class Timed(Protocol):
    """How long a clip is to be, as both generations are asked."""

    @property
    def seconds(self) -> float | None: ...
    @property
    def bpm(self) -> float | None: ...
    @property
    def bars(self) -> int | None: ...
    @property
    def long(self) -> bool: ...


def check_lengths(asked: Timed) -> None:
    """Raises OptionError where it cannot be as long as several options say, or none does."""
    if (asked.bpm is None) != (asked.bars is None):
        raise OptionError("a loop needs both bpm and bars", "bpm", "bars")
    if asked.bpm is not None and (asked.seconds is not None or asked.long):
        raise OptionError(
            "a loop lasts as its bpm and bars say; leave out seconds and long",
            *("bpm", "bars", "seconds", "long"),
        )
    if asked.long and asked.seconds is None:
        raise OptionError("long needs to know until when: give seconds", "long", "seconds")


def check_noise(noise: object, seed: int | None) -> None:
    """Raises OptionError for a source of noise that is none, or one beside a seed."""
    if noise is not None and not callable(getattr(noise, "normal", None)):
        raise OptionError("noise must be a source of noise, such as SeededNoise or RecordedNoise")
    if noise is not None and seed is not None:
        raise OptionError("give a seed or a source of noise, not both")


@dataclass(frozen=True, kw_only=True)
class Batch(Continuing):
    """What the clips of a batch have in common.

    None leaves a choice to the model: its authors publish how it is run. Raises OptionError.
    """

    seconds: Annotated[
        float | None,
        option(
            "Length of the clip; all the model makes at once when absent.",
            "-s",
            label="Length",
            old=("--duration",),
            unit="s",
            gt=0,
            lt=LONGEST,
            also=("audio_length",),
        ),
    ] = None
    seconds_start: Annotated[
        float | None,
        option("Where in a longer piece it begins.", unit="s", ge=0, some=True, advanced=True),
    ] = None
    seconds_total: Annotated[
        float | None,
        option("How long that piece is; the clip's length when absent.", unit="s", ge=0, advanced=True),
    ] = None
    negative_prompt: Annotated[
        str | None, option("What to stay away from; needs guidance.", advanced=True)
    ] = None
    steps: Annotated[
        int | None,
        option(
            "Steps of the sampler; as published when absent.",
            ge=1,
            le=MAX_STEPS,
            also=("num_inference_steps",),
        ),
    ] = None
    sampler: Annotated[
        str | None,
        option("The sampler; as published when absent.", choices=SAMPLERS, metavar="NAME", advanced=True),
    ] = None
    guidance_scale: Annotated[
        float | None, option("Weight of the prompt; 1 is off.", label="Prompt strength")
    ] = None
    guidance_rescale: Annotated[
        float | None, option("Share of guidance's gain that is taken back.", ge=0, le=1, advanced=True)
    ] = None
    guidance_interval: Annotated[
        Span | None,
        option(
            "Noise levels in [0, 1] between which guidance acts.",
            ge=0,
            le=1,
            metavar="FROM:TO",
            advanced=True,
        ),
    ] = None
    sigma_min: Annotated[
        float | None, option("Last noise level, for samplers of the v objective.", advanced=True)
    ] = None
    sigma_max: Annotated[float | None, option("First noise level.", advanced=True)] = None
    rho: Annotated[
        float | None,
        option("How the levels between are spaced; 1: their logarithms evenly.", advanced=True),
    ] = None
    init_audio: Annotated[
        Clip | None,
        audio("A clip to begin from, or to inpaint.", "--init", label="Clip to vary", verb="Vary"),
    ] = None
    init_noise_level: Annotated[
        float | None,
        option("How much of that clip is lost: up to 1 for rectified flow, else a sigma.", advanced=True),
    ] = None
    inpaint: Annotated[
        tuple[Span, ...] | None,
        option(
            "Seconds of the clip to make anew, and the rest kept; may be repeated.",
            unit="s",
            verb="Inpaint",
            of="init_audio",
        ),
    ] = None
    prompt_audio: Annotated[
        Clip | None,
        audio(
            "A clip to go on with; it comes first.", "--continue", label="Clip to continue", verb="Continue"
        ),
    ] = None
    bpm: Annotated[
        float | None, option("Tempo of a loop.", label="Tempo in bpm", ge=20, le=400, group="Loops")
    ] = None
    bars: Annotated[int | None, option("Bars of a loop.", ge=1, le=1000, group="Loops")] = None
    beats_per_bar: Annotated[
        int, option("Beats in a bar.", old=("--beats",), ge=1, le=32, group="Loops", advanced=True)
    ] = 4
    long: Annotated[
        bool, option("Go beyond the model's window, each window continuing the last.", group="Long clips")
    ] = False
    overlap: Annotated[
        float | None,
        option(
            "Seconds a window hears of the one before.", unit="s", ge=0, group="Long clips", advanced=True
        ),
    ] = None
    inpaint_mask: Annotated[
        Any,
        hidden("In the place of inpaint: bool for each sample of init_audio, True where it is made anew."),
    ] = None
    noise: Annotated[Noise | None, hidden("A source of noise, in the place of a seed.")] = None

    def __post_init__(self) -> None:
        spans = self.inpaint
        if hasattr(spans, "dtype"):  # a mask
            object.__setattr__(self, "inpaint_mask", spans)
            object.__setattr__(self, "inpaint", None)
        elif isinstance(spans, list | tuple) and spans and all(isinstance(each, Real) for each in spans):
            object.__setattr__(self, "inpaint", (spans,))  # one span alone
        super().__post_init__()
        check_noise(self.noise, self.seed)
        self._check_clips()
        self._check_length()

    def _check_clips(self) -> None:
        inpaints = self.inpaint is not None or self.inpaint_mask is not None
        for name in ("init_audio", "inpaint", "inpaint_mask", "init_noise_level") if self.long else ():
            if getattr(self, name) is not None:
                raise OptionError(
                    f"{name} does not go with long, a clip of several windows; inpaint afterwards",
                    *(name, "long"),
                )
        if self.prompt_audio is not None and (self.init_audio is not None or inpaints):
            raise OptionError(
                "prompt_audio goes with neither init_audio nor inpaint; leave them out",
                *("prompt_audio", "init_audio", "inpaint"),
            )
        if self.init_audio is None and inpaints:
            raise OptionError("inpaint needs a clip to work on; give init_audio", "inpaint", "init_audio")
        if self.init_audio is None and self.prompt_audio is None and self.init_noise_level is not None:
            raise OptionError(
                "init_noise_level needs a clip to begin from; give init_audio",
                "init_noise_level",
                "init_audio",
            )

    def _check_length(self) -> None:
        check_lengths(self)
        if self.overlap is not None and not self.long and not isinstance(self, AnyLength):
            raise OptionError("overlap is for clips of several windows; add long", "overlap", "long")


@dataclass(frozen=True)
class Options(Batch):
    """One clip, a loop, or a clip of several windows. Raises OptionError."""

    prompt: Annotated[str, argument("What to hear.", metavar="PROMPT")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise OptionError(f"the prompt is empty: say what to hear, got {self.prompt!r}", "prompt")


@dataclass(frozen=True)
class AnyLength(Options):
    """A clip that is of several windows where one does not hold it. Raises OptionError."""

    def within(self, window_seconds: float) -> Options:
        """The options of the clip, for a model that makes so much at once."""
        longer = (self.seconds or 0.0) > window_seconds or self.overlap is not None
        said = {each.name: getattr(self, each.name) for each in fields(Options)}
        return Options.of({**said, "long": self.long or longer})


@dataclass(frozen=True)
class Load(JobLoad):
    """How a Stable Audio is opened."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = (
        "stable-audio-open-small"
    )
    _: KW_ONLY
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        option("Of the network and of T5.", advanced=True),
    ] = "float32"
    t5: Annotated[
        Place | None, place("Folder of the text encoder, where that is not beside the model.", advanced=True)
    ] = None
    base: Annotated[
        Place | None,
        place("Whole model, for a checkpoint of a transformer alone.", metavar="NAME|PATH", advanced=True),
    ] = None
    lora: Loras = None
    low_memory: Annotated[
        bool | None,
        option(
            "Give parts of the model back after use; decided by the machine when absent.",
            no="--no-low-memory",
            old=("--keep=--no-low-memory",),
            local=True,
            advanced=True,
        ),
    ] = None
