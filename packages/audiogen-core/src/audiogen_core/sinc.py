"""Resampling by the windowed sinc of julius, which torchaudio repeats.

MusicGen's conditioning, VampNet and the beat tracker were trained with it, and another resampler gives
other codes: it is kept for them as a fact of the model. For sound that is heard, `Audio.resample` is better.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import check_rate

Samples = NDArray[np.float32]

ZEROS = 24
"""Zero crossings of the sinc on either side. The window is a squared cosine of that width."""

ROLLOFF = 0.945
"""Where the filter cuts off, as a share of the lower of the two Nyquist frequencies."""

_GATHERED = 1 << 21  # values put side by side for one matrix product


def resample(samples: Samples, old: int, new: int, *, hold_ends: bool = False) -> Samples:
    """Samples (..., time) at `old` Hz -> (..., time) at `new` Hz, float32.

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
    length = samples.shape[-1]
    count = length * new // old if hold_ends else -(-length * new // old)
    if count == 0:
        return samples[..., :0]
    channels = samples.reshape(-1, length)
    width = math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))
    rows = -(-count // new)
    # Sample row * new + phase of the output lies at row * old + phase * old / new of the input. Phases beside
    # one another see nearly the same samples, so as many as double their number share one matrix product.
    group = max(1, (2 * width + 1) * new // old)
    out = np.empty((len(channels), rows, new), np.float32)
    beyond = (width, width + old * rows - length + width)
    padded = np.pad(channels, ((0, 0), beyond), mode="edge" if hold_ends else "constant")
    for first in range(0, new, group):
        phases = np.arange(first, min(first + group, new))
        start = first * old // new
        weights = _weights(phases, start, old, new, width, hold_ends)  # (taps, phases)
        seen = np.lib.stride_tricks.sliding_window_view(padded[:, start:], len(weights), axis=1)[:, ::old]
        step = max(1, _GATHERED // len(weights))
        for row in range(0, rows, step):
            part = slice(row, min(row + step, rows))
            out[:, part, first : first + group] = seen[:, part] @ weights
    return out.reshape(*samples.shape[:-1], -1)[..., :count]


def _weights(phases: NDArray[np.int64], start: int, old: int, new: int, width: int, to_one: bool) -> Samples:
    """What each old sample from `start - width` on weighs in the new ones of some phases: (taps, phases)."""
    cutoff = min(old, new) * ROLLOFF
    taps = np.arange(start - width, int(phases[-1]) * old // new + width + 2)
    time = np.clip((taps[:, None] / old - phases / new) * cutoff, -ZEROS, ZEROS) * math.pi
    weights = np.cos(time / ZEROS / 2) ** 2 * np.sinc(time / math.pi)
    return (weights / (weights.sum(axis=0) if to_one else old / cutoff)).astype(np.float32)
