"""Patterns are exact inverses; sampling options are checked."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core import patterns
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.sampling import Sampling


@st.composite
def clips(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    codebooks = draw(st.integers(1, 8))
    frames = draw(st.integers(0, 20))
    delays = draw(st.tuples(*[st.integers(0, 9)] * codebooks))
    seed = draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).integers(-1, 1024, (codebooks, frames)), delays


@given(clips())
def test_undelay_is_the_inverse_of_delay(clip: tuple[np.ndarray, tuple[int, ...]]) -> None:
    codes, delays = clip
    tokens = patterns.delay(codes, delays, special=1024)
    assert tokens.shape == (codes.shape[0], codes.shape[1] + max(delays))
    np.testing.assert_array_equal(patterns.undelay(tokens, delays), codes)
    assert np.sum(tokens == 1024) == max(delays) * codes.shape[0]


@given(clips(), st.booleans())
def test_unflatten_is_the_inverse_of_flatten(clip: tuple[np.ndarray, tuple[int, ...]], offsets: bool) -> None:
    codes, _ = clip
    size = 1024 if offsets else None
    tokens = patterns.flatten(codes, size)
    assert tokens.shape == (codes.size,)
    np.testing.assert_array_equal(patterns.unflatten(tokens, codes.shape[0], size), codes)


def test_delay_moves_each_row() -> None:
    tokens = patterns.delay(np.array([[1, 2], [3, 4], [5, 6]]), (0, 1, 2), special=9)
    np.testing.assert_array_equal(tokens, [[1, 2, 9, 9], [9, 3, 4, 9], [9, 9, 5, 6]])


def test_flatten_with_offsets_tells_codebooks_apart() -> None:
    np.testing.assert_array_equal(patterns.flatten(np.array([[1, 2], [3, 4]]), 10), [1, 13, 2, 14])


def test_template_marks_what_is_to_be_drawn() -> None:
    prompt = np.array([[1], [2]])
    tokens = patterns.template(3, (0, 1), 9, prompt=prompt)
    np.testing.assert_array_equal(tokens, [[1, -1, -1, 9], [9, 2, -1, -1]])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: patterns.delay(np.zeros(3, int), (0,), 9), CodesError, "codebooks, frames"),
        (lambda: patterns.delay(np.zeros((2, 3)), (0, 1), 9), CodesError, "whole numbers"),
        (lambda: patterns.delay(np.zeros((2, 3), int), (0,), 9), OptionError, "2 whole numbers"),
        (lambda: patterns.delay(np.zeros((2, 3), int), (0, -1), 9), OptionError, ">= 0"),
        (lambda: patterns.undelay(np.zeros((2, 1), int), (0, 3)), CodesError, "fewer"),
        (lambda: patterns.unflatten(np.zeros(5, int), 2), CodesError, "whole number of frames"),
        (lambda: patterns.unflatten(np.zeros(5, int), 0), OptionError, "at least 1"),
        (lambda: patterns.template(0, (0, 1), 9), OptionError, "at least 1 frame"),
        (lambda: patterns.template(1, (0, 1), 9, prompt=np.zeros((2, 2), int)), CodesError, "does not fit"),
    ],
)
def test_bad_input_is_named(call, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": []},
        {"temperature": [1.0, math.inf]},
        {"top_k": -1},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_sampling_refuses_impossible_values(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]


def test_sampling_spreads_one_temperature_over_all_codebooks() -> None:
    assert Sampling(temperature=0.5).temperatures_for(3) == (0.5, 0.5, 0.5)
    assert Sampling(temperature=[1, 0.5]).temperatures_for(2) == (1.0, 0.5)
    with pytest.raises(OptionError, match="3 codebooks, but 2"):
        Sampling(temperature=[1, 0.5]).temperatures_for(3)


def test_sampling_goes_into_json_and_back() -> None:
    sampling = Sampling(temperature=[1.0, 0.5], top_k=3, seed=7)
    assert Sampling(**json.loads(json.dumps(sampling.to_dict()))) == sampling
