"""Loudness, peak and length of sound that comes in blocks: `loudness.loudness` in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_onnx.vampnet.loudness import BLOCK, SHORTEST, SILENCE, Biquad, gated

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]


class Meter:
    """Measures blocks (channels, n) as they pass; however they are cut, the result is that of the whole.

    length  samples so far
    peak    the largest magnitude so far
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.length = 0
        self.peak = 0.0
        self._rate = sample_rate
        self._kernel = int(BLOCK * sample_rate)
        self._stride = int(BLOCK * sample_rate * 0.25)
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
        energy, short = self._energy, int(SHORTEST * self._rate) - self.length
        if short > 0:
            silence = np.zeros((self._states[0].shape[0], short), np.float32)
            energy = np.concatenate([energy, self._weighted(silence)[0]])
        blocks = list(self._blocks)
        energy = self._complete(energy, blocks)
        count = 1 + max(0, -(-(self.length + max(0, short) - self._kernel) // self._stride))
        if len(blocks) < count:  # the last block is not full
            blocks.append(float(energy.sum()))
        return gated(np.array(blocks[:count]) / (BLOCK * self._rate))

    def mean_loudness(self) -> float:
        """What a single channel measures on the average, LUFS: that of mono sound, where all are alike."""
        channels = self._states[0].shape[0]
        return max(SILENCE, self.loudness() - 10 * math.log10(channels))

    def _weighted(self, block: Samples) -> tuple[Floats, list[Floats]]:
        """Energy of weighted samples, of all channels together, and the states of the filters after them."""
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
