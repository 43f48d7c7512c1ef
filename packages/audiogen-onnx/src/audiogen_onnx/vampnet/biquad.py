"""Recursive filters in numpy alone: exact, by linear algebra; and the two that measure loudness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import AudioError

Floats = NDArray[np.float64]

_CHUNK = 256  # samples solved at once


@dataclass(frozen=True, eq=False)
class Biquad:
    """A recursive filter of the second order: y[n] = sum b[k] x[n-k] - sum a[k] y[n-k], a[0] = 1."""

    b: Floats
    a: Floats

    @classmethod
    def shelf(cls, rate: int) -> Biquad:
        """The head: +4 dB above 1.5 kHz (R. Bristow-Johnson's cookbook of equaliser filters)."""
        gain = 10 ** (4 / 40)
        cosine, alpha = _angle(1500.0, 1 / math.sqrt(2), rate)
        side = 2 * math.sqrt(gain) * alpha
        up, down = gain + 1, gain - 1
        b = [
            gain * (up + down * cosine + side),
            -2 * gain * (down + up * cosine),
            gain * (up + down * cosine - side),
        ]
        return cls._scaled(
            b, [up - down * cosine + side, 2 * (down - up * cosine), up - down * cosine - side]
        )

    @classmethod
    def high_pass(cls, rate: int) -> Biquad:
        """What lies below 38 Hz is hardly heard (the same cookbook)."""
        cosine, alpha = _angle(38.0, 0.5, rate)
        b = [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2]
        return cls._scaled(b, [1 + alpha, -2 * cosine, 1 - alpha])

    @classmethod
    def _scaled(cls, b: list[float], a: list[float]) -> Biquad:
        """Divided by a[0], and rounded to float32 as the original holds them."""
        both = (np.array([b, a]) / a[0]).astype(np.float32).astype(np.float64)
        return cls(both[0], both[1])

    def run(self, samples: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Filtered samples (channels, time), and the state (channels, 2) to go on from.

        In chunks of L samples: a triangular matrix gives the output of each chunk from silence, and the
        states at the borders follow from each other by powers of one 2 x 2 matrix, in log2(chunks) steps.
        """
        channels, length = samples.shape
        chunks = -(-length // _CHUNK)
        padded = np.zeros((channels, chunks * _CHUNK))
        padded[:, :length] = samples
        padded = padded.reshape(channels, chunks, _CHUNK)
        within, onward, inward, over = self._matrices
        states = np.concatenate([state[:, None], padded @ inward], axis=1)  # (channels, chunks + 1, 2)
        reach = 1
        while reach <= chunks:
            states[:, reach:] = states[:, reach:] + states[:, :-reach] @ over
            over, reach = over @ over, 2 * reach
        out = padded @ within + states[:, :-1] @ onward
        out = out.reshape(channels, -1)[:, :length]
        return out, self._state_after(samples, out, state)

    def _state_after(self, samples: Floats, out: Floats, state: Floats) -> Floats:
        """The state after the last sample, which follows from the last two of each."""
        b, a = self.b, self.a
        before = np.concatenate([np.zeros_like(samples[:, :1]), samples], axis=1)[:, -2:]
        made = np.concatenate([np.zeros_like(out[:, :1]), out], axis=1)[:, -2:]
        second = b[2] * before[:, 1] - a[2] * made[:, 1]
        carried = b[2] * before[:, 0] - a[2] * made[:, 0] if samples.shape[1] > 1 else state[:, 1]
        return np.stack([b[1] * before[:, 1] - a[1] * made[:, 1] + carried, second], axis=1)

    @cached_property
    def _matrices(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Chunk to output, state to output, chunk to the state after it, state to the state after the chunk.

        All to be multiplied from the right. The state is that of the transposed direct form II.
        """
        b, a = self.b, self.a
        step = np.array([[-a[1], -a[2]], [1.0, 0.0]])  # state @ step
        enter = np.array([b[1] - a[1] * b[0], b[2] - a[2] * b[0]])
        powers = np.empty((_CHUNK + 1, 2, 2))
        powers[0] = np.eye(2)
        for index in range(_CHUNK):
            powers[index + 1] = powers[index] @ step
        entered = enter @ powers  # (CHUNK + 1, 2): the state so many samples after a one
        response = np.concatenate([[b[0]], entered[:-1, 0]])[:_CHUNK]
        lag = np.arange(_CHUNK) - np.arange(_CHUNK)[:, None]
        within = np.where(lag >= 0, response[np.maximum(lag, 0)], 0.0)
        return within, powers[:_CHUNK, :, 0].T, entered[_CHUNK - 1 :: -1], powers[_CHUNK]


def _angle(frequency: float, quality: float, rate: int) -> tuple[float, float]:
    """Cosine of a frequency on the circle, and the half width of its band."""
    if frequency >= rate / 2:
        raise AudioError(f"loudness needs a sample rate above {2 * frequency:g} Hz, got {rate}")
    angle = 2 * math.pi * frequency / rate
    return math.cos(angle), math.sin(angle) / (2 * quality)
