"""Loudness in LUFS, as the original measures it.

ITU-R BS.1770-4 with the filters of pyloudnorm and the blocks of audiotools: every channel weighs the same,
the end is padded so that the last part of a block counts, and nothing is quieter than -70 LUFS.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core import loudness as standard
from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError
from audiogen_core.loudness import SILENCE as SILENCE
from audiogen_core.loudness import gain_to as gain_to

Samples = NDArray[np.float32]

_SHORTEST = 0.5  # seconds; what is shorter is padded with silence
_PIECE = 1 << 18  # samples measured at once, to bound memory


def loudness(audio: Audio) -> float:
    """Integrated loudness of a clip, LUFS: -70 or more. Raises AudioError for a rate of 3 kHz or less."""
    meter = Meter(audio.sample_rate, audio.channels)
    for start in range(0, audio.samples.shape[1], _PIECE):
        meter.add(audio.samples[:, start : start + _PIECE])
    return meter.loudness()


class Meter(standard.Meter):
    """Measures blocks (channels, n) as they pass; however they are cut, the result is that of the whole.

    Raises AudioError for a sample rate of 3 kHz or less.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        super().__init__(sample_rate, channels)
        self._weights = np.ones(channels)

    @staticmethod
    def _weighting(rate: int) -> list[standard.Biquad]:
        return [Biquad.shelf(rate), Biquad.high_pass(rate)]

    def loudness(self) -> float:
        """Integrated loudness so far, LUFS: -70 or more."""
        shortest = int(_SHORTEST * self._rate)
        count = 1 + -(-(max(self.length, shortest) - self._kernel) // self._stride)
        energy, blocks = self._energy, list(self._blocks)
        if self.length < shortest:
            silence = np.zeros((len(self._states[0]), shortest - self.length), np.float32)
            energy = np.concatenate([energy, self._weighted(silence)[0]])
        missing = (count - len(blocks) - 1) * self._stride + self._kernel - len(energy)
        self._complete(np.pad(energy, (0, max(0, missing))), blocks)
        return self._gated(blocks[:count])

    def mean_loudness(self) -> float:
        """What a single channel measures on the average, LUFS: that of mono sound, where all are alike."""
        channels = self._states[0].shape[0]
        return max(SILENCE, self.loudness() - 10 * math.log10(channels))


class Biquad(standard.Biquad):
    """The filters of the cookbook of equaliser filters (R. Bristow-Johnson), as the original has them."""

    @classmethod
    def shelf(cls, rate: int) -> Biquad:
        """The head: +4 dB above 1.5 kHz."""
        gain = 10 ** (4 / 40)
        cosine, alpha = _angle(1500.0, 1 / math.sqrt(2), rate)
        side = 2 * math.sqrt(gain) * alpha
        up, down = gain + 1, gain - 1
        b = [
            gain * (up + down * cosine + side),
            -2 * gain * (down + up * cosine),
            gain * (up + down * cosine - side),
        ]
        return cls._rounded(
            b, [up - down * cosine + side, 2 * (down - up * cosine), up - down * cosine - side]
        )

    @classmethod
    def high_pass(cls, rate: int) -> Biquad:
        """What lies below 38 Hz is hardly heard."""
        cosine, alpha = _angle(38.0, 0.5, rate)
        b = [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2]
        return cls._rounded(b, [1 + alpha, -2 * cosine, 1 - alpha])

    @classmethod
    def _rounded(cls, b: list[float], a: list[float]) -> Biquad:
        """Divided by a[0], and rounded to float32 as the original holds them."""
        both = (np.array([b, a]) / a[0]).astype(np.float32).astype(np.float64)
        return cls(both[0], both[1])


def _angle(frequency: float, quality: float, rate: int) -> tuple[float, float]:
    """Cosine of a frequency on the circle, and the half width of its band."""
    if frequency >= rate / 2:
        raise AudioError(f"loudness needs a sample rate above {2 * frequency:g} Hz, got {rate}")
    angle = 2 * math.pi * frequency / rate
    return math.cos(angle), math.sin(angle) / (2 * quality)
