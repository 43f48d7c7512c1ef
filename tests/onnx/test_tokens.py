"""From codes to codes over both networks: feedback, circles, stretching, progress."""

from __future__ import annotations

import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_core.noise import SeededNoise
from audiogen_onnx.vampnet.draw import Filters
from audiogen_onnx.vampnet.network import LongFill
from audiogen_onnx.vampnet.pair import TokenVamp, stretched
from audiogen_onnx.vampnet.sampling import FillOptions
from support.vampnet_fakes import fake_network

SIZE, BOOKS, FIRST = 24, 5, 2
RNG = np.random.default_rng(21)


def job(frames: int = 100, feedback: int = 1, circular: bool = False, **options: object) -> TokenVamp:
    fill = FillOptions(steps=3, **options)
    return TokenVamp(
        LongFill(fake_network("coarse", FIRST, 0, SIZE, min(frames, 40)), fill, 8, 2),
        LongFill(fake_network("fine", BOOKS, FIRST, SIZE, min(frames, 16)), fill, 4, 1),
        feedback,
        circular,
    )


@pytest.mark.parametrize("frames", [1, 2, 7, 40, 41, 130])
@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("feedback", [1, 3])
def test_what_is_kept_stays_and_progress_is_told_in_full(frames, circular, feedback):
    codes = RNG.integers(0, SIZE, (2, BOOKS, frames))
    mask = RNG.random(codes.shape) < 0.7
    told = []
    work = job(frames, feedback, circular)
    made = work.run(codes, mask, SeededNoise(1), lambda *step: told.append(step))
    assert np.array_equal(made.codes[~mask], codes[~mask])
    assert made.codes.min() >= 0 and made.codes.max() < SIZE
    assert (made.confidence[~mask] == 0).all() and (made.confidence[mask] < 0).all()
    total = work.steps(mask)
    assert told == [(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("frames", [30, 90])
def test_items_of_a_batch_are_their_single_runs(frames):
    codes = RNG.integers(0, SIZE, (3, BOOKS, frames))
    mask = np.tile(RNG.random((1, BOOKS, frames)) < 0.7, (3, 1, 1))
    both = job(frames, 2, True).run(codes, mask, SeededNoise(7))
    for item in range(3):
        rows = slice(item, item + 1)
        alone = job(frames, 2, True).run(codes[rows], mask[rows], SeededNoise(7 + item))
        assert np.array_equal(both.codes[rows], alone.codes)


def test_the_fine_network_gets_the_options_and_the_noise():
    codes, mask = np.zeros((1, BOOKS, 12), np.int64), np.ones((1, BOOKS, 12), bool)
    runs = [job(12).run(codes, mask, SeededNoise(seed)).codes for seed in (1, 2)]
    assert not np.array_equal(runs[0][:, FIRST:], runs[1][:, FIRST:])
    cold = [
        job(12, mask_temperature=0, filters=Filters(temperature=0)).run(codes, mask, SeededNoise(seed)).codes
        for seed in (1, 2)
    ]
    assert np.array_equal(*cold)


def test_fine_rows_see_the_new_coarse_ones():
    codes, mask = RNG.integers(0, SIZE, (1, BOOKS, 12)), np.ones((1, BOOKS, 12), bool)
    work = job(12)
    made = work.run(codes, mask, SeededNoise(1)).codes
    for call in work.fine.network.run.calls:
        assert np.array_equal(call[:, :FIRST], made[:, :FIRST])


def test_feedback_moves_the_prompts_but_keeps_what_was_to_be_kept():
    codes = RNG.integers(0, SIZE, (1, BOOKS, 40))
    mask = np.ones((1, BOOKS, 40), bool)
    mask[..., ::8] = False
    work = job(40, feedback=2)
    work.run(codes, mask, SeededNoise(1))
    calls = work.coarse.network.run.calls[::3]
    assert [sorted({*np.flatnonzero(call[0, 0] != SIZE)}) for call in calls] == [
        [frame for frame in range(40) if frame % 8 == 0],
        [frame for frame in range(40) if frame % 8 in (0, 1)],
    ]


def test_a_circle_makes_the_joint_with_both_sides_in_view():
    frames = 40
    codes, mask = RNG.integers(0, SIZE, (1, BOOKS, frames)), np.ones((1, BOOKS, frames), bool)
    work = job(frames, circular=True)
    made = work.run(codes, mask, SeededNoise(1)).codes
    joint = work.coarse.network.run.calls[3]
    unsettled = np.flatnonzero(joint[0, 0] == SIZE)
    middle = frames // 2
    assert unsettled.min() == middle - 8 and unsettled.max() == middle + 7
    rolled = np.roll(made, middle, axis=-1)
    settled = joint[0, 0] != SIZE
    assert np.array_equal(joint[0, 0][settled], rolled[0, 0][settled])


def test_stretching():
    codes = np.arange(3)[None, None]
    mask = np.array([[[False, True, False]]])
    longer, wider = stretched(codes, mask, 2)
    assert longer[0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert wider[0, 0].tolist() == [False, True, True, True, False, True]
    with pytest.raises(OptionError, match="time_stretch_factor"):
        stretched(codes, mask, 0)
