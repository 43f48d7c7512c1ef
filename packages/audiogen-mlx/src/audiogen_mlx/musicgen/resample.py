"""Resampling by windowed sinc, as MusicGen's conditioning was trained with: a fact of the model.

The filter is that of julius, which torchaudio repeats: a sinc cut off at 0.945 of the lower Nyquist
frequency, under a squared cosine that is 24 zero crossings wide on either side. For sound that is heard,
`Audio.resample` is the better one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import check_rate

Samples = NDArray[np.float32]

ZEROS = 24
"""Zero crossings of the sinc on either side."""

ROLLOFF = 0.945
"""Where the filter cuts off, as a share of the lower of the two Nyquist frequencies."""


def resample(samples: Samples, old: int, new: int, *, hold_ends: bool = False) -> Samples:
    """Samples (time,) at `old` Hz -> (time,) at `new` Hz, float32.

    hold_ends  False, as torchaudio does it: silence beyond the ends, and the last sample that begins
               inside the clip is kept (the length is rounded up). True, as julius does it: the first and
               last sample go on beyond the ends, the weights of every sample sum to one, and the length is
               rounded down, so that a clip shorter than one new sample gives none

    Raises AudioError for a rate outside 1,000 to 768,000 Hz.
    """
    divisor = math.gcd(check_rate(old), check_rate(new))
    old, new = old // divisor, new // divisor
    if old == new:
        return samples
    count = len(samples) * new // old if hold_ends else -(-len(samples) * new // old)
    width = math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))
    groups = -(-count // new)
    ends = (width, width + 2 * old + 2)
    padded = np.pad(samples, ends, mode="edge" if hold_ends and samples.size else "constant")
    made = np.empty((groups, new), np.float32)
    taps = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 2)
    for phase in range(new):
        first = phase * old // new
        weights = _weights(phase, old, new, np.arange(first - width, first + width + 2), hold_ends)
        made[:, phase] = taps[first::old][:groups] @ weights
    return made.reshape(-1)[:count]


def _weights(phase: int, old: int, new: int, places: NDArray[np.int64], to_one: bool) -> Samples:
    """What the samples at `places` weigh in the new sample at phase * old / new."""
    cutoff = min(old, new) * ROLLOFF
    crossings = np.clip((places / old - phase / new) * cutoff, -ZEROS, ZEROS)
    weights = np.sinc(crossings) * np.cos(crossings * (math.pi / ZEROS / 2)) ** 2
    scale = 1 / weights.sum() if to_one else cutoff / old
    return np.asarray(weights * scale, np.float32)
