"""Loops: how long an exact number of bars is, and a clip whose end runs on into its beginning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.config import Bounds

BLEND_SECONDS = 0.05
"""How much of what follows a loop is blended into its beginning; short, so the first beat stays sharp."""


def loop_samples(bpm: float, bars: int, beats_per_bar: int, sample_rate: int) -> int:
    """How many samples that many bars last, rounded once."""
    return round(bars * beats_per_bar * 60 / bpm * sample_rate)


def plan(config: Bounds, bpm: float, bars: int, beats_per_bar: int) -> tuple[int, int]:
    """Samples of a loop, and of the clip that it is cut from, which goes on after it.

    Raises OptionError when the bars do not fit in the model's window.
    """
    length = loop_samples(bpm, bars, beats_per_bar, config.sample_rate)
    blend = min(round(BLEND_SECONDS * config.sample_rate), length)
    if length + blend > config.window:
        longest = math.floor((config.window - blend) / config.sample_rate * bpm / 60 / beats_per_bar)
        advice = f"at most {longest}" if longest else "none; choose a faster tempo or fewer beats"
        raise OptionError(
            f"{bars} bars at {bpm:g} bpm last {length / config.sample_rate:.2f} s, more than the model's "
            f"{config.window_seconds:.2f} s; bars that fit: {advice}"
        )
    return length, length + blend


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
