"""The resampler against its formula, taken literally."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audiogen_core.errors import AudioError
from audiogen_onnx.vampnet.resample import resample


def formula(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """One kernel for each phase, as julius writes them down, in float64."""
    common = math.gcd(old, new)
    old, new = old // common, new // common
    rate = min(old, new) * 0.945
    width = math.ceil(24 * old / rate)
    taps = np.arange(-width, width + old)
    padded = np.pad(samples.astype(np.float64), (width, width + old), mode="edge")
    steps = range((len(padded) - len(taps)) // old + 1)
    out = np.empty((len(steps), new))
    for phase in range(new):
        time = np.clip((taps / old - phase / new) * rate, -24, 24)
        kernel = np.sinc(time) * np.cos(time * np.pi / 48) ** 2
        out[:, phase] = [padded[step * old :][: len(taps)] @ kernel / kernel.sum() for step in steps]
    return out.ravel()[: new * len(samples) // old]


@pytest.mark.parametrize(
    ("old", "new"),
    [(48_000, 44_100), (16_000, 44_100), (44_100, 16_000), (22_050, 44_100), (44_100, 22_050), (997, 1000)],
)
def test_is_the_formula(old: int, new: int) -> None:
    samples = np.random.default_rng(0).standard_normal((2, 1203)).astype(np.float32)
    made = resample(samples, old, new)
    assert made.dtype == np.float32
    for channel in range(2):
        np.testing.assert_allclose(made[channel], formula(samples[channel], old, new), atol=5e-6)


@pytest.mark.parametrize("length", [1, 2, 159, 160, 161])
def test_short_clips(length: int) -> None:
    samples = np.random.default_rng(length).standard_normal((1, length)).astype(np.float32)
    made = resample(samples, 8_000, 44_100)
    np.testing.assert_allclose(made[0], formula(samples[0], 8_000, 44_100), atol=5e-6)


def test_rates_without_a_common_divisor() -> None:
    """44,101 phases, each with its own kernel: none is stored for the whole."""
    time = np.arange(44_100) / 44_100
    sine = np.sin(2 * np.pi * 440 * time, dtype=np.float32)[None]
    made = resample(sine, 44_100, 44_101)
    wanted = np.sin(2 * np.pi * 440 * np.arange(44_101) / 44_101)
    np.testing.assert_allclose(made[0, 100:-100], wanted[100:-100], atol=1e-3)


def test_the_same_rate_changes_nothing() -> None:
    samples = np.ones((1, 5), np.float32)
    assert resample(samples, 8000, 8000) is samples


def test_nothing_left_is_refused() -> None:
    with pytest.raises(AudioError, match="too short to resample: 1 samples"):
        resample(np.ones((1, 1), np.float32), 44_100, 8_000)
