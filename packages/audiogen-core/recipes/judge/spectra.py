"""Log-mel spectrograms on the frames of the demo codec, for the classifier and the distances."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.spectrum import hertz, mel

RATE, HOP, WINDOW, BANDS = 24_000, 320, 1024, 64
FRAME_RATE = RATE / HOP  # 75 Hz
_FLOOR = 1e-4

Floats = NDArray[np.float32]


def log_mel(audio: Audio) -> Floats:
    """Natural logarithm of magnitudes, float32 (frames, 64), 30 Hz to 12 kHz."""
    samples = audio.mix(1).resample(RATE).samples[0]
    frames = max(1, len(samples) // HOP)
    padded = np.pad(samples, (WINDOW // 2, WINDOW))
    parts = padded[np.arange(frames)[:, None] * HOP + np.arange(WINDOW)]
    magnitudes = np.abs(np.fft.rfft(parts * np.hanning(WINDOW + 1)[:-1])) * (4 / WINDOW)
    out: Floats = np.log(magnitudes @ _filters().T + _FLOOR).astype(np.float32)
    return out


@cache
def _filters() -> NDArray[np.float64]:
    """Triangles (64, bins)."""
    edges = hertz(np.linspace(mel(30.0), mel(RATE / 2), BANDS + 2))
    step = RATE / WINDOW
    bins = np.arange(WINDOW // 2 + 1) * step
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    low, high = np.minimum(low, centre - step), np.maximum(high, centre + step)
    return np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
