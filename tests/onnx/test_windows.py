"""Windows over clips of any length: what they cover, and what each sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core.noise import SeededNoise
from audiogen_onnx.vampnet.network import LongFill, plan
from audiogen_onnx.vampnet.sampling import FillOptions, fill
from support.vampnet_fakes import FakeLogits, fake_network

SIZE = 32
RNG = np.random.default_rng(4)


@given(st.integers(1, 3000), st.integers(1, 600), st.integers(0, 700), st.integers(0, 700))
def test_every_frame_comes_out_of_exactly_one_window(frames, size, before, after):
    windows = plan(frames, size, before, after)
    assert [frame for window in windows for frame in range(window.first, window.last)] == list(range(frames))
    for window in windows:
        assert 0 <= window.start <= window.first < window.last <= window.stop <= frames
        assert window.stop - window.start == min(size, frames)
        seen_before = min(before, size // 3) if window.start else 0
        seen_after = min(after, size // 8) if window.stop < frames else 0
        assert window.first - window.start >= seen_before
        assert window.stop - window.last >= seen_after


def test_no_more_windows_than_it_takes():
    assert len(plan(575, 575, 115, 29)) == 1
    assert len(plan(3446, 575, 115, 29)) == 8  # a minute: 575 frames, then 431 more with each


def long_fill(window: int) -> LongFill:
    return LongFill(fake_network("coarse", 2, 0, SIZE, window), FillOptions(steps=3), 8, 2)


def test_a_clip_of_one_window_is_a_plain_fill():
    codes, mask = RNG.integers(0, SIZE, (1, 2, 30)), RNG.random((1, 2, 30)) < 0.7
    job = long_fill(30)
    made = job.run(codes, mask, SeededNoise(5))
    plain = fill(codes, mask, FakeLogits(SIZE, 0), steps=3, noise=SeededNoise(5), codebook_size=SIZE)
    assert np.array_equal(made.codes, plain)


@pytest.mark.parametrize("frames", [31, 70, 200])
def test_windows_see_what_the_ones_before_have_made(frames):
    codes, mask = RNG.integers(0, SIZE, (1, 2, frames)), RNG.random((1, 2, frames)) < 0.7
    job = long_fill(30)
    made = job.run(codes, mask, SeededNoise(5))
    assert np.array_equal(made.codes[~mask], codes[~mask])
    assert made.codes.max() < SIZE
    calls = job.network.run.calls[::3]  # the first step of each window
    windows = job.windows(mask)
    assert len(calls) == len(windows)
    for window, call in zip(windows, calls, strict=True):
        context = slice(0, window.first - window.start)
        settled = made.codes[..., window.start : window.first]
        assert np.array_equal(call[..., context], settled)


def test_windows_with_nothing_to_make_are_left_out():
    mask = np.zeros((1, 2, 300), bool)
    mask[..., 140:150] = True
    job = long_fill(30)
    assert len(job.windows(mask)) <= 2
    told = []
    made = job.run(np.zeros((1, 2, 300), np.int64), mask, SeededNoise(0), lambda *step: told.append(step))
    assert len(told) == job.steps(mask)
    assert (made.codes[~mask] == 0).all()
