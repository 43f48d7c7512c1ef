"""Random masks: how much they generate, and where."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.vampnet import mask as masks

SHAPE = (4, 50)
LARGE = (1, 40, 2_500)


def test_probabilities_are_reached() -> None:
    noise = SeededNoise(0)
    assert masks.linear_random(LARGE, 0.3, noise=noise).mean() == pytest.approx(0.3, abs=0.01)
    assert masks.random(LARGE, 0.5, noise=noise).mean() == pytest.approx(np.cos(np.pi / 4), abs=0.01)
    assert masks.random_along_time(LARGE, 0.5, noise=noise).mean() == pytest.approx(0.707, abs=0.04)
    assert masks.hugo_random(LARGE, 0.5, noise=noise).mean() == pytest.approx(0.707, abs=0.01)
    assert masks.dropout(masks.empty_mask(LARGE), 0.25, noise=noise).mean() == 0.25
    assert masks.drop_ones(masks.full_mask(LARGE), 0.25, noise=noise).mean() == 0.75


@pytest.mark.parametrize("make", [masks.random, masks.random_along_time, masks.hugo_random])
def test_all_at_the_beginning_and_nothing_at_the_end(make: object) -> None:
    assert make(SHAPE, 0.0).all()  # type: ignore[operator]
    assert not make(SHAPE, 1.0).any()  # type: ignore[operator]


def test_frames_are_random_as_a_whole() -> None:
    mask = masks.random_along_time((2, *SHAPE), 0.6, noise=SeededNoise(0))
    assert (mask == mask[:, :1]).all()
    assert 15 < mask[0, 0].sum() < 45


def test_one_codebook_is_random_between_kept_and_generated() -> None:
    frames = np.tile([0.1, 0.9], (3, 2))
    draws = RecordedNoise([[0.0, 0.5, 0.99], frames])
    mask = masks.stemgen_random((3, 4, 4), 0.5, noise=draws)
    half, all_, none = [True, False] * 2, [True] * 4, [False] * 4
    assert mask[0].tolist() == [half, all_, all_, all_]
    assert mask[1].tolist() == [none, none, half, all_]
    assert mask[2].tolist() == [none, none, none, half]


def test_the_last_codebooks_of_a_frame_are_generated() -> None:
    draws = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1]])[None] * 0.99
    mask = masks.hugo_random((1, 3, 4), 0.5, noise=RecordedNoise([draws]))
    assert mask[0].sum(axis=0).tolist() == [1, 2, 3, 0]
    assert mask[0].tolist() == [
        [False, False, True, False],
        [False, True, True, False],
        [True, True, True, False],
    ]


def test_beginnings_are_kept_between_the_shares_given() -> None:
    mask = masks.tria_mask((3, *SHAPE), 0.2, 0.6, noise=RecordedNoise([[0.0, 0.5, 0.999]]))
    assert (~mask).sum(axis=-1)[:, 0].tolist() == [10, 20, 29]
    for kept, item in zip([10, 20, 29], mask, strict=True):
        np.testing.assert_array_equal(item, masks.inpaint(SHAPE, kept, 0))
    with pytest.raises(OptionError, match="more than the largest"):
        masks.tria_mask(SHAPE, 0.5, 0.4, noise=SeededNoise(0))
    with pytest.raises(OptionError, match=r"in \[0, 1\]"):
        masks.tria_mask(SHAPE, 0.5, 1.4, noise=SeededNoise(0))


def test_ones_are_dropped_where_they_are() -> None:
    mask = masks.inpaint((2, *SHAPE), 10, 10)
    made = masks.drop_ones(mask, 0.5, noise=SeededNoise(3))
    assert made.sum(axis=(1, 2)).tolist() == [60, 60]
    assert not (made & ~mask).any()
    np.testing.assert_array_equal(masks.drop_ones(mask, 0.0), mask)
