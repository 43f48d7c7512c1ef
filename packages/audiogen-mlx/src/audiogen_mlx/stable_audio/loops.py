"""Loops: how long an exact number of bars is, and a clip whose end runs on into its beginning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError

BLEND_SECONDS = 0.05
"""How much of what follows a loop is blended into its beginning; short, so the first beat stays sharp."""


def loop_samples(bpm: float, bars: int, beats_per_bar: int, sample_rate: int) -> int:
    """How many samples that many bars last, rounded once. Raises OptionError."""
    if not 20 <= bpm <= 400:
        raise OptionError(f"bpm must lie in [20, 400], got {bpm:g}")
    if not (isinstance(bars, int) and 1 <= bars <= 1000):
        raise OptionError(f"bars must be a whole number of 1 or more, got {bars!r}")
    if not (isinstance(beats_per_bar, int) and 1 <= beats_per_bar <= 32):
        raise OptionError(f"beats per bar must be a whole number from 1 to 32, got {beats_per_bar!r}")
    return round(bars * beats_per_bar * 60 / bpm * sample_rate)


def circular(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The first `length` samples (channels, n), with those after them blended into the beginning.

    The last sample then leads to the first as it did in the clip.
    """
    blend = min(samples.shape[1] - length, length)
    out = samples[:, :length].copy()
    if blend < 1:
        return out
    after, start = samples[:, length : length + blend], out[:, :blend].copy()
    rising = 0.5 - 0.5 * np.cos(np.pi * np.arange(blend) / blend)
    falling = 1 - rising
    # A sum of equal sounds keeps its level, one of unrelated sounds loses up to 3 dB: dividing by what the
    # power of the sum is for this correlation keeps the loudness even in both cases.
    energy = math.sqrt(
        float(np.square(after, dtype=np.float64).sum() * np.square(start, dtype=np.float64).sum())
    )
    correlation = float((after.astype(np.float64) * start).sum()) / energy if energy > 0 else 1.0
    level = np.sqrt(rising**2 + falling**2 + 2 * max(correlation, 0.0) * rising * falling)
    out[:, :blend] = (after * falling + start * rising) / level
    return out
