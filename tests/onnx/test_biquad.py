"""Recursive filters against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError
from audiogen_onnx.vampnet.biquad import Biquad
from audiogen_onnx.vampnet.loudness import loudness


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
