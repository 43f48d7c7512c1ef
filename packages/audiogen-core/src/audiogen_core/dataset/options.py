"""How a folder of audio is encoded, described once for all commands that do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from audiogen_core.devices import Computing
from audiogen_core.options import Described, option, place

if TYPE_CHECKING:
    from audiogen_core.codec import CodecInfo


@dataclass(frozen=True, kw_only=True)
class Spread(Described):
    """How many work on a folder."""

    workers: Annotated[int | None, option("Processes; one per core when absent.", ge=1)] = None


@dataclass(frozen=True, kw_only=True)
class Division(Spread):
    """How a folder is divided: between training and judging, and among those who work on it."""

    val_permille: Annotated[int, option("How much is held out, in thousandths of the files.")] = 50
    split_by: Annotated[str, option("What is held out as a whole.", choices=("file", "parent"))] = "file"
    engine: Annotated[str, option("What spreads the work.", choices=("local", "ray"))] = "local"
    verify: Annotated[bool, option("Check every shard to the last byte afterwards.")] = False


@dataclass(frozen=True, kw_only=True)
class Coder(Computing):
    """What encodes."""

    codec: Annotated[
        str, place("Name in the catalogue (see `audiogen-core codecs`), or path.", "-m", metavar="NAME|PATH")
    ] = "demo"


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
    codebooks: Annotated[
        int | None, option("How many codebooks to store; when absent all, of a folder 8 at most.", ge=1)
    ] = None

    def count(self, info: CodecInfo) -> int:
        """How many codebooks of a codec to store."""
        return min(8, info.codebooks) if self.codebooks is None else self.codebooks

    def longest_silence(self, info: CodecInfo) -> int | None:
        """How many silent frames in a row are kept; None: all."""
        return round(self.silence * info.frame_rate) if self.silence else None
