"""The meter of ITU-R BS.1770: its filters as the standard prints them, the levels of EBU Tech 3341."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError
from audiogen_core.loudness import SILENCE, Biquad, Meter, loudness

RATE = 48_000


def sine(level: float, seconds: float, *, frequency: float = 1000.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (10 ** (level / 20) * np.sin(2 * np.pi * frequency * time)).astype(np.float32)[None]


def stereo(*parts: np.ndarray) -> Audio:
    return Audio(np.repeat(np.concatenate(parts, axis=1), 2, axis=0), RATE)


def test_the_filters_of_48_khz_are_those_that_the_standard_prints() -> None:
    shelf, high_pass = Biquad.shelf(RATE), Biquad.high_pass(RATE)
    np.testing.assert_allclose(shelf.b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-9)
    np.testing.assert_allclose(shelf.a, [1, -1.69065929318241, 0.73248077421585], atol=1e-9)
    np.testing.assert_allclose(high_pass.b, [1, -2, 1], atol=1e-12)
    np.testing.assert_allclose(high_pass.a, [1, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        ([(-23, 5)], -23),
        ([(-33, 5)], -33),
        ([(-36, 3), (-23, 18), (-36, 3)], -23),
        ([(-72, 3), (-36, 3), (-23, 18), (-36, 3), (-72, 3)], -23),
        ([(-26, 10), (-20, 10.05), (-26, 10)], -23),
    ],
    ids=["1", "2", "3", "4", "5"],
)
def test_the_levels_of_ebu_tech_3341(parts: list[tuple[float, float]], lufs: float) -> None:
    assert loudness(stereo(*(sine(*part) for part in parts))) == pytest.approx(lufs, abs=0.1)


def test_surround_counts_more_and_low_effects_not_at_all() -> None:
    """EBU Tech 3341, case 6: 5.1 with -28, -28, -24, none, -30 and -30 dBFS is -23 LUFS."""
    levels = (-28, -28, -24, -3, -30, -30)
    clip = Audio(np.concatenate([sine(level, 4) for level in levels]), RATE)
    assert loudness(clip) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 32_000, 44_100, 96_000])
def test_the_rate_makes_no_difference(rate: int) -> None:
    assert loudness(Audio(sine(-20, 3, rate=rate), rate)) == pytest.approx(-23, abs=0.1)


def test_blocks_of_any_size_measure_as_the_whole() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 70_001)).astype(np.float32)
    meter = Meter(RATE, 2)
    for start in range(0, noise.shape[1], 997):
        meter.add(noise[:, start : start + 997])
    assert meter.loudness() == pytest.approx(loudness(Audio(noise, RATE)), abs=1e-9)


def test_silence_and_what_is_shorter_than_a_block() -> None:
    assert loudness(Audio(np.zeros((1, RATE), np.float32), RATE)) == SILENCE
    short = loudness(Audio(sine(-20, 0.1), RATE))
    assert short == pytest.approx(-23 - 10 * np.log10(4), abs=0.2)
    with pytest.raises(AudioError, match="above 3364 Hz"):
        Meter(3_000, 1)
