"""A small additive synthesiser whose notes repeat exactly.

A note of one instrument, pitch and length is the same samples every time: partials start at phase zero,
nothing is random, and drums burst from fixed noise. Every note starts on a frame of the demo codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 24000  # Hz
HOP_LENGTH = 320  # samples in one frame: 75 frames per second

_ATTACK = 48  # samples, 2 ms
_RELEASE = 800  # samples, 33 ms
_LONGEST = 38400  # samples, 1.6 s: what is left of a note then is inaudible
_HIGHEST = 10500.0  # Hz; partials above are left out


@dataclass(frozen=True)
class Instrument:
    """Partials as (ratio to the fundamental, amplitude, decay in seconds), and a level."""

    partials: tuple[tuple[float, float, float], ...]
    level: float


INSTRUMENTS: dict[str, Instrument] = {
    "music box": Instrument(((1, 1, 0.6), (2, 0.5, 0.35), (3.01, 0.3, 0.18), (5.4, 0.2, 0.06)), 0.30),
    "piano": Instrument(
        ((1, 1, 0.9), (2, 0.55, 0.6), (3, 0.3, 0.4), (4, 0.18, 0.3), (5, 0.1, 0.2), (6, 0.06, 0.15)), 0.22
    ),
    "bass": Instrument(((1, 1, 0.7), (2, 0.4, 0.4), (3, 0.15, 0.25), (4, 0.07, 0.15)), 0.34),
    "pluck": Instrument(((1, 1, 0.35), (2, 0.6, 0.2), (3, 0.4, 0.12), (4, 0.2, 0.08)), 0.24),
    "square": Instrument(((1, 1, 1.2), (3, 0.33, 1.2), (5, 0.2, 1.2), (7, 0.14, 1.2)), 0.16),
    "blip": Instrument(((1, 1, 0.25), (3, 0.3, 0.2), (5, 0.15, 0.15)), 0.13),
    "marimba": Instrument(((1, 1, 0.3), (3.9, 0.35, 0.08), (9.2, 0.12, 0.03)), 0.32),
    "organ": Instrument(((1, 1, 4), (2, 0.6, 4), (3, 0.3, 4), (4, 0.35, 4), (6, 0.12, 4), (8, 0.1, 4)), 0.12),
}

DRUMS = ("kick", "snare", "hat")


@lru_cache(maxsize=4096)
def note(instrument: str, pitch: int, frames: int) -> NDArray[np.float32]:
    """The samples of a note: MIDI pitch (69 = 440 Hz), held for `frames`, with its release after."""
    voice = INSTRUMENTS[instrument]
    length = min(frames * HOP_LENGTH + _RELEASE, _LONGEST)
    t = np.arange(length) / SAMPLE_RATE
    frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
    wave = np.zeros(length)
    for ratio, amplitude, decay in voice.partials:
        if frequency * ratio < _HIGHEST:
            wave += amplitude * np.sin(2 * np.pi * frequency * ratio * t) * np.exp(-t / decay)
    wave[:_ATTACK] *= np.linspace(0, 1, _ATTACK)
    wave[-_RELEASE:] *= np.linspace(1, 0, _RELEASE)
    return _frozen(voice.level * wave)


@lru_cache(maxsize=len(DRUMS))
def drum(kind: str) -> NDArray[np.float32]:
    """The samples of a drum: "kick", "snare" or "hat"."""
    seconds = {"kick": 0.22, "snare": 0.16, "hat": 0.06}[kind]
    t = np.arange(int(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    noise = np.random.Generator(np.random.PCG64(DRUMS.index(kind) + 1)).standard_normal(len(t))
    if kind == "kick":
        sweep = 50 * t + 1.8 * (1 - np.exp(-t / 0.03))  # cycles: from 110 Hz down to 50 Hz
        wave = 0.7 * np.sin(2 * np.pi * sweep) * np.exp(-t / 0.09)
    elif kind == "snare":
        wave = (0.3 * noise + 0.25 * np.sin(2 * np.pi * 190 * t)) * np.exp(-t / 0.05)
    else:
        wave = 0.16 * np.diff(noise, prepend=0.0) * np.exp(-t / 0.02)
    return _frozen(wave)


def limit(mix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gentle limiter at the end: keeps a sum of notes within (-1, 1)."""
    limited: NDArray[np.float32] = np.tanh(mix, dtype=np.float32)
    return limited


def _frozen(wave: NDArray[np.float64]) -> NDArray[np.float32]:
    samples = wave.astype(np.float32)
    samples.setflags(write=False)
    return samples
