"""What a vamp can be asked: `VampOptions`, with nothing left open; `Options`, as a job is; `Load`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from audiogen_core.errors import OptionError
from audiogen_core.jobs import MOST, JobLoad, JobOptions, Loras
from audiogen_core.options import Clip, Described, Noise, Place, audio, described, file, hidden, option, place

if TYPE_CHECKING:
    from audiogen_onnx.vampnet.beats import Beats

LONGEST = 3600.0
"""Seconds that are made before or after a clip, at most."""

_KEPT = "What is kept of the clip"
_MADE = "How the rest is made"
_RUNNING = "Running"


def _beats(text: str) -> Beats:
    """What the command's `--beats` stands for: a list of seconds, or a file of that name."""
    from audiogen_onnx.vampnet.beats import Beats

    return Beats.read(text) if Path(text).is_file() else Beats.parse(text, "--beats")


@dataclass(frozen=True, kw_only=True)
class VampOptions(Described):
    """The options of a vamp. The first ones say what is kept of the clip as a prompt, all else is made.

    period, keep  None: 7 and 3; or 0 and all codebooks where infill, outpainting or a mask says where
    beats         times in seconds; or a `Beats`, which gives `downbeat_times` too

    Raises OptionError when a value is out of range, or two contradict each other.
    """

    period: Annotated[
        int | None, option("A frame is kept every so many; 0: none. [7]", ge=0, group=_KEPT)
    ] = None
    period_width: Annotated[int, option("Frames kept around each.", ge=0, group=_KEPT)] = 1
    roll: Annotated[
        int | Literal["random"],
        option("Frames by which these move to the right, or random.", metavar="NUMBER|random", group=_KEPT),
    ] = "random"
    prefix: Annotated[
        float, option("Seconds kept at the beginning.", unit="s", ge=0, le=LONGEST, group=_KEPT)
    ] = 0.0
    suffix: Annotated[float, option("Seconds kept at the end.", unit="s", ge=0, le=LONGEST, group=_KEPT)] = (
        0.0
    )
    keep: Annotated[int | None, option("Codebooks in which there are prompts. [3]", ge=0, group=_KEPT)] = None
    onset_width: Annotated[int, option("Frames kept before and after each onset.", ge=0, group=_KEPT)] = 0
    bpm: Annotated[
        float | None, option("Keep around each beat of this tempo.", label="Tempo in bpm", gt=0, group=_KEPT)
    ] = None
    beat_offset: Annotated[
        float, option("Seconds of its first beat.", unit="s", ge=-86_400, le=LONGEST, group=_KEPT)
    ] = 0.0
    beats_per_bar: Annotated[
        int, option("Of this tempo; the first beat begins a bar.", ge=0, group=_KEPT, advanced=True)
    ] = 4
    beats: Annotated[
        tuple[float, ...] | str | None,
        option(
            "Or beats: times in seconds, or a text file of them.",
            metavar="LIST|PATH",
            parse=_beats,
            group=_KEPT,
        ),
    ] = None
    downbeat_times: Annotated[
        tuple[float, ...],
        option("Those of them that begin a bar.", unit="s", group=_KEPT, advanced=True),
    ] = ()
    downbeats: Annotated[
        bool,
        option("Whether the first beats of bars count.", no="--upbeats-only", group=_KEPT, advanced=True),
    ] = True
    upbeats: Annotated[
        bool, option("Whether beats within bars count.", no="--downbeats-only", group=_KEPT)
    ] = True
    before_beat: Annotated[
        float, option("Seconds kept before each beat.", unit="s", ge=0, le=LONGEST, group=_KEPT)
    ] = 0.0
    after_beat: Annotated[
        float, option("Seconds kept after each beat.", unit="s", ge=0, le=LONGEST, group=_KEPT)
    ] = 0.05
    beat_dropout: Annotated[
        float,
        option("Share of the frames near beats that is not kept.", ge=0, le=1, group=_KEPT, advanced=True),
    ] = 0.0
    dropout: Annotated[float, option("Share of frames whose prompt is dropped.", ge=0, le=1, group=_KEPT)] = (
        0.0
    )
    random_intensity: Annotated[
        float, option("Share of codes that may be made at all.", ge=0, le=1, group=_KEPT)
    ] = 1.0
    infill: Annotated[
        tuple[float, float] | None,
        option(
            "Make anew only what lies between, in seconds.",
            "--inpaint",
            old=("--infill",),
            verb="Inpaint",
            of="audio",
            unit="s",
            ge=0,
            group=_KEPT,
        ),
    ] = None
    outpaint_left: Annotated[
        float, option("Seconds made before the beginning.", unit="s", ge=0, le=LONGEST, group=_KEPT)
    ] = 0.0
    outpaint_right: Annotated[
        float, option("Seconds made after the end.", unit="s", ge=0, le=LONGEST, group=_KEPT)
    ] = 0.0
    loop: Annotated[bool, option("Let the end lead into the beginning.", group=_KEPT)] = False
    keep_original: Annotated[
        bool,
        option(
            "With infill or outpainting, the rest is the clip itself, not what the codec makes of it.",
            no="--no-keep-original",
            group=_KEPT,
            advanced=True,
        ),
    ] = True

    steps: Annotated[int, option("Of the coarse network.", ge=1, le=10_000, group=_MADE)] = 12
    fine_steps: Annotated[int, option("Of the fine network.", ge=1, le=10_000, group=_MADE)] = 2
    temperature: Annotated[float, option("Of each token; 0: the likeliest.", ge=0, group=_MADE)] = 1.0
    fine_temperature: Annotated[
        float | None, option("Of the fine network. [as temperature]", ge=0, group=_MADE)
    ] = None
    mask_temperature: Annotated[float, option("Of the choice of what to make anew.", ge=0, group=_MADE)] = (
        10.5
    )
    top_p: Annotated[
        float | None,
        option("Keep the likeliest tokens up to this share.", label="Top-p", ge=0, le=1, group=_MADE),
    ] = None
    typical_mass: Annotated[
        float | None, option("Keep the most typical tokens up to this share.", gt=0, le=1, group=_MADE)
    ] = None
    typical_min_tokens: Annotated[int, option("But at least so many.", ge=0, group=_MADE)] = 64
    sample_cutoff: Annotated[
        float, option("Part of the steps that draws at random.", ge=0, le=1, group=_MADE)
    ] = 1.0
    feedback_steps: Annotated[
        int, option("How often the coarse network goes over it.", ge=1, le=1000, group=_MADE)
    ] = 1
    time_stretch_factor: Annotated[
        int, option("Make it so many times as long.", "--time-stretch", ge=1, le=1000, group=_MADE)
    ] = 1
    window_seconds: Annotated[
        float | None,
        option(
            "What the coarse network sees at once. [as it was trained]",
            "--window",
            unit="s",
            gt=0,
            le=86_400,
            group=_MADE,
            advanced=True,
        ),
    ] = None
    fine_window_seconds: Annotated[
        float | None,
        option(
            "What the fine network sees at once. [as it was trained]",
            "--fine-window",
            unit="s",
            gt=0,
            le=86_400,
            group=_MADE,
            advanced=True,
        ),
    ] = None
    context_seconds: Annotated[
        float,
        option(
            "Seconds of what was made that a window sees; the fine network, a quarter of it.",
            "--overlap",
            old=("--context",),
            unit="s",
            ge=0,
            le=86_400,
            group=_MADE,
        ),
    ] = 2.5
    compat: Annotated[
        Literal["audiogen", "upstream"],
        option("Or the original's way, quirks and all.", metavar="audiogen|upstream", group=_MADE),
    ] = "audiogen"

    def __post_init__(self) -> None:
        _split_beats(self)
        super().__post_init__()
        if self.infill is not None and self.infill[0] >= self.infill[1]:
            start, end = self.infill
            raise OptionError(
                f"infill goes from a time to a later one, got {start:g} to {end:g} seconds", "infill"
            )
        if self.bpm is not None and self.beats is not None:
            raise OptionError("bpm is a grid, and beats a list of times: give one of them", "bpm", "beats")
        if self.loop and self.outpaints:
            raise OptionError(
                "what runs in a ring has no ends: give loop, or outpaint_left and outpaint_right",
                *("loop", "outpaint_left", "outpaint_right"),
            )
        stretches = self.time_stretch_factor > 1
        if stretches and (self.outpaints or self.infill is not None or self.loop):
            raise OptionError(
                "time_stretch_factor goes with none of infill, outpaint_left, outpaint_right and loop",
                *("time_stretch_factor", *_LATER),
            )
        if self.compat == "upstream" and (self.loop or self.outpaints or self.infill is not None):
            raise OptionError(
                "the original has no infill, outpaint_left, outpaint_right or loop; leave out compat",
                *("compat", *_LATER),
            )

    @property
    def outpaints(self) -> bool:
        return self.outpaint_left > 0 or self.outpaint_right > 0


_LATER = ("infill", "outpaint_left", "outpaint_right", "loop")
"""What the original has not."""


def _split_beats(options: Any) -> None:
    """A `Beats`, or a text that lists some, in the place of `beats` as the two options that it stands for."""
    beats = options.beats
    if isinstance(beats, str):
        from audiogen_onnx.vampnet.beats import Beats

        beats = Beats.parse(beats, "beats")
    if hasattr(beats, "downbeats"):
        object.__setattr__(options, "beats", tuple(beats.times.tolist()))
        object.__setattr__(options, "downbeat_times", tuple(beats.times[beats.downbeats].tolist()))


@dataclass(frozen=True, kw_only=True)
class Drawn(JobOptions):
    """What every verb can be asked that draws."""

    noise: Annotated[Noise | None, hidden("A source of random numbers, in the place of a seed.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is not None and self.seed is not None:
            raise OptionError("give a seed or noise, not both")
        if self.noise is not None and not callable(getattr(self.noise, "uniform", None)):
            raise OptionError("noise must be a source of noise, such as SeededNoise or RecordedNoise")

    def chosen(self) -> dict[str, Any]:
        """The options of a vamp that were asked for: what is left out is the model's to say."""
        values = {each.name: getattr(self, each.name, None) for each in described(VampOptions)}
        if self.sampling is not None:
            drawing = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p or None}
            values |= {name: value for name, value in drawing.items() if values[name] is None}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Beside(Drawn):
    """What is asked of a clip beside `VampOptions`."""

    mask: Annotated[
        Path | None,
        file(
            "NPY, PNG, or a sound file whose silence is what to make.",
            metavar="PATH",
            group=_KEPT,
            suffixes=(".npy", ".png"),
        ),
    ] = None
    mask_array: Annotated[
        Any,
        hidden("In the place of mask: (codebooks, frames) or (frames,) of the codec, True where it is made."),
    ] = None
    variations: Annotated[
        int,
        hidden("In Python: of so many, the one the networks were surest of.", ge=1, le=MOST, local=True),
    ] = 1
    track_beats: Annotated[bool, option("Or beats: found by WaveBeat, if the model has it.", group=_KEPT)] = (
        False
    )

    def __post_init__(self) -> None:
        _split_beats(self)
        if isinstance(self.mask, list | tuple) or hasattr(self.mask, "dtype"):
            object.__setattr__(self, "mask_array", self.mask)
            object.__setattr__(self, "mask", None)
        super().__post_init__()
        chosen = VampOptions.of(self.chosen())  # raises for what contradicts each other
        if self.track_beats and (chosen.beats is not None or chosen.bpm is not None):
            raise OptionError("give one of track_beats, beats and bpm", "track_beats", "beats", "bpm")


@dataclass(frozen=True)
class Asked(Beside):
    """What a job is asked beside `VampOptions`."""

    audio: Annotated[
        Clip, audio("Audio file.", argument=True, label="Clip to vary", metavar="IN", verb="Vary")
    ]

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> Self:
        """Recipes keep what differs from the defaults of `VampOptions`: the rest is not left to the model."""
        defaults = {each.name: each.default for each in described(VampOptions) if each.default is not None}
        return cls.of({**defaults, **settings})


def _left_open() -> list[tuple[str, Any, Any]]:
    """The fields of `VampOptions`, each of which may be None; the help names the default that holds then."""
    fields: list[tuple[str, Any, Any]] = []
    for each in described(VampOptions):
        help, default = each.option.help, each.default
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            help += f" [{default:g}]" if isinstance(default, float) else f" [{default}]"
        fields.append((each.name, Annotated[each.kind | None, replace(each.option, help=help)], None))
    return fields


def _with_vamp_options(name: str, base: type[Drawn]) -> Any:
    return make_dataclass(name, _left_open(), bases=(base,), frozen=True, kw_only=True)


if TYPE_CHECKING:  # what type checkers and editors are told: None is taken too, and leaves it to the model

    @dataclass(frozen=True)
    class Options(VampOptions, Asked): ...

    @dataclass(frozen=True, kw_only=True)
    class Batch(VampOptions, Beside): ...

    @dataclass(frozen=True, kw_only=True)
    class CodeOptions(VampOptions, Drawn): ...

else:
    Options = _with_vamp_options("Options", Asked)
    """A vamp as a job is asked for it: `Asked`, and the fields of `VampOptions`; None: the model's own."""

    Batch = _with_vamp_options("Batch", Beside)
    """What the variations of a clip have in common."""

    CodeOptions = _with_vamp_options("CodeOptions", Drawn)
    """What is asked of codes and a mask: `Drawn`, and those fields of `VampOptions` that concern sampling."""


@dataclass(frozen=True)
class Load(JobLoad):
    """How a VampNet is opened."""

    model: Annotated[Place, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = "vampnet"
    _: KW_ONLY
    lora: Loras = None
    providers: Annotated[
        tuple[str, ...] | None,
        option(
            "onnxruntime's execution provider; more than once for a choice.",
            "--provider",
            local=True,
            group=_RUNNING,
            advanced=True,
        ),
    ] = None
    verify: Annotated[
        bool, hidden("Check the hash of every file first, not only names and sizes.", local=True)
    ] = False
