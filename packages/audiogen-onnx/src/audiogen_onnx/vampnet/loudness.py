"""Loudness in LUFS, as the original measures it.

ITU-R BS.1770-4 with the filters of pyloudnorm and the blocks of audiotools: every channel weighs the same,
the end is padded so that the last part of a block counts, and nothing is quieter than -70 LUFS.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_onnx.vampnet.biquad import Biquad, Floats

Samples = NDArray[np.float32]

SILENCE = -70.0
"""LUFS: the quietest value there is, and the absolute gate."""

_BLOCK = 0.4  # seconds; the next block begins a quarter of it later
_SHORTEST = 0.5  # seconds; what is shorter is padded with silence
_OFFSET = -0.691  # dB, so that a sine of 1 kHz measures as its level
_RELATIVE_GATE = -10.0  # dB below the mean of the blocks above the absolute gate
_PIECE = 1 << 18  # samples measured at once, to bound memory


def loudness(audio: Audio) -> float:
    """Integrated loudness of a clip, LUFS: -70 or more. Raises AudioError for a rate of 3 kHz or less."""
    meter = Meter(audio.sample_rate, audio.channels)
    for start in range(0, audio.samples.shape[1], _PIECE):
        meter.add(audio.samples[:, start : start + _PIECE])
    return meter.loudness()


def gain_to(target: float, measured: float) -> float:
    """The factor that takes samples from one loudness to another, both LUFS."""
    return math.exp((target - measured) * math.log(10) / 20)


class Meter:
    """Measures blocks (channels, n) as they pass; however they are cut, the result is that of the whole.

    length  samples so far
    peak    the largest magnitude so far

    Raises AudioError for a sample rate of 3 kHz or less.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.length = 0
        self.peak = 0.0
        self._rate = sample_rate
        self._kernel = int(_BLOCK * sample_rate)
        self._stride = int(_BLOCK * sample_rate * 0.25)
        self._filters = [Biquad.shelf(sample_rate), Biquad.high_pass(sample_rate)]
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._energy: Floats = np.zeros(0)  # of the samples that belong to blocks not yet complete
        self._blocks: list[float] = []

    def add(self, block: Samples) -> None:
        """Take in the next samples."""
        if not block.shape[1]:
            return
        self.length += block.shape[1]
        self.peak = max(self.peak, float(np.abs(block).max()))
        energy, self._states = self._weighted(block)
        self._energy = self._complete(np.concatenate([self._energy, energy]), self._blocks)

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
        return _gated(np.array(blocks[:count]) / (_BLOCK * self._rate))

    def mean_loudness(self) -> float:
        """What a single channel measures on the average, LUFS: that of mono sound, where all are alike."""
        channels = self._states[0].shape[0]
        return max(SILENCE, self.loudness() - 10 * math.log10(channels))

    def _weighted(self, block: Samples) -> tuple[Floats, list[Floats]]:
        """Squares of the filtered samples, summed over channels; and the filters' states after them."""
        piece: Floats = block.astype(np.float64)
        states = []
        for stage, state in zip(self._filters, self._states, strict=True):
            piece, after = stage.run(piece, state)
            states.append(after)
        return (piece**2).sum(axis=0), states

    def _complete(self, energy: Floats, blocks: list[float]) -> Floats:
        """Add the blocks that `energy` holds in full; returns what later ones still need."""
        start = 0
        while start + self._kernel <= len(energy):
            blocks.append(float(energy[start : start + self._kernel].sum()))
            start += self._stride
        return energy[start:]


def _gated(energy: Floats) -> float:
    """LUFS of blocks, without those below the absolute and then the relative gate."""
    level = _level(energy)
    loud = energy[level > SILENCE]
    if not loud.size:
        return SILENCE
    gate = float(_level(loud.mean())) + _RELATIVE_GATE
    kept = energy[(level > SILENCE) & (level > gate)]
    return max(SILENCE, float(_level(kept.mean())))


def _level(energy: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(_OFFSET + 10 * np.log10(energy))
