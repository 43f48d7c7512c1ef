"""Noise: alike for every item of a batch, replayed in order."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core import RecordedNoise, SeededNoise
from audiogen_core.errors import OptionError

KINDS = ("normal", "uniform", "exponential")


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_of_a_batch_is_what_its_own_seed_gives(kind: str) -> None:
    batch, alone = SeededNoise(5), SeededNoise(7)
    for shape in ((4, 3), (6,)):
        many, one = getattr(batch, kind)((3, *shape)), getattr(alone, kind)((1, *shape))
        assert many.dtype == np.float32
        np.testing.assert_array_equal(many[2], one[0])


def test_items_and_draws_differ() -> None:
    noise = SeededNoise(0)
    first, second = noise.normal((2, 8)), noise.normal((2, 8))
    assert len({row.tobytes() for row in [*first, *second]}) == 4


@pytest.mark.parametrize(
    ("kind", "mean", "variance"), [("normal", 0, 1), ("uniform", 0.5, 1 / 12), ("exponential", 1, 1)]
)
def test_distributions(kind: str, mean: float, variance: float) -> None:
    values = getattr(SeededNoise(1), kind)((1, 200_000))
    assert values.mean() == pytest.approx(mean, abs=0.01)
    assert values.var() == pytest.approx(variance, abs=0.02)
    if kind != "normal":
        assert values.min() >= 0


def test_exponential_noise_is_never_zero() -> None:
    plain = np.random.default_rng(271).standard_exponential(4096, dtype=np.float32)
    assert plain[2303] == 0  # numpy's is, once in eight million
    seeded = SeededNoise(271).exponential((1, 4096))[0]
    recorded = RecordedNoise([plain]).exponential((4096,))
    for noise in (seeded, recorded):
        assert noise[2303] > 0
        np.testing.assert_array_equal(np.delete(noise, 2303), np.delete(plain, 2303))


def test_a_recording_is_handed_out_in_order() -> None:
    arrays = [np.full((1, 2), 1.0), np.full((3,), 2.0)]
    noise = RecordedNoise(arrays)
    np.testing.assert_array_equal(noise.normal((1, 2)), arrays[0])
    assert noise.left == 1
    with pytest.raises(OptionError, match="array 1 has shape"):
        noise.uniform((4,))
    np.testing.assert_array_equal(noise.exponential((3,)), arrays[1])
    with pytest.raises(OptionError, match="one more"):
        noise.normal((1,))


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(OptionError, match="seed"):
        SeededNoise(-1)
