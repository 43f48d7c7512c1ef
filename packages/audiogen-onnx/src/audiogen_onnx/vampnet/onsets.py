"""Onsets: the frames where notes begin, found as `librosa.onset.onset_detect(backtrack=True)` finds them.

The strength of an onset is the mean rise of a mel spectrogram in dB from one frame to the next (S. Böck and
G. Widmer, "Maximum filter vibrato suppression for onset detection", DAFx 2013, without the filter). Peaks
of it are picked as in S. Böck, F. Krebs and M. Schedl, "Evaluating the online capabilities of onset
detection methods", ISMIR 2012, and moved back to the minimum before them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError

Floats = NDArray[np.float32]
Frames = NDArray[np.int64]

WINDOW = 2048
"""Samples transformed at once, whatever the sample rate."""

BANDS = 128
RANGE = 80.0
"""dB below the loudest place that still count."""

THRESHOLD = 0.07
"""What a peak must rise above the mean around it, as a share of the strongest onset."""

_CHUNK = 512  # frames transformed at once, to bound memory


def detect(audio: Audio, hop_length: int, *, backtrack: bool = True) -> Frames:
    """Frames of `hop_length` samples at which a note begins, in order. Channels are mixed.

    backtrack  move every onset back to where the sound began to rise: two may then share a frame

    Raises OptionError for a hop length below 1. Silence has no onsets.
    """
    rise = strength(audio, hop_length)
    rise = rise - rise.min()
    if not rise.any():
        return np.zeros(0, np.int64)
    rise /= rise.max() + np.finfo(np.float32).tiny
    frames_per_second = audio.sample_rate / hop_length
    peaks = _peaks(rise, short=0.03 * frames_per_second, long=0.10 * frames_per_second)
    return _moved_back(peaks, rise) if backtrack else peaks


def strength(audio: Audio, hop_length: int) -> Floats:
    """How much louder each frame is than the one before: dB, mean over bands of what rises (frames)."""
    if hop_length < 1:
        raise OptionError(f"the hop length must be 1 sample or more, got {hop_length}")
    level = _level(audio.samples.mean(axis=0), audio.sample_rate, hop_length)
    rise = np.maximum(level[:, 1:] - level[:, :-1], np.float32(0)).mean(axis=0)
    delay = 1 + WINDOW // (2 * hop_length)  # of the difference, and of half a window
    return np.concatenate([np.zeros(delay, np.float32), rise])[: level.shape[1]]


def _level(samples: Floats, rate: int, hop_length: int) -> Floats:
    """Mel spectrogram in dB (bands, frames): frame i is centred on sample i * hop_length."""
    filters = mel_filters(rate)
    window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(WINDOW) / WINDOW)
    padded = np.pad(samples, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop_length]
    power = np.empty((BANDS, len(frames)), np.float32)
    for start in range(0, len(frames), _CHUNK):
        part = np.fft.rfft(frames[start : start + _CHUNK] * window).astype(np.complex64)
        power[:, start : start + _CHUNK] = filters @ (np.abs(part) ** 2).T
    level = 10 * np.log10(np.maximum(power, np.float32(1e-10)))
    return np.asarray(np.maximum(level, level.max() - np.float32(RANGE)))


def mel_filters(rate: int) -> Floats:
    """Triangles of equal area on Slaney's mel scale, from 0 Hz to half the rate (bands, bins).

    The scale is linear up to 1000 Hz, at 15 mels, and logarithmic above (M. Slaney, "Auditory Toolbox",
    1998).
    """
    slope, knee = 3 / 200, 15.0
    growth = math.log(6.4) / 27
    top = rate / 2 * slope if rate < 2000 else knee + math.log(rate / 2000) / growth
    mels = np.linspace(0, top, BANDS + 2)
    edges = np.where(mels < knee, mels / slope, 1000 * np.exp(growth * (mels - knee)))
    bins = np.linspace(0, rate / 2, WINDOW // 2 + 1)
    low, centre, high = (edges[first : first + BANDS, None] for first in range(3))
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.asarray(np.maximum(triangles, 0) * (2 / (high - low)), np.float32)


def _peaks(rise: Floats, *, short: float, long: float) -> Frames:
    """Frames that are the highest of the `short` time before, and above the mean of the `long` time around.

    Both are lengths in frames. The next peak is more than `short` later.
    """
    before, around = math.floor(short), math.floor(long)
    peaks: list[int] = []
    frame = 0
    while frame < len(rise):
        highest = rise[max(0, frame - before) : frame + 1].max()
        mean = rise[max(0, frame - around) : frame + around + 1].mean()
        if rise[frame] == highest and rise[frame] >= mean + THRESHOLD:
            peaks.append(frame)
            frame += before
        frame += 1
    return np.array(peaks, np.int64)


def _moved_back(peaks: Frames, rise: Floats) -> Frames:
    """Every peak at the last minimum not after it, or at frame 0."""
    falls, rises = rise[1:-1] <= rise[:-2], rise[1:-1] < rise[2:]
    minima = np.concatenate([[0], 1 + np.flatnonzero(falls & rises)])
    return np.asarray(minima[np.searchsorted(minima, peaks, side="right") - 1], np.int64)
