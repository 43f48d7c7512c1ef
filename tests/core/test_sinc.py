"""Resampling by windowed sinc: the formula term by term, its ends, and rates that share no factor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audiogen_core.errors import AudioError
from audiogen_core.sinc import resample


def directly(samples: np.ndarray, old: int, new: int, hold_ends: bool) -> np.ndarray:
    """Every new sample as the formula of the filter has it, over all old samples and 400 beyond."""
    cutoff = min(old, new) * 0.945 / old  # crossings per old sample
    around = 400
    padded = np.pad(samples.astype(np.float64), around, mode="edge" if hold_ends else "constant")
    exact = len(samples) * new / old
    made = []
    for index in range(math.floor(exact) if hold_ends else math.ceil(exact)):
        t = (np.arange(len(padded)) - around - index * old / new) * cutoff
        inside = np.abs(t) < 24
        t = t[inside]
        weights = np.sinc(t) * np.cos(math.pi * t / 48) ** 2
        weights *= 1 / weights.sum() if hold_ends else cutoff
        made.append(padded[inside] @ weights)
    return np.array(made)


@pytest.mark.parametrize("hold_ends", [False, True])
@pytest.mark.parametrize(
    "rates", [(32_000, 24_000), (44_100, 32_000), (8_000, 32_000), (48_000, 32_000), (1_009, 1_013)]
)
def test_formula(rates, hold_ends):
    samples = np.random.default_rng(3).standard_normal(701).astype(np.float32)
    made = resample(samples, *rates, hold_ends=hold_ends)
    expected = directly(samples, *rates, hold_ends)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-6)


def test_a_tone_stays_the_tone():
    time = np.arange(44_100) / 44_100
    made = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 44_100, 32_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000)
    np.testing.assert_allclose(made[200:-200], expected[200:-200], rtol=0, atol=1e-3)


def test_what_is_above_the_new_limit_is_gone():
    time = np.arange(48_000) / 48_000
    made = resample(np.sin(2 * np.pi * 20_000 * time).astype(np.float32), 48_000, 32_000)
    assert np.abs(made[200:-200]).max() < 1e-3


def test_held_ends_keep_a_constant_and_open_ends_do_not():
    level = np.full(500, 0.5, np.float32)
    np.testing.assert_allclose(resample(level, 32_000, 24_000, hold_ends=True), 0.5, atol=1e-6)
    assert abs(resample(level, 32_000, 24_000)[0] - 0.5) > 0.05


@pytest.mark.parametrize(("hold_ends", "length"), [(False, 73), (True, 72)])
def test_length_rounds_up_or_down(hold_ends, length):
    assert resample(np.ones(100, np.float32), 44_100, 32_000, hold_ends=hold_ends).shape == (length,)


def test_same_rate_is_the_same_clip():
    samples = np.ones(10, np.float32)
    assert resample(samples, 32_000, 32_000) is samples


def test_nothing_stays_nothing():
    assert resample(np.ones(1, np.float32), 44_100, 24_000, hold_ends=True).shape == (0,)
    assert resample(np.empty(0, np.float32), 44_100, 24_000).shape == (0,)


def test_rate_that_is_none():
    with pytest.raises(AudioError, match="sample rates are whole numbers"):
        resample(np.ones(10, np.float32), 0, 24_000)


@pytest.mark.parametrize("length", [1, 2, 159, 160, 161])
def test_short_clips_and_several_channels(length):
    samples = np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
    made = resample(samples, 8_000, 44_100, hold_ends=True)
    for channel in range(2):
        expected = directly(samples[channel], 8_000, 44_100, True)
        np.testing.assert_allclose(made[channel], expected, rtol=0, atol=5e-6)


def test_rates_without_a_common_divisor():
    """44,101 phases, each with weights of its own: never are all of them in memory."""
    sine = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32)
    made = resample(sine, 44_100, 44_101, hold_ends=True)
    expected = np.sin(2 * np.pi * 440 * np.arange(44_101) / 44_101)
    np.testing.assert_allclose(made[100:-100], expected[100:-100], rtol=0, atol=1e-3)
