"""What MusicGen can be asked: `Options` as asked, `Located` to find it, `Settings` as carried out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.jobs import Continuing, JobLoad, Loras
from audiogen_core.musicgen.windows import STRIDE_SHARE
from audiogen_core.options import Clips, Described, Place, argument, audio, hidden, option, place
from audiogen_core.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiogen_core.codes import Codes
    from audiogen_core.musicgen.config import Config
    from audiogen_core.progress import OnStep

LONGEST = 3600.0
"""Seconds of the longest clip that is made."""

HIGHEST = 100.0
"""The highest guidance scale that is accepted; useful ones lie between 1 and 10."""

DTYPES = ("float32", "bfloat16", "float16")
"""That the weights of a converted folder may have."""

Compat = Literal["audiogen", "upstream"]

_ROUNDING = 1e-6  # frames

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True, kw_only=True)
class Padding(Continuing):
    """How the texts of a batch are padded, of models that read prompts. Raises OptionError."""

    compat: Annotated[
        Compat,
        hidden(
            "'upstream' treats the padding of a batch's texts as the original; items then feel their batch."
        ),
    ] = "audiogen"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in ("audiogen", "upstream"):
            raise OptionError(f"compat must be 'audiogen' or 'upstream', got {self.compat!r}")


@dataclass(frozen=True)
class OneClip(Described):
    """What one clip is made of, beside what those of a batch have in common. Raises OptionError.

    instead  names of options that say what to hear where there is no prompt
    """

    instead: ClassVar[tuple[str, ...]] = ()

    prompt: Annotated[str | None, argument("What to hear.", metavar="PROMPT")] = None
    _: KW_ONLY
    unconditional: Annotated[
        bool, option("Whatever the model likes, without a prompt.", label="Anything")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt is not None and self.unconditional:
            raise OptionError("give a prompt or unconditional, not both", "prompt", "unconditional")
        if self.prompt is not None and not self.prompt.strip():
            raise OptionError(
                "the prompt is empty: say what to hear, or use unconditional for anything",
                *("prompt", "unconditional"),
            )
        said = self.prompt is not None or self.unconditional
        if not said and all(getattr(self, name) is None for name in self.instead):
            raise OptionError("say what to hear, or use unconditional for anything", "unconditional")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """In Python a prompt that is said to be None stands for anything."""
        anything = "prompt" in values and values["prompt"] is None
        return super().of({"unconditional": True, **values} if anything else values)

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> Self:
        """Recipes keep no prompt where none was wanted."""
        return cls.of({"unconditional": settings.get("prompt") is None, **settings})


@dataclass(frozen=True, kw_only=True)
class Batch(Padding):
    """What the clips of a batch have in common; those that go in may be lists with one (or None) for each.

    None leaves a choice to the model's `Defaults`. Raises OptionError.
    """

    seconds: Annotated[
        float | None,
        option(
            "Length of the clip, with what is continued; 10 in most models.",
            "-s",
            label="Length",
            old=("--duration",),
            unit="s",
            gt=0,
            le=LONGEST,
            also=("audio_length",),
        ),
    ] = None
    negative_prompt: Annotated[str | None, option("What to stay away from.")] = None
    guidance_scale: Annotated[
        float | None,
        option(
            "Weight of the prompt; 1 is off; 3 in most models.",
            label="Prompt strength",
            ge=0,
            le=HIGHEST,
        ),
    ] = None
    temperature: Annotated[
        float | tuple[float, ...] | None,
        option(
            "Above 1: bolder; 0: always the likeliest; 1 in most models. Once, or for each codebook.",
            ge=0,
            advanced=True,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        option(
            "Draw from so many tokens; 0 from all; 250 in most models.", label="Top-k", ge=0, advanced=True
        ),
    ] = None
    top_p: Annotated[
        float | None,
        option(
            "Draw from the likeliest with this share; 0 from all.", label="Top-p", ge=0, le=1, advanced=True
        ),
    ] = None
    min_p: Annotated[
        float | None,
        option(
            "Draw from tokens at least this likely beside the likeliest.",
            label="Min-p",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = None
    melody: Annotated[
        Clips | None,
        audio("A clip whose melody is followed.", some=True, many=True, verb="Follow the melody"),
    ] = None
    style: Annotated[
        Clips | None, audio("A clip whose style is followed.", some=True, many=True, verb="Follow the style")
    ] = None
    style_guidance: Annotated[
        float | None,
        option("Weight of the text against the style.", ge=0, le=HIGHEST, some=True, advanced=True),
    ] = 5.0
    style_codebooks: Annotated[
        int | None, option("1 to 6: how closely the style binds.", ge=1, some=True, advanced=True)
    ] = None
    style_excerpt: Annotated[
        float | None, option("Seconds of the style that are heard.", unit="s", gt=0, some=True, advanced=True)
    ] = None
    style_start: Annotated[
        float | None,
        option("Second where they begin; else the middle.", unit="s", ge=0, some=True, advanced=True),
    ] = None
    prompt_audio: Annotated[
        Clips | None,
        audio(
            "A clip to go on with; it comes first.",
            "--continue",
            label="Clip to continue",
            many=True,
            verb="Continue",
        ),
    ] = None
    window_seconds: Annotated[
        float | None,
        option(
            "Seconds made at once; as the model was trained when absent.",
            "--window",
            unit="s",
            gt=0,
            le=LONGEST,
            advanced=True,
        ),
    ] = None
    stride_seconds: Annotated[
        float | None,
        option(
            "Seconds from window to window; 0.6 windows when absent.",
            "--stride",
            unit="s",
            gt=0,
            le=LONGEST,
            advanced=True,
        ),
    ] = None
    prompt_codes: Annotated[
        Any,
        hidden("Codes of this model's codec, or one for each prompt: continued in place of prompt_audio."),
    ] = None
    whole_frames: Annotated[
        bool, hidden("Leave out the last frame where it is only begun, as release 0.1.0 did.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_prompt is not None and not self.negative_prompt.strip():
            raise OptionError(
                "negative_prompt is empty: say what to stay away from, or leave it out", "negative_prompt"
            )
        if self.prompt_audio is not None and self.prompt_codes is not None:
            raise OptionError("give prompt_audio or prompt_codes, not both")


@dataclass(frozen=True)
class Options(OneClip, Batch):
    """One clip. Raises OptionError."""

    instead = ("melody", "style", "prompt_audio", "prompt_codes")

    def __post_init__(self) -> None:
        for name in ("melody", "style", "prompt_audio"):  # a list of one, as a batch has it
            clips = getattr(self, name)
            if isinstance(clips, list | tuple) and len(clips) == 1:
                object.__setattr__(self, name, clips[0])
        super().__post_init__()

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> Self:
        """Those of 0.1.0 name every option, asked or not."""
        return super().of_recipe({"whole_frames": {"melody", "style"} <= settings.keys(), **settings})


@dataclass(frozen=True)
class Located(JobLoad):
    """Which MusicGen, and where parts of it are that lie outside its folder."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = (
        "musicgen-small"
    )
    _: KW_ONLY
    t5: Annotated[Place | None, place("Folder of the text encoder.", advanced=True)] = None
    tokenizer: Annotated[Place | None, place("Its tokenizer.json.", advanced=True)] = None
    codec: Annotated[Place | None, place("The codec.", metavar="NAME|PATH", advanced=True)] = None
    mert: Annotated[Place | None, place("Folder of the MERT that hears styles.", advanced=True)] = None
    lora: Loras = None


@dataclass(frozen=True)
class Defaults:
    """What holds where an option is not given. A folder that `convert` wrote may have some of its own."""

    seconds: float = 10.0
    guidance_scale: float = 3.0
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    min_p: float = 0.0
    stride_seconds: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Defaults:
        """Raises ModelError for a default of something else, or one that is no number."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"the model's defaults are of another version: {', '.join(unknown)}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
                raise ModelError(f"the model's default of {name} is {value!r}, expected a number")
        return cls(**values)

    def sampling(self, seed: int | None = None) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, seed)


@dataclass(frozen=True)
class Settings:
    """`Batch` with nothing left open; see there.

    frames          that are made: as many as begin within `seconds`, to which the clip is cut
    window, stride  frames
    asked  the options with the model's defaults put in, as recipes keep them
    """

    seconds: float
    frames: int
    window: int
    stride: int
    seed: int
    guidance_scale: float = 3.0
    negative_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    melody: Clips | None = None
    style: Clips | None = None
    style_guidance: float | None = 5.0
    style_codebooks: int | None = None
    style_excerpt: float | None = None
    style_start: float | None = None
    prompt_audio: Clips | None = None
    prompt_codes: Codes | Sequence[Codes] | None = None
    keep_original: bool | None = None
    compat: Compat = "audiogen"
    on_step: OnStep | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def resolve(config: Config, frame_rate: float, options: Batch, defaults: Defaults | None = None) -> Settings:
    """Options with nothing left open. Raises OptionError when one does not fit the model."""
    options = _filled(options, defaults or Defaults())
    assert options.seconds is not None and options.guidance_scale is not None and options.sampling is not None
    frames = _frames("seconds", options.seconds, frame_rate)
    if not options.whole_frames:
        frames = math.ceil(options.seconds * frame_rate - _ROUNDING)
    window = _frames("window_seconds", options.window_seconds or config.window_seconds, frame_rate)
    stride = max(1, math.floor(STRIDE_SHARE * window + _ROUNDING))
    if options.stride_seconds is not None:
        stride = _frames("stride_seconds", options.stride_seconds, frame_rate)
    seed = options.sampling.seed
    if options.whole_frames:
        options = replace(options, seconds=frames / frame_rate)
    same = {each.name for each in fields(Settings)} & {each.name for each in fields(Batch)}
    settings = Settings(
        frames=frames,
        window=window,
        stride=stride,
        asked=options.asked(),
        **{name: getattr(options, name) for name in same - {"seed"}},
        seed=secrets.randbits(32) if seed is None else seed,
    )
    _check(config, settings)
    return settings


def _filled(options: Batch, defaults: Defaults) -> Batch:
    """With the model's defaults in the place of what was not asked for, and one `Sampling` of all draws."""
    missing = {name: value for name, value in asdict(defaults).items() if name not in _SAMPLING}
    if options.window_seconds is not None:
        del missing["stride_seconds"]  # it belongs to the model's own windows
    missing = {name: value for name, value in missing.items() if getattr(options, name) is None}
    base = options.sampling or defaults.sampling()
    said = {
        name: getattr(options, name) for name in (*_SAMPLING, "seed") if getattr(options, name) is not None
    }
    sampling = replace(base, **said)
    drawn = {name: getattr(sampling, name) for name in (*_SAMPLING, "seed")}
    return replace(options, **missing, **drawn, sampling=sampling)


def _follower(name: str) -> str:
    """Which model follows such a clip, and how much is to be fetched for it."""
    from audiogen_core.musicgen.catalog import MUSICGEN
    from audiogen_core.present import size

    spec = MUSICGEN[f"musicgen-{name}"]
    large = "--dry-run asks the hub how large it is" if spec.size is None else f"{size(spec.size)} to fetch"
    return f"{spec.name} does ({large})"


def _check(config: Config, settings: Settings) -> None:
    settings.sampling.temperatures_for(config.codebooks)
    for name in ("melody", "style"):
        if getattr(settings, name) is not None and config.clip != name:
            raise OptionError(f"{name}: this model does not follow one; {_follower(name)}", name)
    if settings.frames > settings.window and settings.window < 2:
        raise OptionError("windows must have 2 frames or more to be continued")
    if settings.negative_prompt is not None and settings.guidance_scale == 1:
        raise OptionError(
            "negative_prompt needs guidance: give a guidance_scale other than 1",
            *("negative_prompt", "guidance_scale"),
        )


def _frames(name: str, seconds: float, frame_rate: float) -> int:
    """Whole frames in so many seconds: the begun one does not count."""
    frames = math.floor(seconds * frame_rate + _ROUNDING)
    if frames < 1:
        raise OptionError(f"{name} must be at least one frame, {1 / frame_rate:g} s, got {seconds}")
    return frames
