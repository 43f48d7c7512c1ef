"""Sound on its way in and out, in blocks: where it comes from, how loud it is made, where it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiogen_core import sinc
from audiogen_core.audio import Audio, pieces, probe, stream
from audiogen_core.errors import AudioError
from audiogen_core.store import Samples
from audiogen_core.store import Store as Store
from audiogen_core.store import cut as cut
from audiogen_onnx.manifest import LOUDNESS
from audiogen_onnx.vampnet.loudness import SILENCE, Meter, gain_to

Blocks = Iterator[Samples]

Span = tuple[float, float]
"""Where something begins and where it ends, in seconds or samples; infinite where it does not."""

_PIECE = 1 << 16  # samples worked off at once


class Source(Protocol):
    """Sound that can be gone through more than once."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def length(self) -> int: ...

    def blocks(self, sample_rate: int) -> Blocks:
        """The sound at another rate, Hz: blocks (channels, n)."""
        ...


@dataclass(frozen=True, eq=False)
class ClipSource:
    """A clip in memory."""

    audio: Audio

    @property
    def sample_rate(self) -> int:
        return self.audio.sample_rate

    @property
    def channels(self) -> int:
        return self.audio.channels

    @property
    def length(self) -> int:
        return int(self.audio.samples.shape[1])

    def blocks(self, sample_rate: int) -> Blocks:
        yield from pieces([self.audio.resample(sample_rate).samples], sample_rate)


@dataclass(frozen=True, eq=False)
class FileSource:
    """A file, read from the disk each time it is gone through."""

    path: Path
    sample_rate: int
    channels: int
    length: int

    @classmethod
    def open(cls, path: str | Path) -> FileSource:
        """Raises AudioError when it is no sound, or its length is not known before it is read."""
        info = probe(path)
        return cls(Path(path), info.sample_rate, info.channels, info.frames)

    def blocks(self, sample_rate: int) -> Blocks:
        yield from stream(self.path, sample_rate=sample_rate, block_seconds=2.0)


@dataclass(frozen=True)
class Levels:
    """What a first pass over a source finds, at the codec's rate.

    length    samples
    loudness  LUFS of all channels together
    mean      LUFS of one channel, on the average
    peak      the largest magnitude
    """

    length: int
    loudness: float
    mean: float
    peak: float


def measure(source: Source, sample_rate: int) -> Levels:
    """Go through a source once. Raises AudioError when it holds no samples."""
    meter = Meter(sample_rate, source.channels)
    for block in source.blocks(sample_rate):
        meter.add(block)
    if meter.length == 0:
        raise AudioError("the clip is too short: it has no samples at the rate of the codec")
    return Levels(meter.length, meter.loudness(), meter.mean_loudness(), meter.peak)


def gain_in(measured: float, peak: float, wanted: float = LOUDNESS) -> float:
    """What brings a clip to the loudness wanted, LUFS, or to a peak of 1 where that would be beyond."""
    gain = gain_to(wanted, measured)
    return min(gain, 1 / peak) if peak else gain


def gain_out(measured: float, peak: float, wanted: float, wanted_peak: float) -> float:
    """What brings a generated clip to the loudness and, at most, the peak of the clip it was made from.

    A peak of 1 is always allowed. Where one of both clips is silent nothing is changed but a peak too high.
    """
    gain = 1.0 if SILENCE in (measured, wanted) else gain_to(wanted, measured)
    return min(gain, max(1.0, wanted_peak) / peak) if peak else gain


def as_original(audio: Audio, sample_rate: int, *, mono: bool = True) -> Audio:
    """A clip at another rate, Hz, and mixed to one channel, as the original does it.

    With julius' resampler, since another one gives other codes.

    Raises AudioError when the clip is too short to be resampled.
    """
    samples = sinc.resample(audio.samples, audio.sample_rate, sample_rate, hold_ends=True)
    if not samples.size:
        raise AudioError(f"too short to resample: {audio.samples.shape[1]} samples at {audio.sample_rate} Hz")
    return Audio(samples.mean(axis=0, keepdims=True) if mono and len(samples) > 1 else samples, sample_rate)


@dataclass(frozen=True)
class Circle:
    """A clip of `length` samples whose end is followed by its beginning, cut into frames of `hop` samples.

    margin  frames put before the first and after the last one, so that a network sees across the joint
    """

    length: int
    hop: int
    margin: int

    @property
    def frames(self) -> int:
        return -(-self.length // self.hop)

    def around(self, source: Source, sample_rate: int) -> Blocks:
        """The sound with its end put before it, and its beginning after it, up to whole frames."""
        before = self.margin * self.hop
        after = (self.frames + self.margin) * self.hop - self.length
        tail = cut(source.blocks(sample_rate), self.length - before, before, source.channels)
        yield np.concatenate([*tail, np.zeros((source.channels, 0), np.float32)], axis=1)
        yield from source.blocks(sample_rate)
        yield from cut(source.blocks(sample_rate), 0, min(after, self.length), source.channels)

    def codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes (..., F) with the last `margin` frames put before them, and the first after them."""
        wrapped = np.arange(-self.margin, self.frames + self.margin) % self.frames
        return codes[..., wrapped]


def glide(blocks: Iterable[Samples], length: int, lead: Samples) -> Blocks:
    """Blocks of `length` samples in all, the last ones gliding into `lead` (channels, fade).

    With the sound that precedes the first sample as `lead`, the end can be followed by the beginning.
    """
    fade, at = lead.shape[1], 0
    for block in blocks:
        at += block.shape[1]
        over = at - (length - fade)  # where in the fade this block ends
        if over > 0:
            count = min(over, block.shape[1])
            weight = (np.arange(over - count + 1, over + 1) / fade).astype(np.float32)
            block = block.copy()
            block[:, -count:] += weight * (lead[:, over - count : over] - block[:, -count:])
        yield block


def pasted(made: Iterable[Samples], original: Iterable[Samples], spans: list[Span], fade: int) -> Blocks:
    """What was made inside some spans and the original elsewhere, cross-faded within each span.

    Both come in blocks of any size and are equally long.
    """
    at = 0
    for ours, theirs in zip(pieces(made, _PIECE), pieces(original, _PIECE), strict=True):
        time = np.arange(at, at + ours.shape[1])
        weight = np.zeros(len(time), np.float32)
        for start, stop in spans:
            inside = np.minimum(time - start, stop - 1 - time) / max(1, fade)
            weight = np.maximum(weight, np.clip(inside, 0, 1).astype(np.float32))
        yield np.where(weight > 0, theirs + weight * (ours - theirs), theirs)
        at += ours.shape[1]


def in_samples(spans: list[Span], sample_rate: int) -> list[Span]:
    """Spans of seconds in whole samples."""
    first, last = (np.round(np.array(ends) * sample_rate) for ends in zip(*spans, strict=True))
    return list(zip(first.tolist(), last.tolist(), strict=True))
