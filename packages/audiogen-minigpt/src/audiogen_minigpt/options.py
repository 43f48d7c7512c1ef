"""What can be asked, described once: `Options` of a clip, `Load` of a model, `Preparation` of audio.

The commands, the keywords of Python, the JSON schema and recipes are read from these fields. Those of
training stand in `settings`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from audiogen_core.jobs import JobLoad, JobOptions
from audiogen_core.options import Clip, Described, audio, hidden, option, place
from audiogen_core.sampling import Sampling
from audiogen_minigpt.config import SAMPLING

if TYPE_CHECKING:
    from audiogen_core.codec import Codec

MAX_SECONDS = 3600.0
"""Seconds of audio made at once, unless it is streamed."""

DRAWING = ("temperature", "top_k", "top_p", "min_p")
"""The options that say how codes are drawn; the fields of `Sampling` but for the seed."""

CodecPlace = Annotated[
    str | None,
    place("The codec's name or path, if the data's name for it is not enough.", metavar="NAME|PATH"),
]


@dataclass(frozen=True)
class Options(JobOptions):
    """One clip, or several with seeds that count up. Raises OptionError."""

    seconds: Annotated[
        float, option("How much to make.", "-s", unit="s", gt=0, le=MAX_SECONDS, also=("audio_length",))
    ] = 10.0
    prompt_audio: Annotated[
        Clip | None,
        audio("Sound to go on with, of which whole frames are used.", "--prompt-audio", "--prompt"),
    ] = None
    only_new: Annotated[bool, option("Leave the prompt out of the result.")] = False
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
            ge=0,
            advanced=True,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        option(
            "Draw from the likeliest codes with this much probability; 0: all.", ge=0, le=1, advanced=True
        ),
    ] = None
    min_p: Annotated[
        float | None,
        option("Least probability relative to the likeliest code; 0: any.", ge=0, le=1, advanced=True),
    ] = None
    sampling: Annotated[
        Sampling | None, hidden("How codes are drawn, as one value; options said beside it win over it.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Trained(Described):
    """Which model, and which of its checkpoints."""

    model: Annotated[
        str, place("Folder of a run or of one of its checkpoints, or: demo.", argument=True, metavar="RUN")
    ]
    best: Annotated[bool, option("Take the checkpoint with the lowest validation loss.")] = False


@dataclass(frozen=True, kw_only=True)
class Load(JobLoad, Trained):
    """How a model is opened."""

    codec: CodecPlace = None
    device: Annotated[str, option("auto, cpu, cuda or mps.", local=True)] = "auto"
    ops: Annotated[Any, hidden("What the codec runs on; None is torch on the same device.")] = None
    revision: Annotated[str | None, hidden("The checkpoint of a run that a recipe names.")] = None
    unlisted: Annotated[bool, hidden("There is no hub to allow more of.")] = False


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
    only_new: bool = False
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
    samples = max(1, round(options.seconds * sample_rate))
    drawing = {name: value for name, value in sampling.to_dict().items() if name in DRAWING}
    asked = {**options.asked(), "seconds": options.seconds, "only_new": options.only_new, **drawing}
    asked.pop("seed", None)  # a recipe has a field of its own for it
    return ClipSettings(
        samples,
        -(-samples // hop_length),
        sampling,
        sampling.seed or 0,
        options.prompt_audio,
        options.only_new,
        options.on_step,
        asked,
    )


@dataclass(frozen=True)
class Preparation(Described):
    """How audio is prepared before it is encoded. Raises OptionError."""

    stereo: Annotated[
        str, option("mix: the mean of all channels; split: each is a track.", choices=("mix", "split"))
    ] = "mix"
    # One gain for the whole file, after a pass over it. "none" because a gain changes the codes of sounds
    # that would else repeat exactly from file to file.
    level: Annotated[
        str,
        option(
            "Loudness: none, peak (to -1 dBFS) or rms (to -20 dBFS, no peak above -1).",
            choices=("none", "peak", "rms"),
        ),
    ] = "none"
    silence: Annotated[
        float,
        option("Seconds of silence (below -60 dBFS) after which it is cut; 0 keeps all.", unit="s", ge=0),
    ] = 2.0
    min_seconds: Annotated[float, option("Shorter files are left out.", unit="s", ge=0, advanced=True)] = 0.5
    codebooks: Annotated[int | None, option("How many codebooks to store; 8 or all when absent.", ge=1)] = (
        None
    )

    def count(self, codec: Codec) -> int:
        """How many codebooks to store."""
        return min(8, codec.info.codebooks) if self.codebooks is None else self.codebooks
