"""A clip as a picture: its waveform above its spectrogram, in one colour that suits light and dark pages."""

from __future__ import annotations

import io
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import probe, stream
from audiogen_core.spectrum import LOWEST, hertz, mel

WIDTH, WAVE, BANDS = 800, 80, 120
"""Pixels: columns of time, rows of the waveform, rows of the spectrogram, which are mel bands."""

_WINDOW = 2048  # samples of a transform
_RANGE = 70.0  # dB between full colour and none
_COLOUR = (124, 92, 255)


def png(path: Path) -> bytes:
    """The picture of a sound file of any length, in bounded memory. Raises AudioError."""
    from PIL import Image

    info = probe(path)
    lowest, highest = np.zeros(WIDTH), np.zeros(WIDTH)
    power = np.zeros((WIDTH, _WINDOW // 2 + 1))
    shape = np.hanning(_WINDOW)
    starts = np.arange(WIDTH) * info.frames // WIDTH  # in the sound with half a window before it
    held, at, column, passed = np.zeros(_WINDOW // 2), 0, 0, 0
    for block in chain(stream(path), [np.zeros((1, _WINDOW), np.float32)]):
        mono = block.mean(axis=0)
        columns = np.minimum((passed + np.arange(len(mono))) * WIDTH // info.frames, WIDTH - 1)
        np.minimum.at(lowest, columns, mono)
        np.maximum.at(highest, columns, mono)
        passed += len(mono)
        held = np.concatenate([held, mono])
        while column < WIDTH and starts[column] + _WINDOW <= at + len(held):
            first = starts[column] - at
            power[column] = np.abs(np.fft.rfft(held[first : first + _WINDOW] * shape)) ** 2
            column += 1
        kept = max(0, len(held) - 2 * _WINDOW) if column == WIDTH else starts[column] - at
        held, at = held[kept:], at + kept
    rows = np.concatenate([_wave(lowest, highest), _bands(power, info.sample_rate)])
    picture = np.empty((*rows.shape, 4), np.uint8)
    picture[..., :3] = _COLOUR
    picture[..., 3] = np.rint(255 * rows)
    made = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(made, "PNG")
    return made.getvalue()


def _wave(lowest: NDArray[np.float64], highest: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of each pixel (rows, columns) is filled between the extremes of a column."""
    top = max(float(highest.max()), -float(lowest.min()), 1e-3)
    middle = (WAVE - 8) / 2
    rows = np.arange(WAVE)[:, None] - 4
    upper, lower = middle * (1 - highest / top) - 0.5, middle * (1 - lowest / top) + 0.5
    return np.clip(np.minimum(rows + 1 - upper, lower - rows), 0, 1)


def _bands(power: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Loudness from 0 to 1 (bands, columns), the highest band first."""
    frequencies = hertz(np.linspace(mel(LOWEST), mel(rate / 2), BANDS))[::-1]
    bins = frequencies * _WINDOW / rate
    below = np.minimum(bins.astype(int), _WINDOW // 2 - 1)
    part = bins - below
    bands = power[:, below] * (1 - part) + power[:, below + 1] * part
    decibels = 10 * np.log10(np.maximum(bands.T / max(float(bands.max()), 1e-12), 1e-12))
    loudness: NDArray[np.float64] = np.clip(1 + decibels / _RANGE, 0, 1) ** 1.5
    return loudness
