"""Resampling by the windowed sinc of julius (`julius.resample_frac`), which the original uses.

Another resampler gives other codes, so this one is kept for VampNet. A sample of the output sees about
2 * 24 / 0.945 samples at the lower of both rates.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import AudioError

Floats = NDArray[np.float32]

ZEROS = 24
"""Zero crossings of the sinc on either side."""

ROLLOFF = 0.945
"""Cut-off, as a share of half the lower rate."""

_ROWS = 1 << 21  # values gathered at once


def resample(samples: Floats, old: int, new: int) -> Floats:
    """Samples (channels, time) at another rate, Hz: floor(new * time / old) of them.

    Beyond its ends the clip is taken to go on with its first and its last sample.
    Raises AudioError when nothing would be left.
    """
    if old == new:
        return samples
    common = math.gcd(old, new)
    old, new = old // common, new // common
    length = new * samples.shape[1] // old
    if length == 0:
        raise AudioError(f"too short to resample: {samples.shape[1]} samples, {old} make {new}")
    width = math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))
    rows = -(-length // new)
    # Output row * new + phase lies at input row * old + phase * old / new; `width` samples either side count.
    group = max(1, (2 * width + 1) * new // old)  # phases that share one gathering
    out = np.empty((len(samples), rows, new), np.float32)
    padded = np.pad(samples, ((0, 0), (width, width + old * rows - samples.shape[1] + width)), mode="edge")
    for first in range(0, new, group):
        kernels, start = _kernels(first, min(first + group, new), old, new, width)
        seen = np.lib.stride_tricks.sliding_window_view(padded[:, start:], len(kernels), axis=1)[:, ::old]
        step = max(1, _ROWS // len(kernels))
        for row in range(0, rows, step):
            part = slice(row, min(row + step, rows))
            out[:, part, first : first + group] = seen[:, part] @ kernels
    return out.reshape(len(samples), -1)[:, :length]


def _kernels(first: int, last: int, old: int, new: int, width: int) -> tuple[Floats, int]:
    """Weights (taps, phases) of some phases, each with the sum 1; and their first tap in the padded clip."""
    start = first * old // new
    taps = np.arange(start - width, (last - 1) * old // new + width + 2)
    phases = np.arange(first, last)
    time = (taps[:, None] / old - phases / new) * (min(old, new) * ROLLOFF)
    time = np.clip(time, -ZEROS, ZEROS) * math.pi
    weights = np.cos(time / ZEROS / 2) ** 2 * np.sinc(time / math.pi)
    return (weights / weights.sum(axis=0)).astype(np.float32), start
