"""What is asked to be done to a clip once a model has made it, and the clip as it comes from there.

Nothing heavy is imported here: `--help` shows these options. `audiogen_core.finish` carries them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from audiogen_core.errors import OptionError
from audiogen_core.options import Described, described, option

if TYPE_CHECKING:
    from audiogen_core.audio import Audio

_MADE = "What is done to the clip"


def _fade(text: str) -> float | tuple[float, ...] | str:
    """What the command's `--fade` stands for."""
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        return text  # "auto", or what is refused
    return numbers[0] if len(numbers) == 1 else numbers


@dataclass(frozen=True, kw_only=True)
class Output(Described):
    """What is done to a clip after the model has made it.

    None leaves it as it comes. That is what holds in Python, and for recipes of files made before there were
    these options; commands put in what is `standard`. Raises OptionError.
    """

    normalize: Annotated[
        bool | None,
        option(
            "Keep the peak below full scale, by one gain for the whole clip; so it is unless turned off.",
            no="--no-normalize",
            group=_MADE,
        ),
    ] = None
    gain: Annotated[
        float | None, option("Make it louder, or quieter.", unit="dB", ge=-120, le=120, group=_MADE)
    ] = None
    loudness: Annotated[
        float | None,
        option(
            "Bring it to this loudness, as ITU-R BS.1770 measures it.", unit="LUFS", ge=-70, le=0, group=_MADE
        ),
    ] = None
    fade: Annotated[
        float | tuple[float, float] | Literal["auto"] | None,
        option(
            "Seconds of the fade at its end, or at both. auto, as when absent: 0.02:0.25 where it does not "
            "end by itself, and is neither a loop nor goes on with a clip.",
            unit="s",
            ge=0,
            le=600,
            metavar="SECONDS|IN:OUT|auto",
            parse=_fade,
            group=_MADE,
        ),
    ] = None
    subtype: Annotated[
        str | None,
        option(
            "How the file stores samples; of WAV, AIFF and FLAC. 16 when absent.",
            choices=("16", "24", "float"),
            group=_MADE,
        ),
    ] = None
    sample_rate: Annotated[
        int | None,
        option(
            "Of the result; when absent that of the clip which goes in, else the model's.",
            unit="Hz",
            group=_MADE,
        ),
    ] = None
    channels: Annotated[
        int | None, option("Of the result: 1 mixes all to one, 2 makes stereo.", ge=1, le=32, group=_MADE)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain is not None and self.loudness is not None:
            raise OptionError("give gain or loudness, not both", "gain", "loudness")

    def standard(self) -> Self:
        """With what commands do to a clip, where nothing else was asked for."""
        return replace(
            self,
            normalize=True if self.normalize is None else self.normalize,
            fade="auto" if self.fade is None else self.fade,
        )

    def output(self) -> dict[str, Any]:
        """What of these options was asked for, as JSON has it."""
        names = {each.name for each in described(Output)}
        return {name: value for name, value in self.asked().items() if name in names}


def continued(options: Output) -> Any:
    """The clip that is gone on with, or None."""
    names = [each.name for each in described(type(options)) if each.flag == "--continue"]
    return getattr(options, names[0]) if names else None


@dataclass(frozen=True)
class Sound:
    """What the clips of a run will be, as far as it is known before a model is opened; None: not known.

    subtype  how a file stores its samples, in libsndfile's words; None: as it does by default
    """

    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None
    subtype: str | None = None


@dataclass(frozen=True)
class Take:
    """One clip as a model makes it.

    pieces      the clip, piece after piece, made as they are taken
    settings    what it is made with, nothing left open: names of the job's options, as JSON has them
    seed        that gives this clip again, or None where nothing was drawn
    confidence  mean log probability of what was drawn, where the model knows it
    known       samples it begins with that are the clip which is continued, as the model made it
    seconds     of the whole clip, where one is continued
    closed      both its ends are as they should be: those of a loop, or of the clip that it was made of
    """

    pieces: Iterator[Audio]
    sample_rate: int
    channels: int
    settings: Mapping[str, Any]
    seed: int | None = None
    confidence: float | None = None
    known: int = 0
    seconds: float | None = None
    closed: bool = False
