"""Loops: an exact number of bars at a tempo, whose end runs on into its beginning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.config import SECONDS_TOTAL

if TYPE_CHECKING:
    from audiogen_mlx.stable_audio.generate import StableAudio

BLEND_SECONDS = 0.05

Floats = NDArray[np.float32]


def loop_samples(bpm: float, bars: int, beats_per_bar: int, sample_rate: int) -> int:
    """How many samples that many bars last, rounded once. Raises OptionError."""
    if not 20 <= bpm <= 400:
        raise OptionError(f"bpm must lie in [20, 400], got {bpm:g}")
    if not (isinstance(bars, int) and 1 <= bars <= 1000):
        raise OptionError(f"bars must be a whole number of 1 or more, got {bars!r}")
    if not (isinstance(beats_per_bar, int) and 1 <= beats_per_bar <= 32):
        raise OptionError(f"beats per bar must be a whole number from 1 to 32, got {beats_per_bar!r}")
    return round(bars * beats_per_bar * 60 / bpm * sample_rate)


def generate_loop(
    model: StableAudio, prompt: str, *, bpm: float, bars: int, beats_per_bar: int = 4, **options: Any
) -> Audio:
    """A loop of exactly round(bars * beats_per_bar * 60 / bpm * rate) samples.

    It is cut from a clip that goes on after it: what follows its end is blended into its beginning, so
    the last sample leads to the first as it did in the clip. Other options are those of `generate`. The
    tempo is not put into the prompt.

    Raises OptionError when the bars do not fit in the model's window.
    """
    config = model.config
    length = loop_samples(bpm, bars, beats_per_bar, config.sample_rate)
    blend = min(round(BLEND_SECONDS * config.sample_rate), length)
    if length + blend > config.window:
        longest = math.floor((config.window - blend) / config.sample_rate * bpm / 60 / beats_per_bar)
        advice = f"at most {longest}" if longest else "none; choose a faster tempo or fewer beats"
        raise OptionError(
            f"{bars} bars at {bpm:g} bpm last {length / config.sample_rate:.2f} s, more than the model's "
            f"{config.window_seconds:.2f} s; bars that fit: {advice}"
        )
    if options.get(SECONDS_TOTAL) is None:  # the music is not to end within the loop
        options[SECONDS_TOTAL] = config.max_seconds
    clip = model.generate(prompt, seconds=(length + blend) / config.sample_rate, **options)
    return Audio(circular(clip.samples, length), config.sample_rate)


def circular(samples: Floats, length: int) -> Floats:
    """The first `length` samples (channels, n), with those after them blended into the beginning.

    Loudness stays even however alike both are: the sum is divided by what it would be for their
    correlation.
    """
    blend = min(samples.shape[1] - length, length)
    out = samples[:, :length].copy()
    if blend < 1:
        return out
    after, start = samples[:, length : length + blend], out[:, :blend].copy()
    rising = 0.5 - 0.5 * np.cos(np.pi * np.arange(blend) / blend)
    falling = 1 - rising
    energy = math.sqrt(
        float(np.square(after, dtype=np.float64).sum() * np.square(start, dtype=np.float64).sum())
    )
    alike = float((after.astype(np.float64) * start).sum()) / energy if energy > 0 else 1.0
    level = np.sqrt(rising**2 + falling**2 + 2 * max(alike, 0.0) * rising * falling)
    out[:, :blend] = (after * falling + start * rising) / level
    return out
