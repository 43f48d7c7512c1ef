"""What is heard in a clip of composed music."""

from __future__ import annotations

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.compose import TEMPI

HOP = 320  # of the demo codec: all onsets of composed music are multiples of it


def tempo(audio: Audio) -> str:
    """The tempo whose sixteenths and eighths the rises of sound, in frames of 1/75 s, agree with best."""
    frames = audio.samples[0, : audio.samples.shape[1] // HOP * HOP].reshape(-1, HOP) * np.hanning(HOP)
    levels = np.log(np.abs(np.fft.rfft(frames)) + 1e-3)
    rises = np.maximum(np.diff(levels, axis=0), 0).mean(axis=1)
    rises -= rises.mean()
    turns = 2j * np.pi * np.arange(len(rises))
    heard = {
        name: sum(abs(np.exp(turns / (many * sixteenth)) @ rises) for many in (1, 2))
        for name, sixteenth in TEMPI.items()
    }
    return max(heard, key=heard.__getitem__)
