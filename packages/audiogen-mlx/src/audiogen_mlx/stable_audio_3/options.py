"""What Stable Audio 3 can be asked: `Options` of a clip, and `Load` of opening the model.

Nothing heavy is imported here; `settings` works out what the options come to for a model.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from numbers import Real
from typing import Annotated, Literal

from audiogen_core.errors import OptionError
from audiogen_core.jobs import Continuing, JobLoad, Loras
from audiogen_core.options import Clip, Noise, Place, argument, audio, hidden, option, place
from audiogen_mlx.stable_audio.options import LONGEST, MAX_STEPS, Span, check_lengths, check_noise

SAMPLERS = ("pingpong", "euler", "rk4", "dpmpp")


@dataclass(frozen=True, kw_only=True)
class Batch(Continuing):
    """What the clips of a batch have in common.

    None leaves a choice to the model: its authors publish how it is run. Raises OptionError.
    """

    seconds: Annotated[
        float | None,
        option(
            "Length of the clip; of the clip given, or 30 s at most, when absent.",
            "-s",
            label="Length",
            old=("--duration",),
            unit="s",
            gt=0,
            lt=LONGEST,
        ),
    ] = None
    negative_prompt: Annotated[
        str | None, option("What to stay away from; needs guidance.", advanced=True)
    ] = None
    steps: Annotated[
        int | None, option("Steps of the sampler; as published when absent.", ge=1, le=MAX_STEPS)
    ] = None
    sampler: Annotated[
        str | None,
        option("The sampler; as published when absent.", choices=SAMPLERS, metavar="NAME", advanced=True),
    ] = None
    guidance_scale: Annotated[
        float | None, option("Weight of the prompt; 1 is off.", label="Prompt strength")
    ] = None
    guidance_projection: Annotated[
        float,
        option(
            "Share of guidance along the prediction that is left out; 0 is plain guidance.",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = 1.0
    guidance_rescale: Annotated[
        float, option("Share of guidance's gain that is taken back.", ge=0, le=1, advanced=True)
    ] = 0.0
    guidance_threshold: Annotated[
        float, option("Length that guidance is shrunk to where it is longer; 0: never.", ge=0, advanced=True)
    ] = 0.0
    guidance_interval: Annotated[
        Span,
        option(
            "Noise levels in [0, 1] between which guidance acts.",
            ge=0,
            le=1,
            metavar="FROM:TO",
            advanced=True,
        ),
    ] = (0.0, 1.0)
    duration_padding: Annotated[
        float,
        option(
            "Seconds that are made after the end and cut off, so that it may ring out.",
            unit="s",
            ge=0,
            le=60,
            advanced=True,
        ),
    ] = 6.0
    init_audio: Annotated[
        Clip | None,
        audio("A clip to begin from, or to inpaint.", "--init", label="Clip to vary", verb="Vary"),
    ] = None
    init_noise_level: Annotated[
        float | None,
        option("How much of that clip is lost: 1 is all of it, 0.9 when absent.", gt=0, le=1, advanced=True),
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
    before: Annotated[
        float | None,
        option(
            "Seconds to make before the clip to begin from, which is kept.",
            "--outpaint-left",
            unit="s",
            gt=0,
            lt=LONGEST,
        ),
    ] = None
    exact: Annotated[
        bool,
        option("Put what is kept back sample by sample, where it comes out of the model otherwise."),
    ] = False
    bpm: Annotated[
        float | None, option("Tempo of a loop.", label="Tempo in bpm", ge=20, le=400, group="Loops")
    ] = None
    bars: Annotated[int | None, option("Bars of a loop.", ge=1, le=1000, group="Loops")] = None
    beats_per_bar: Annotated[int, option("Beats in a bar.", ge=1, le=32, group="Loops", advanced=True)] = 4
    long: Annotated[
        bool,
        option("Go beyond what the model makes at once, each part continuing the last.", group="Long clips"),
    ] = False
    overlap: Annotated[
        float | None,
        option("Seconds a part hears of the one before.", unit="s", ge=0, group="Long clips", advanced=True),
    ] = None
    compat: Annotated[
        Literal["upstream", "runtime"] | None,
        option(
            "Lengths, masks and seams as the original has them on a CPU, or its runtime for Apple's.",
            advanced=True,
        ),
    ] = None
    codec_noise: Annotated[
        bool, option("With compat upstream, the noise its autoencoder adds too.", advanced=True)
    ] = False
    times: Annotated[
        tuple[float, ...] | None,
        hidden("The times at which the sampler calls the model, from the first to 0; in the place of steps."),
    ] = None
    durations: Annotated[
        tuple[float, ...] | None, hidden("Seconds of each clip of a batch, in the place of seconds.")
    ] = None
    noise: Annotated[Noise | None, hidden("A source of noise, in the place of a seed.")] = None

    def __post_init__(self) -> None:
        spans = self.inpaint
        if isinstance(spans, list | tuple) and spans and all(isinstance(each, Real) for each in spans):
            object.__setattr__(self, "inpaint", (spans,))  # one span alone
        if getattr(self.times, "ndim", 0) == 1:  # an array
            object.__setattr__(self, "times", tuple(self.times.tolist()))  # type: ignore[union-attr]
        super().__post_init__()
        low, high = self.guidance_interval
        if not low <= high:
            raise OptionError(f"the guidance interval must be 0 <= from <= to <= 1, got {low:g} to {high:g}")
        check_noise(self.noise, self.seed)
        if self.codec_noise and self.compat != "upstream":
            raise OptionError(
                "codec_noise is the original's; it needs compat upstream", "codec_noise", "compat"
            )
        if self.times is not None and (len(self.times) < 2 or self.steps not in (None, len(self.times) - 1)):
            raise OptionError("times are one more than steps, and two or more")
        self._check_clips()
        self._check_length()

    def _check_clips(self) -> None:
        for name in ("init_audio", "inpaint", "before", "init_noise_level", "compat") if self.long else ():
            if getattr(self, name) is not None:
                raise OptionError(
                    f"{name} does not go with long, a clip of several parts; leave it out", name, "long"
                )
        if self.prompt_audio is not None and (self.init_audio is not None or self.inpaint is not None):
            raise OptionError(
                "prompt_audio goes with neither init_audio nor inpaint; leave them out",
                *("prompt_audio", "init_audio", "inpaint"),
            )
        if self.init_audio is None and (self.inpaint is not None or self.before is not None):
            raise OptionError(
                "inpaint and before need a clip to work on; give init_audio",
                *("inpaint", "before", "init_audio"),
            )
        if self.inpaint is not None and self.before is not None:
            raise OptionError("before keeps the whole clip; leave out inpaint", "before", "inpaint")
        if self.inpaint is not None and not self.inpaint:
            raise OptionError("inpaint names nothing to make anew", "inpaint")
        for start, end in self.inpaint or ():
            if not 0 <= start < end:
                raise OptionError(
                    f"inpaint needs a start of 0 or more and an end after it, got {start:g} to {end:g}",
                    "inpaint",
                )
        if self.init_audio is None and self.init_noise_level is not None:
            raise OptionError(
                "init_noise_level needs a clip to begin from; give init_audio",
                "init_noise_level",
                "init_audio",
            )
        if self.exact and self.inpaint is None and self.before is None:
            raise OptionError(
                "exact is about what is kept of a clip; give inpaint or before",
                *("exact", "inpaint", "before"),
            )

    def _check_length(self) -> None:
        check_lengths(self)
        if self.overlap is not None and not self.long and not isinstance(self, AnyLength):
            raise OptionError("overlap is for clips of several parts; add long", "overlap", "long")


@dataclass(frozen=True)
class Options(Batch):
    """One clip, a loop, or a clip longer than the model makes at once. Raises OptionError."""

    prompt: Annotated[str, argument("What to hear.", metavar="PROMPT")]


@dataclass(frozen=True)
class AnyLength(Options):
    """A clip that is of several parts where the model does not make it at once. Raises OptionError."""

    def within(self, most: float) -> Options:
        """The options of the clip, for a model that makes so many seconds at once."""
        longer = (self.seconds or 0.0) > most or self.overlap is not None
        said = {each.name: getattr(self, each.name) for each in fields(Options)}
        return Options.of({**said, "long": self.long or longer})


@dataclass(frozen=True)
class Load(JobLoad):
    """How a Stable Audio 3 is opened."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = (
        "stable-audio-3-small-music"
    )
    _: KW_ONLY
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        option("Of the network and of T5Gemma; the autoencoder is float32.", advanced=True),
    ] = "float32"
    bits: Annotated[int | None, option("4 or 8: quantise the network.", ge=4, le=8, advanced=True)] = None
    t5: Annotated[
        Place | None, place("Folder of the T5Gemma, where that is not beside the model.", advanced=True)
    ] = None
    lora: Loras = None
    lora_interval: Annotated[
        Span,
        option(
            "Noise levels in [0, 1] between which LoRAs act.", ge=0, le=1, metavar="FROM:TO", advanced=True
        ),
    ] = (0.0, 1.0)
    lora_off: Annotated[
        str,
        option(
            "Parts of names of modules that LoRAs leave alone, with commas between.",
            metavar="NAMES",
            advanced=True,
        ),
    ] = ""
    low_memory: Annotated[
        bool | None,
        option(
            "Give parts of the model back after use; decided by the machine when absent.",
            no="--no-low-memory",
            local=True,
            advanced=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in (None, 4, 8):
            raise OptionError(f"bits must be 4 or 8, got {self.bits}")
        low, high = self.lora_interval
        if not low <= high:
            raise OptionError(f"the interval of LoRAs must be 0 <= from <= to <= 1, got {low:g} to {high:g}")
