"""Log-mel spectrograms of whole clips, in numpy and in bounded memory: what the pictures show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 0.05
LOWEST = 30.0
"""Hz, where the frequency axis begins."""

_CHUNK = 512  # frames transformed at once


class Clip(Protocol):
    """What is drawn and played: an `Audio`, which calls the modules that do, and so is not imported there."""

    @property
    def samples(self) -> NDArray[np.float32]: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def duration(self) -> float: ...
    @property
    def peak(self) -> float: ...
    @property
    def summary(self) -> str: ...
    def mix(self, channels: int) -> Self: ...
    def resample(self, rate: int) -> Self: ...


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """Power over time and frequency.

    power    float64 (bands, columns), mean over channels: a sine at full scale is 1 at the middle of a
             band; NaN in bands above what the clip can hold
    seconds  of the clip
    top      Hz, the upper end of the highest band; the lower end of the lowest is LOWEST
    """

    power: NDArray[np.float64]
    seconds: float
    top: float


def mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Position on the mel scale (2595 log10(1 + f / 700), O'Shaughnessy 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, np.float64) / 700.0)


def hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `mel`."""
    return 700.0 * (10.0 ** (np.asarray(mels, np.float64) / 2595.0) - 1.0)


def spectrogram(
    audio: Clip,
    *,
    bands: int = 160,
    columns: int = 1200,
    top: float | None = None,
    window_seconds: float = WINDOW_SECONDS,
) -> Spectrogram:
    """Power in mel bands over time.

    columns         at most; each is the mean of the transforms that fall into it
    top             Hz, where the bands end; None: half the sample rate
    window_seconds  of a transform, rounded to a power of 2 of samples; longer tells closer pitches apart
    """
    rate = audio.sample_rate
    window = 1 << max(5, round(np.log2(window_seconds * rate)))
    hop = window // 4
    frames = 1 + (audio.samples.shape[1] - 1) // hop
    columns = min(columns, frames)
    top = rate / 2 if top is None else top
    filters = _filters(rate, window, bands, top)
    shape = np.hanning(window + 1)[:-1]
    scale = (2 / shape.sum()) ** 2  # half of a sine's amplitude lies at the negative frequency
    sums = np.zeros((bands, columns))
    counts = np.zeros(columns)
    padded = np.pad(audio.samples, ((0, 0), (window // 2, window)))
    for start in range(0, frames, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, frames))
        parts = padded[:, index[:, None] * hop + np.arange(window)]
        power = (np.abs(np.fft.rfft(parts * shape)) ** 2).mean(axis=0) * scale
        column = index * columns // frames
        np.add.at(sums.T, column, power @ filters.T)
        np.add.at(counts, column, 1)
    sums[filters.max(axis=1) == 0] = np.nan
    return Spectrogram(sums / counts, audio.duration, top)


def _filters(rate: int, window: int, bands: int, top: float) -> NDArray[np.float64]:
    """Weights (bands, bins): triangles over the bins, each with a peak of 1 at a bin or between two."""
    edges = hertz(np.linspace(mel(LOWEST), mel(top), bands + 2))
    step = rate / window
    bins = np.arange(window // 2 + 1) * step
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    low, high = np.minimum(low, centre - step), np.maximum(high, centre + step)  # never between two bins
    return np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)


def decibels(power: NDArray[np.float64], *, floor: float = -120.0) -> NDArray[np.float64]:
    """10 log10 of power, not below `floor`."""
    return 10 * np.log10(np.maximum(power, 10 ** (floor / 10)))
