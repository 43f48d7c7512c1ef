"""Melody conditioning: which of the twelve pitch classes is strongest in each stretch of a clip.

The frames are those of the original: power spectrograms over half a second, summed into pitch classes,
and of each frame only the strongest kept. The original first separates the clip and listens to "vocals"
and "other" alone, because drums and bass drown a melody out; separate a full mix yourself and give the
melody's stems.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import SILENCE, Audio
from audiogen_core.errors import AudioError
from audiogen_core.musicgen.config import ChromaConfig
from audiogen_core.sinc import resample

Chroma = NDArray[np.float32]

SHORTEST = 0.1
"""Seconds: a shorter clip holds no melody."""

_EPS = 1e-6
_OCTAVE_CENTRE, _OCTAVE_WIDTH = 5.0, 2.0  # the octave that weighs most, and how fast others fall off
_LOWEST_A = 27.5  # Hz, where octaves are counted from


def prepare(source: Audio | str | Path, config: ChromaConfig | None = None) -> Audio:
    """A melody, given as a clip or a file, as one channel at the model's rate.

    Raises AudioError when the file is missing or no audio, or the clip is silent or shorter than 0.1 s.
    """
    config = config or ChromaConfig()
    audio = source if isinstance(source, Audio) else Audio.load(source)
    name = "the melody" if isinstance(source, Audio) else f"the melody {source}"
    if audio.duration < SHORTEST:
        raise AudioError(f"{name} is too short: {audio.duration:.3f} s, at least {SHORTEST} s are needed")
    if audio.peak < SILENCE:
        raise AudioError(f"{name} is silent: nothing in it reaches -80 dB; give a clip with a melody")
    mono = audio.mix(1)
    if mono.peak < SILENCE:
        raise AudioError(f"{name} is silent in mono: left and right take each other out; give one of them")
    if mono.sample_rate == config.sample_rate:
        return mono
    return Audio(resample(mono.samples[0], mono.sample_rate, config.sample_rate)[None], config.sample_rate)


def window(audio: Audio, start: float, config: ChromaConfig | None = None) -> Audio:
    """What a window of a long piece hears of a melody: full length from `start` seconds on.

    The melody is repeated without end, so a start past its end counts from its beginning again.
    """
    config = config or ChromaConfig()
    mono = prepare(audio, config)
    first = round(start * config.sample_rate)
    length = mono.samples.shape[1]
    places = np.arange(first, first + config.samples) % length
    return Audio(mono.samples[:, places], config.sample_rate)


def chroma(audio: Audio, config: ChromaConfig | None = None) -> Chroma:
    """A clip -> float32 (frames, bins), in every frame a one at the strongest pitch class, zeros else.

    Frames are `hop` samples apart and centred; a clip of n samples at the model's rate has
    1 + n // hop of them, at least 1 + window // hop. Several channels are averaged, another rate is
    converted, and what is past `config.seconds` is cut off. In frames of silence the first class is one.
    """
    config = config or ChromaConfig()
    samples = audio.trim(config.seconds + 1.0).mix(1).samples[0]
    samples = resample(samples, audio.sample_rate, config.sample_rate)[: config.samples]
    strengths = normalised(filter_bank(config) @ power(samples, config))
    found = strengths.argmax(axis=0)
    made: Chroma = np.eye(config.bins, dtype=np.float32)[found]
    return made


def null_chroma(frames: int, bins: int = 12) -> Chroma:
    """The features of no melody, float32 (frames, bins): the first pitch class in every frame."""
    made = np.zeros((frames, bins), np.float32)
    made[:, 0] = 1.0
    return made


def repeated(features: Chroma, frames: int) -> Chroma:
    """Features (n, bins) -> (frames, bins): cut off, or begun again from the first frame."""
    return features[np.arange(frames) % len(features)]


def power(samples: NDArray[np.float32], config: ChromaConfig) -> NDArray[np.float32]:
    """Samples (time,) -> power over frequency (window // 2 + 1, frames), divided by that of the window.

    Frames are centred on multiples of the hop; the clip is mirrored at its ends, and a clip shorter than
    one window is first put in the middle of silence.
    """
    missing = max(0, config.window - len(samples))
    samples = np.pad(samples, (missing // 2, missing - missing // 2))
    samples = np.pad(samples, config.window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.window)[:: config.hop]
    shape = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(config.window) / config.window)
    spectrum = np.abs(np.fft.rfft(frames * shape, axis=1)) ** 2 / np.square(shape).sum()
    return np.ascontiguousarray(spectrum.T, dtype=np.float32)


def normalised(strengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every column divided by its largest value, which is taken to be at least 1e-6."""
    made: NDArray[np.float32] = strengths / np.maximum(strengths.max(axis=0, keepdims=True), _EPS)
    return made


@cache
def filter_bank(config: ChromaConfig) -> NDArray[np.float32]:
    """How much each bin of a spectrum counts for each pitch class: (bins, window // 2 + 1).

    A bump over the distance in pitch, one bin of the spectrum wide, scaled to length one over the
    classes, and weighted by octave. It is what librosa's `filters.chroma` gives without tuning; after
    Ellis 2007, "Chroma feature analysis and synthesis".
    """
    bins, count = config.bins, config.window
    hertz = np.arange(1, count) * (config.sample_rate / count)
    pitch = bins * np.log2(hertz / _LOWEST_A)
    pitch = np.concatenate(([pitch[0] - 1.5 * bins], pitch))  # zero hertz: an octave and a half lower
    width = np.concatenate((np.maximum(np.diff(pitch), 1.0), [1.0]))
    half = round(bins / 2)
    distance = np.mod(pitch[None] - np.arange(bins)[:, None] + half + 10 * bins, bins) - half
    bumps = np.exp(-0.5 * (2 * distance / width) ** 2)
    bumps /= np.sqrt(np.square(bumps).sum(axis=0))
    bumps *= np.exp(-0.5 * ((pitch / bins - _OCTAVE_CENTRE) / _OCTAVE_WIDTH) ** 2)
    from_c = np.roll(bumps, -3 * (bins // 12), axis=0)
    return np.ascontiguousarray(from_c[:, : count // 2 + 1], dtype=np.float32)
