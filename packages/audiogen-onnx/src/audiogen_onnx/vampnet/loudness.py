"""Loudness in LUFS, as the original measures it.

ITU-R BS.1770-4 with the filters of pyloudnorm and the blocks of audiotools: every channel weighs the same,
the end is padded so that the last part of a block counts, and nothing is quieter than -70 LUFS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

SILENCE = -70.0
"""LUFS: the quietest value there is, and the absolute gate."""

_BLOCK = 0.4  # seconds; the next block begins a quarter of it later
_SHORTEST = 0.5  # seconds; what is shorter is padded with silence
_OFFSET = -0.691  # dB, so that a sine of 1 kHz measures as its level
_RELATIVE_GATE = -10.0  # dB below the mean of the blocks above the absolute gate
_PIECE = 1 << 18  # samples measured at once, to bound memory
_CHUNK = 256  # samples that a filter works off in one matrix product


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


@dataclass(frozen=True, eq=False)
class Biquad:
    """A recursive filter of the second order: y[n] = sum b[k] x[n-k] - sum a[k] y[n-k], a[0] = 1.

    A loop over samples would take minutes for a song, so chunks are solved by linear algebra, exactly.
    """

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
