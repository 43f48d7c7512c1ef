"""Beats: a grid of a tempo, or a list of times; and the mask that keeps the sound around them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.errors import OptionError
from audiogen_core.files import require_regular
from audiogen_core.noise import Noise
from audiogen_core.values import close_fields, closed
from audiogen_onnx.vampnet.mask import (
    Compat,
    Like,
    Mask,
    check_share,
    seconds_to_frames,
    shape_of,
    source_of,
)

MAX_BPM = 1000.0
MAX_SECONDS = 86_400.0
MAX_FILE = 1 << 20
"""Bytes of a list of beats that are read."""


@dataclass(frozen=True, eq=False)
class Beats:
    """Beats in the order of time.

    times      float64 (n,), seconds, 0 or later, each after the one before
    downbeats  bool (n,), True for the first beat of a bar

    Raises OptionError when times are negative, not finite or not in order, or the lengths differ.
    """

    times: NDArray[np.float64]
    downbeats: NDArray[np.bool_]

    def __post_init__(self) -> None:
        close_fields(self)
        times = np.asarray(self.times, np.float64)
        downbeats = np.asarray(self.downbeats, np.bool_)
        if times.ndim != 1 or times.shape != downbeats.shape:
            raise OptionError(
                f"beats are one list of times with one mark each, got {times.shape} and {downbeats.shape}"
            )
        if not np.isfinite(times).all() or (times < 0).any() or (np.diff(times) <= 0).any():
            raise OptionError("times of beats must be seconds, 0 or more, each later than the one before")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "downbeats", downbeats)

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    @closed()
    def at(cls, times: ArrayLike, *, downbeats: ArrayLike = ()) -> Beats:
        """Beats at these times, seconds, in any order. Those among `downbeats` begin a bar."""
        first = np.asarray(downbeats, np.float64)
        together = np.unique(np.concatenate([np.asarray(times, np.float64).ravel(), first.ravel()]))
        return cls(together, np.isin(together, first))

    @classmethod
    @closed()
    def grid(cls, bpm: float, seconds: float, *, offset: float = 0.0, beats_per_bar: int = 4) -> Beats:
        """Every beat of a steady tempo that lies before `seconds`.

        bpm            beats per minute
        offset         seconds of the first beat, which begins a bar; it may be negative
        beats_per_bar  0: no beat begins a bar
        """
        if not 0 < bpm <= MAX_BPM:
            raise OptionError(f"a tempo lies between 0 and {MAX_BPM:g} beats per minute, got {bpm:g}")
        if not (abs(offset) <= MAX_SECONDS and abs(seconds) <= MAX_SECONDS) or beats_per_bar < 0:
            raise OptionError(
                f"a grid of beats needs times of at most {MAX_SECONDS:g} s and 0 or more beats per bar, "
                f"got an offset of {offset:g} s, {seconds:g} s in all and {beats_per_bar} beats per bar"
            )
        period = 60.0 / bpm
        first = max(0, math.ceil(-offset / period - 1e-9))
        numbers = np.arange(first, max(first, math.ceil((seconds - offset) / period - 1e-9)))
        downbeats = numbers % beats_per_bar == 0 if beats_per_bar else np.zeros(len(numbers), np.bool_)
        return cls(np.maximum(offset + numbers * period, 0.0), downbeats)

    @classmethod
    @closed()
    def parse(cls, text: str, what: str = "the beats") -> Beats:
        """Beats from text: times in seconds between commas or spaces, or one beat a line.

        On lines of their own, columns may follow the time, after tabs or spaces; a last column of 1 marks the
        first beat of a bar. `#` begins a comment.

        Raises OptionError naming `what` when something is not a time.
        """
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        rows = [re.split(r"[,;\s]+", line.strip(",; ")) for line in lines]
        if "\t" not in text and (len(rows) == 1 or any("," in line for line in lines)):
            return cls.at([_time(part, what) for row in rows for part in row])
        times = [_time(row[0], what) for row in rows]
        first = [time for time, row in zip(times, rows, strict=True) if row[1:] and row[-1] == "1"]
        return cls.at(times, downbeats=first)

    def text(self) -> str:
        """One line for each beat, as `parse` reads them: the time, and its place in the bar if known."""
        lines, place = [], 0
        for time, first in zip(self.times, self.downbeats, strict=True):
            place = 1 if first else place + bool(place)
            lines.append(f"{time:.6f}\t{place or ''}".rstrip() + "\n")
        return "".join(lines)

    @classmethod
    @closed()
    def read(cls, path: str | Path) -> Beats:
        """Beats from a text file as `parse` takes them, such as a label track of Audacity.

        Raises OptionError when the file cannot be read, is too large, or holds something else.
        """
        try:
            require_regular(path)
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE + 1)
            text = data.decode("utf-8-sig")
        except OSError as error:
            raise OptionError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise OptionError(f"{path}: not a text file; a list of beats has one time a line") from error
        if len(data) > MAX_FILE:
            raise OptionError(f"{path}: more than {MAX_FILE >> 20} MiB; a list of beats has one time a line")
        return cls.parse(text, str(path))


def _time(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"{what}: {text[:40]!r} is not a time in seconds, 0 or more")
    return value


@closed()
def beat_mask(
    like: Like,
    beats: Beats,
    *,
    sample_rate: int,
    hop_length: int,
    before: float = 0.0,
    after: float = 0.02,
    downbeats: bool = True,
    upbeats: bool = True,
    downbeat_every: int = 1,
    upbeat_every: int = 1,
    dropout: float = 0.0,
    keep: bool = True,
    noise: Noise | None = None,
    compat: Compat = "audiogen",
) -> Mask:
    """The sound around every beat is kept, all else generated (`make_beat_mask` of the original).

    before, after       seconds around each beat. Times are rounded up to frames one by one, as the original
                        does: a `before` of one frame surely holds the attack
    downbeats, upbeats  which beats count: the first ones of bars, all others
    downbeat_every, upbeat_every  only every so many of them
    dropout             probability of each frame near a beat not to count, drawn for each item of a batch
    keep                False: the frames around beats are generated, all else is kept

    Raises OptionError for values out of range, and when dropout is given without noise. The original loses
    beats nearer to the beginning than `before`.
    """
    check_share("the dropout of beats", dropout)
    chosen = _chosen(beats.times[~beats.downbeats], upbeats, upbeat_every)
    chosen += _chosen(beats.times[beats.downbeats], downbeats, downbeat_every)
    shape = shape_of(like)
    back, on = (seconds_to_frames(seconds, sample_rate, hop_length) for seconds in (before, after))
    items = 1 if compat == "upstream" or not dropout else math.prod(shape[:-2])
    near = np.zeros((items, shape[-1]), np.bool_)
    for time in chosen:
        beat = seconds_to_frames(time, sample_rate, hop_length)
        first = beat - back if compat == "upstream" else max(0, beat - back)
        window = near[:, first : beat + on]
        if window.size and dropout:
            window[:] = source_of(noise, "the dropout of beats").uniform(window.shape) >= dropout
        else:
            window[:] = True
    marked = near.reshape(*shape[:-2], 1, shape[-1]) if len(near) > 1 else near
    return np.broadcast_to(marked ^ keep, shape).copy()


def _chosen(times: Sequence[float] | NDArray[np.float64], wanted: bool, every: int) -> list[float]:
    if every < 1:
        raise OptionError(f"every so many beats means 1 or more, got {every}")
    return [float(time) for time in times[::every]] if wanted else []
