"""Distances between two sounds: the terms of the training loss, and the figures of the model card."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SCALES = ((128, 16), (256, 32), (512, 64), (1024, 80), (2048, 80))
"""Windows in samples, and the mel bands seen through each."""

SAMPLE_RATE = 24000  # Hz
MEL_FLOOR = 1e-3  # on magnitudes normalised by the window's energy
LN_10 = 2.303


class Distances(NamedTuple):
    """Means over a batch.

    mel       L1 of log-mel magnitudes with a floor, natural logarithm, mean of the scales
    spectrum  error of magnitudes and error of complex values, each over the clip's energy; the mean of both
              and of the scales
    waveform  L1 of samples over the mean magnitude of all
    """

    mel: Tensor
    spectrum: Tensor
    waveform: Tensor


def distances(y: Tensor, x: Tensor) -> Distances:
    """How far samples y (B, T) are from samples x (B, T) at 24 kHz."""
    mel = spectrum = torch.zeros(())
    for window, bands in SCALES:
        hann = torch.hann_window(window)
        a = torch.stft(x, window, window // 4, window=hann, return_complex=True)
        b = torch.stft(y, window, window // 4, window=hann, return_complex=True)
        a_size, b_size = a.abs(), (b.real**2 + b.imag**2 + 1e-12).sqrt()
        bank, norm = mel_bank(window, bands), hann.pow(2).sum().sqrt()
        a_mel = torch.log10(bank @ (a_size / norm) + MEL_FLOOR)
        b_mel = torch.log10(bank @ (b_size / norm) + MEL_FLOOR)
        mel = mel + (a_mel - b_mel).abs().mean() * LN_10
        energy = (a_size * a_size).mean((1, 2)).sqrt() + 1e-3
        off = a - b
        by_size = (((a_size - b_size) ** 2).mean((1, 2)) + 1e-10).sqrt() / energy
        by_value = ((off.real**2 + off.imag**2).mean((1, 2)) + 1e-10).sqrt() / energy
        spectrum = spectrum + (by_size + by_value).mean() / 2
    waveform = (y - x).abs().mean() / (x.abs().mean() + 1e-3)
    return Distances(mel / len(SCALES), spectrum / len(SCALES), waveform)


def si_sdr(y: Tensor, x: Tensor) -> Tensor:
    """Scale-invariant signal to distortion ratio, dB (arXiv 1811.02508): (B, T) and (B, T) -> (B,)."""
    gain = (x * y).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True).clamp_min(1e-8)
    wanted = gain * x
    return 10 * torch.log10((wanted**2).sum(-1) / ((y - wanted) ** 2).sum(-1).clamp_min(1e-8))


@lru_cache(maxsize=len(SCALES))
def mel_bank(window: int, bands: int) -> Tensor:
    """Triangles on the mel scale, each of sum 1: (bands, window // 2 + 1)."""
    highest = 2595 * np.log10(1 + (SAMPLE_RATE / 2) / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)  # Hz
    frequency = np.linspace(0, SAMPLE_RATE / 2, window // 2 + 1)[None]
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    bank = np.maximum(0, np.minimum(rising, falling))
    return torch.tensor(bank / np.maximum(bank.sum(1, keepdims=True), 1e-8), dtype=torch.float32)
