"""Whether a clip can be heard at all: silence, clipping, a shift, one tone or noise from end to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from audiogen_core.audio import Audio

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

LONGEST_SILENCE = 2.0
"""Seconds below -60 dB of full scale that are a fault; inside a clip also a fifth of it."""

_FRAME = 0.1  # seconds looked at as one
_SILENT = 10 ** (-60 / 20)  # root mean square of a frame
_PART = 0.2  # of a clip: a longer silence inside it is a fault, and so is a longer hole
_REST = 0.5  # seconds that are no fault inside a clip however short
_HOLE = 10 ** (-25 / 20)  # of the clip's root mean square: next to silent, as music never is for so long
_FULL = 0.9999  # of full scale: samples that were cut off
_SHIFTED = 0.02  # of full scale
_STILL = 1.0  # dB from frame to frame: sound that goes on as it is
_ALIKE = 0.95  # the cosine between spectra of such frames
_NOISY = 0.45  # flatness of noise; of white noise 0.56, of music below 0.3
_STUCK = 4.0  # seconds of one tone or of noise that are a fault; in short clips their larger part
_SHORTEST = 1.5
_LARGER_PART = 0.8
_BAND = 200.0  # Hz within which a spectrum is called flat
_LOWEST, _HIGHEST = 50.0, 8000.0  # Hz that are looked at

_WORDS = {
    "silence": "silent from {start:.1f} to {end:.1f} s",
    "hole": "next to silent from {start:.1f} to {end:.1f} s",
    "clipping": "{amount:.0f} samples clipped, the first at {start:.1f} s",
    "dc": "shifted by {amount:+.2f} of full scale",
    "tone": "one tone from {start:.1f} to {end:.1f} s",
    "noise": "nothing but noise from {start:.1f} to {end:.1f} s",
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a clip.

    kind        "silence", "hole" (next to it, inside), "clipping", "dc" (its middle is not 0), "tone" (which
                does not change) or "noise"
    start, end  seconds between which it is so
    amount      seconds; of clipping samples, of dc the shift as a part of full scale
    """

    kind: str
    start: float
    end: float
    amount: float

    def __str__(self) -> str:
        return _WORDS[self.kind].format(**vars(self))


def faults(audio: Audio) -> list[Fault]:
    """What is wrong with a clip: silent for more than 2 s, or inside for more than a fifth of it; clipped,
    shifted, one stuck tone, or noise.
    """
    listener = Listener(audio.sample_rate, audio.channels)
    for start in range(0, audio.samples.shape[1], 1 << 18):
        listener.add(audio.samples[:, start : start + (1 << 18)])
    return listener.faults()


class Listener:
    """Hears blocks (channels, n) as they pass, and keeps three numbers of each tenth of a second."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._rate = sample_rate
        self._size = max(8, round(_FRAME * sample_rate))
        self._held: Samples = np.zeros((channels, 0), np.float32)
        self._total: Floats = np.zeros(channels)
        self._square: Floats = np.zeros(channels)
        self._length = 0
        self._clipped: list[int] = []  # how many, and where the first is
        self._levels: list[Floats] = []
        self._likeness: list[Floats] = []
        self._flatness: list[Floats] = []
        self._last: Floats | None = None  # spectrum
        self._window = np.hanning(self._size)
        bins = np.fft.rfftfreq(self._size, 1 / sample_rate)
        self._heard = (bins >= _LOWEST) & (bins <= _HIGHEST)
        edges = np.arange(_LOWEST, bins[self._heard][-1] if self._heard.any() else 0.0, _BAND)
        starts = np.unique(np.searchsorted(bins[self._heard], edges))
        self._bands = starts[np.diff(starts, append=int(self._heard.sum())) >= 8]

    def add(self, block: Samples) -> None:
        """Take in the next samples."""
        self._count_clipped(block)
        self._total += block.sum(axis=1, dtype=np.float64)
        self._square += np.square(block, dtype=np.float64).sum(axis=1)
        self._length += block.shape[1]
        self._held = np.concatenate([self._held, block], axis=1)
        whole = self._held.shape[1] // self._size
        if whole:
            frames = self._held[:, : whole * self._size].reshape(len(block), whole, self._size)
            self._held = self._held[:, whole * self._size :]
            for start in range(0, whole, 64):
                self._hear(frames[:, start : start + 64].astype(np.float64))

    def faults(self) -> list[Fault]:
        """What is wrong with what was heard so far."""
        seconds = self._length / self._rate
        found: list[Fault] = []
        if not self._length:
            return found
        found += self._silences(seconds)
        if self._clipped:
            count, first = self._clipped
            found.append(Fault("clipping", first / self._rate, seconds, count))
        mean = self._total / self._length
        shift = float(mean[np.abs(mean).argmax()])
        if abs(shift) > max(_SHIFTED, 0.1 * float(np.sqrt(self._square.sum() / self._length))):
            found.append(Fault("dc", 0.0, seconds, shift))
        return found + list(self._stuck(seconds))

    def _count_clipped(self, block: Samples) -> None:
        """Samples beyond full scale, and those at it, three or more in a row."""
        full = np.abs(block) >= _FULL
        if not full.any():
            return
        row = full[:, :-2] & full[:, 1:-1] & full[:, 2:]
        at = np.abs(block) > 1
        for late in range(3):
            at[:, late : late + row.shape[1]] |= row
        if at.any():
            count, first = self._clipped or [0, self._length + int(at.any(axis=0).argmax())]
            self._clipped = [count + int(at.sum()), first]

    def _hear(self, frames: Floats) -> None:
        """Levels of frames (channels, F, n), how like the one before, and how flat, their spectra are."""
        self._levels.append(np.sqrt((frames**2).mean(axis=2).max(axis=0)))
        power = (np.abs(np.fft.rfft(frames * self._window, axis=2)) ** 2).sum(axis=0)[:, self._heard] + 1e-12
        before = power[:1] if self._last is None else self._last
        size = np.sqrt(np.concatenate([before, power]))  # magnitudes
        size /= np.linalg.norm(size, axis=1, keepdims=True)
        self._likeness.append((size[1:] * size[:-1]).sum(axis=1))
        self._last = power[-1:]
        if not len(self._bands):
            self._flatness.append(np.zeros(len(power)))
            return
        widths = np.diff(self._bands, append=power.shape[1])
        total = np.add.reduceat(power, self._bands, axis=1)
        flat = np.exp(np.add.reduceat(np.log(power), self._bands, axis=1) / widths) / (total / widths)
        self._flatness.append((flat * total).sum(axis=1) / total.sum(axis=1))

    def _silences(self, seconds: float) -> list[Fault]:
        """Stretches that are silent for long; inside a clip also a fifth of it that is next to silent."""
        levels, part = self._joined(self._levels), max(_REST, _PART * seconds)
        loudness = float(np.sqrt((self._square / self._length).max()))
        found: list[Fault] = []
        for kind, low, longest, at_ends in (
            ("silence", _SILENT, min(LONGEST_SILENCE, part), LONGEST_SILENCE),
            ("hole", _HOLE * loudness, part, np.inf),
        ):
            for start, end in _runs(levels < low):
                inside = start > 0 and end < len(levels)
                first = start * self._size / self._rate
                last = seconds if end == len(levels) else end * self._size / self._rate
                told = any(first < each.end and each.start < last for each in found)
                if last - first > (longest if inside else at_ends) and not told:
                    found.append(Fault(kind, first, last, last - first))
        return found

    def _stuck(self, seconds: float) -> Iterator[Fault]:
        """A tone that does not change, or noise, for long or for most of a short clip."""
        levels, flat = self._joined(self._levels), self._joined(self._flatness) >= _NOISY
        decibels = 20 * np.log10(np.maximum(levels, 1e-9))
        step = np.abs(np.diff(decibels, prepend=decibels[:1]))
        goes_on = (levels >= _SILENT) & (step < np.where(flat, 2 * _STILL, _STILL))
        tone = goes_on & ~flat & (self._joined(self._likeness) > _ALIKE)
        shortest = min(_STUCK, max(_SHORTEST, _LARGER_PART * seconds))
        for kind, which in (("tone", tone), ("noise", goes_on & flat)):
            for start, end in _runs(which):
                first, last = (at * self._size / self._rate for at in (start, end))
                if last - first >= shortest:
                    yield Fault(kind, first, last, last - first)

    @staticmethod
    def _joined(parts: Sequence[Floats]) -> Floats:
        return np.concatenate(parts) if parts else np.zeros(0)


def _runs(which: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where runs of True begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
