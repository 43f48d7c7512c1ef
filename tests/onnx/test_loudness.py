"""The meter: its filters against scipy's, its figures against what the standard says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError
from audiogen_onnx.vampnet.loudness import Biquad, gain_to, loudness

RATE = 48_000
NEAR = 0.11
"""The original's shelf lies at 1500 Hz and not at 1682, which is 0.04 dB at 1 kHz; its gate is coarser."""


def sine(level: float, seconds: float, frequency: float = 997.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (level / 20) * np.sin(2 * np.pi * frequency * time)).astype(np.float32)[None]


def test_a_full_scale_sine_is_minus_three() -> None:
    """EBU Tech 3341: a 997 Hz sine with a peak of 0 dBFS in one channel is -3.01 LUFS."""
    assert loudness(Audio(sine(0, 3), RATE)) == pytest.approx(-3.01, abs=NEAR)


def test_two_channels_add_three_decibels() -> None:
    one = sine(-20, 3)
    assert loudness(Audio(np.repeat(one, 2, axis=0), RATE)) == pytest.approx(-20.0, abs=NEAR)


def test_quiet_parts_are_gated() -> None:
    """EBU Tech 3341, case 3: -36, -23 and -36 dBFS in both channels are -23 LUFS."""
    parts = [sine(-36, 3), sine(-23, 20), sine(-36, 3)]
    both = np.repeat(np.concatenate(parts, axis=1), 2, axis=0)
    assert loudness(Audio(both, RATE)) == pytest.approx(-23.0, abs=NEAR)


def test_long_clips_are_measured_in_pieces_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 70_001)).astype(np.float32)
    whole = loudness(Audio(noise, RATE))
    monkeypatch.setattr("audiogen_onnx.vampnet.loudness._PIECE", 1_001)
    assert loudness(Audio(noise, RATE)) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("length", [1, 100, 19_200, 24_000])
def test_silence_of_any_length_is_minus_seventy(length: int) -> None:
    assert loudness(Audio(np.zeros((1, length), np.float32), RATE)) == -70


def test_gain() -> None:
    assert gain_to(-24, -30) == pytest.approx(1.9953, abs=1e-4)


def test_what_is_too_short_is_padded_before_it_is_filtered() -> None:
    """The filters ring on in the padding, which the original measures too."""
    short = np.random.default_rng(0).standard_normal((1, 5_000)).astype(np.float32)
    padded = np.pad(short, ((0, 0), (0, RATE // 2 - 5_000)))
    assert loudness(Audio(short, RATE)) == pytest.approx(loudness(Audio(padded, RATE)), abs=1e-9)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("make", [Biquad.shelf, Biquad.high_pass])
@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 20_000])
def test_filters_as_scipy(make: object, rate: int, length: int) -> None:
    stage = make(rate)  # type: ignore[operator]
    draw = np.random.default_rng(length)
    samples, state = draw.standard_normal((2, length)), draw.standard_normal((2, 2))
    made, after = stage.run(samples, state)
    wanted, left = lfilter(stage.b, stage.a, samples, zi=state)
    np.testing.assert_allclose(made, wanted, atol=1e-6)
    np.testing.assert_allclose(after, left, atol=1e-6)


def test_rates_too_low_for_the_filters_are_refused() -> None:
    with pytest.raises(AudioError, match="above 3000 Hz"):
        loudness(Audio(np.ones((1, 100), np.float32), 2_000))
