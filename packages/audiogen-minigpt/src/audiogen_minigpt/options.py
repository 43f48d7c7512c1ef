"""What can be asked, described once: `Options` of a clip, `Load` of a model.

The commands, the keywords of Python, the JSON schema and recipes are read from these fields. Those of
training stand in `settings`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from audiogen_core.errors import OptionError
from audiogen_core.jobs import Continuing, JobLoad
from audiogen_core.options import Clip, Described, Place, audio, hidden, option, place
from audiogen_core.sampling import Sampling
from audiogen_minigpt.config import SAMPLING

MAX_SECONDS = 3600.0
"""Seconds of audio made at once, unless it is streamed."""

DRAWING = ("temperature", "top_k", "top_p", "min_p")
"""The options that say how codes are drawn; the fields of `Sampling` but for the seed."""

After = Annotated[
    bool,
    hidden(
        "Whether the seconds count from the end of prompt_audio on, and not from its beginning.", local=True
    ),
]

CodecPlace = Annotated[
    str | None,
    place("The codec's name or path, if the data's name for it is not enough.", metavar="NAME|PATH"),
]


@dataclass(frozen=True)
class Options(Continuing):
    """One clip, or several with seeds that count up. Raises OptionError."""

    seconds: Annotated[
        float,
        option(
            "Length of the clip, with what is continued.",
            "-s",
            label="Length",
            old=("--duration",),
            unit="s",
            gt=0,
            le=MAX_SECONDS,
            also=("audio_length",),
        ),
    ] = 10.0
    _: KW_ONLY
    prompt_audio: Annotated[
        Clip | None,
        audio(
            "A clip to go on with; it comes first.",
            "--continue",
            label="Clip to continue",
            old=("--prompt-audio", "--prompt"),
            verb="Continue",
        ),
    ] = None
    temperature: Annotated[
        float | tuple[float, ...] | None,
        option(
            "0 is greedy; give it once, or for each codebook. When absent as the model's folder says, "
            f"else {SAMPLING.temperature}: small models like it cold.",
            ge=0,
            advanced=True,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        option(
            f"Draw from the k likeliest codes; 0: all. When absent as the model says, or {SAMPLING.top_k}.",
            label="Top-k",
            ge=0,
            advanced=True,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        option(
            "Draw from the likeliest codes with this much probability; 0: all.",
            label="Top-p",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        option(
            "Least probability relative to the likeliest code; 0: any.",
            label="Min-p",
            ge=0,
            le=1,
            advanced=True,
        ),
    ] = None
    after: After = False

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> Self:
        """Recipes that do not say what becomes of the original count the seconds as 0.1.0 did."""
        return cls.of({"after": "keep_original" not in settings, **settings})


@dataclass(frozen=True, kw_only=True)
class Following(Options):
    """As Python's verbs are asked: the seconds are those that follow what is continued."""

    after: After = True


@dataclass(frozen=True, kw_only=True)
class Streamed(Following):
    """One clip that comes in chunks."""

    chunk_seconds: Annotated[float, option("Seconds of each chunk.", unit="s", gt=0, le=3600)] = 0.5


@dataclass(frozen=True)
class Trained(Described):
    """Which model, and which of its checkpoints."""

    model: Annotated[
        Place,
        place("Folder of a run or of a checkpoint, or: demo.", "-m", old=("RUN",), metavar="NAME|PATH"),
    ]
    _: KW_ONLY
    best: Annotated[bool, option("Take the checkpoint with the lowest validation loss.")] = False

    @property
    def chosen(self) -> str:
        """Which checkpoint of a run is taken; see `checkpoint.find`."""
        return "best" if self.best else "better"


@dataclass(frozen=True, kw_only=True)
class Load(JobLoad, Trained):
    """How a model is opened."""

    codec: CodecPlace = None
    ops: Annotated[Any, hidden("What the codec runs on; None is torch on the same device.")] = None
    which: Annotated[
        Literal["last", "best"] | None,
        hidden("Of a run's checkpoints; 'best' is the same as best.", local=True),
    ] = None
    revision: Annotated[str | None, hidden("The checkpoint of a run that a recipe names.", local=True)] = None
    unlisted: Annotated[bool, hidden("There is no hub to allow more of.", local=True)] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.which is not None:
            object.__setattr__(self, "best", self.which == "best")

    @property
    def chosen(self) -> str:
        """Which checkpoint of a run is taken; see `checkpoint.find`."""
        return self.which or super().chosen


@dataclass(frozen=True)
class ClipSettings:
    """`Options` with nothing left open.

    samples, frames  how much is new, in samples and in frames of the codec
    sampling, seed   how codes are drawn; the seed of the first clip
    asked            the options with the model's own way of drawing put in, as recipes keep them
    """

    samples: int
    frames: int
    sampling: Sampling
    seed: int
    prompt_audio: Clip | None = None
    keep_original: bool | None = None
    on_step: Callable[[int, int], None] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def seeded(sampling: Sampling | None) -> Sampling:
    """The same way of drawing with a seed: the given one, or a fresh one of 31 bits."""
    sampling = sampling or SAMPLING
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(31))


def resolve(options: Options, own: Sampling, sample_rate: int, hop_length: int) -> ClipSettings:
    """Options with nothing left open.

    own  how the model's codes are drawn unless somebody says otherwise
    """
    said = {name: getattr(options, name) for name in (*DRAWING, "seed")}
    said = {name: value for name, value in said.items() if value is not None}
    sampling = seeded(replace(options.sampling or own, **said))
    begun = _seconds_of(options.prompt_audio)
    seconds = options.seconds if options.after else options.seconds - begun
    if seconds <= 0:
        raise OptionError(f"the clip to go on with has {begun:.2f} s; ask for more seconds", "seconds")
    samples = max(1, round(seconds * sample_rate))
    drawing = {name: value for name, value in sampling.to_dict().items() if name in DRAWING}
    asked = {**options.asked(), "seconds": options.seconds, "only_new": options.only_new, **drawing}
    if begun and not (options.after and options.keep_original is None):  # see `of_recipe`
        asked |= {"seconds": begun + seconds, "keep_original": options.keep_original is True}
    asked.pop("seed", None)  # a recipe has a field of its own for it
    return ClipSettings(
        samples,
        -(-samples // hop_length),
        sampling,
        sampling.seed or 0,
        options.prompt_audio,
        options.keep_original,
        options.on_step,
        asked,
    )


def _seconds_of(clip: Clip | None) -> float:
    from audiogen_core.audio import seconds_of

    return 0.0 if clip is None else seconds_of(clip)
