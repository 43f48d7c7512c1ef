"""Loudness in LUFS, as ITU-R BS.1770 measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.channels import speakers_of
from audiogen_core.errors import AudioError

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

SILENCE = -70.0
"""LUFS: the quietest value there is, and the absolute gate."""

BLOCK = 0.4
"""Seconds of a block; the next begins a quarter of it later."""

_OFFSET = -0.691  # dB, so that a sine of 1 kHz measures as its level
_RELATIVE_GATE = -10.0  # dB below the mean of the blocks above the absolute gate
_PIECE = 1 << 18  # samples measured at once, to bound memory
_CHUNK = 256  # samples that a filter works off in one matrix product
_LOW_EFFECTS, _SURROUND = 0x008, 0x630  # speakers: see `channels`


def loudness(audio: Audio) -> float:
    """Integrated loudness of a clip, LUFS: -70 or more. Raises AudioError for a rate of 3.4 kHz or less."""
    meter = Meter(audio.sample_rate, audio.channels, audio.speakers)
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

    Surround counts 1.5 dB more and the channel of low effects not at all, where it is known which they are.
    What is shorter than a block is filled with silence. Raises AudioError for a sample rate of 3.4 kHz or
    less.
    """

    def __init__(self, sample_rate: int, channels: int, speakers: int = 0) -> None:
        self.length = 0
        self.peak = 0.0
        self._rate = sample_rate
        self._kernel = int(BLOCK * sample_rate)
        self._stride = int(BLOCK * sample_rate * 0.25)
        self._filters = self._weighting(sample_rate)
        self._states = [np.zeros((channels, 2)) for _ in self._filters]
        self._weights = _weights(channels, speakers)
        self._energy: Floats = np.zeros(0)  # of the samples that belong to blocks not yet complete
        self._blocks: list[float] = []

    @staticmethod
    def _weighting(rate: int) -> list[Biquad]:
        return [Biquad.shelf(rate), Biquad.high_pass(rate)]

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
        blocks = list(self._blocks)
        if not blocks:
            self._complete(np.pad(self._energy, (0, self._kernel - len(self._energy))), blocks)
        return self._gated(blocks)

    def _weighted(self, block: Samples) -> tuple[Floats, list[Floats]]:
        """Squares of the filtered samples, summed over channels; and the filters' states after them."""
        piece: Floats = block.astype(np.float64)
        states = []
        for stage, state in zip(self._filters, self._states, strict=True):
            piece, after = stage.run(piece, state)
            states.append(after)
        return self._weights @ piece**2, states

    def _complete(self, energy: Floats, blocks: list[float]) -> Floats:
        """Add the blocks that `energy` holds in full; returns what later ones still need."""
        start = 0
        while start + self._kernel <= len(energy):
            blocks.append(float(energy[start : start + self._kernel].sum()))
            start += self._stride
        return energy[start:]

    def _gated(self, blocks: list[float]) -> float:
        """LUFS of blocks, without those below the absolute and then the relative gate."""
        energy = np.array(blocks) / (BLOCK * self._rate)
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


def _weights(channels: int, speakers: int) -> Floats:
    """How much the energy of each channel counts."""
    mask = speakers_of(channels, speakers)
    of = [1 << bit for bit in range(mask.bit_length()) if mask >> bit & 1] or [0] * channels
    return np.array([0.0 if one == _LOW_EFFECTS else 1.41 if one & _SURROUND else 1.0 for one in of])


@dataclass(frozen=True, eq=False)
class Biquad:
    """A recursive filter of the second order: y[n] = sum b[k] x[n-k] - sum a[k] y[n-k], a[0] = 1.

    A loop over samples would take minutes for a song, so chunks are solved by linear algebra, exactly.
    """

    b: Floats
    a: Floats

    @classmethod
    def shelf(cls, rate: int) -> Biquad:
        """The head: +4 dB above 1.7 kHz. The standard's filter of 48 kHz, warped to another rate."""
        width, scale = _width(1681.974450955533, 0.7071752369554196, rate)
        high = 10 ** (3.999843853973347 / 20)
        middle = high**0.4996667741545416
        b = [high + middle * width + scale, 2 * (scale - high), high - middle * width + scale]
        return cls._scaled(b, width, scale)

    @classmethod
    def high_pass(cls, rate: int) -> Biquad:
        """What lies below 38 Hz is hardly heard. The standard's filter, as the other."""
        width, scale = _width(38.13547087602444, 0.5003270373238773, rate)
        whole = 1 + width + scale  # the standard leaves the numerator as it is
        return cls._scaled([whole, -2 * whole, whole], width, scale)

    @classmethod
    def _scaled(cls, b: list[float], width: float, scale: float) -> Biquad:
        a = np.array([1 + width + scale, 2 * (scale - 1), 1 - width + scale])
        return cls(np.array(b) / a[0], a / a[0])

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


def _width(frequency: float, quality: float, rate: int) -> tuple[float, float]:
    """K / Q and K ** 2 of the bilinear transform, K the tangent of half the angle of a frequency."""
    if frequency >= rate / 2:
        raise AudioError(f"loudness needs a sample rate above {2 * frequency:.0f} Hz, got {rate}")
    tangent = math.tan(math.pi * frequency / rate)
    return tangent / quality, tangent**2
