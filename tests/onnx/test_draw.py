"""Drawing tokens: filters by their definitions, and what comes out at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.noise import SeededNoise
from audiogen_onnx.vampnet.draw import Filters, draw, likeliest, nucleus, softmax, typical

RNG = np.random.default_rng(3)
LOGITS = (RNG.standard_normal((40, 64)) * 2).astype(np.float32)


def kept(filtered: np.ndarray) -> np.ndarray:
    return np.isfinite(filtered)


@pytest.mark.parametrize("mass", [0.0, 0.3, 0.9, 0.999])
def test_nucleus_is_the_smallest_set_beyond_the_mass(mass):
    chances = softmax(LOGITS)
    for row, chosen in zip(chances, kept(nucleus(LOGITS, mass)), strict=True):
        held = np.sort(row[chosen])
        assert held.sum() > mass - 1e-6
        assert held[1:].sum() <= mass + 1e-6, "one token too many"
        assert row[chosen].min() >= row[~chosen].max(initial=0)


@pytest.mark.parametrize(("mass", "least"), [(0.15, 1), (0.15, 64), (0.5, 3), (0.9, 10), (1.0, 1)])
def test_typical_keeps_what_is_closest_to_the_entropy(mass, least):
    chances = softmax(LOGITS.astype(np.float64))
    information = -np.log(chances)
    distance = np.abs(information - (chances * information).sum(axis=1, keepdims=True))
    for row in range(len(LOGITS)):
        order = np.argsort(distance[row])
        reached = np.cumsum(chances[row][order])
        count = max(least, int((reached < mass - 1e-6).sum()) + 1)
        expected = np.zeros(64, bool)
        expected[order[:count]] = True
        assert np.array_equal(kept(typical(LOGITS[row : row + 1], mass, least))[0], expected)


@pytest.mark.parametrize("mass", [0.9999999, 1.0])
def test_a_typical_mass_of_all_keeps_all_or_nearly(mass):
    flat = np.zeros((2, 1024), np.float32)
    assert kept(typical(flat, mass, 1)).all()


def test_typical_goes_over_what_other_filters_ruled_out():
    cut = likeliest(LOGITS, 5)
    assert (kept(typical(cut, 1.0, 1)) == kept(cut)).all()


def test_likeliest():
    assert (kept(likeliest(LOGITS, 5)).sum(axis=1) == 5).all()
    assert likeliest(LOGITS, 64) is LOGITS
    assert (likeliest(LOGITS, 1).argmax(axis=1) == LOGITS.argmax(axis=1)).all()


@settings(max_examples=60)
@given(
    st.floats(0, 5),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(0.001, 1)),
    st.one_of(st.none(), st.integers(1, 70)),
)
def test_every_draw_is_of_a_token_that_was_left(temperature, top_p, typical_mass, top_k):
    filters = Filters(temperature, typical_mass, 2, top_k, top_p)
    noise = RNG.standard_exponential(LOGITS.shape, dtype=np.float32)
    tokens, chances = draw(LOGITS, noise, filters)
    left = kept(filters.apply(LOGITS))
    assert left[np.arange(len(LOGITS)), tokens].all()
    assert (chances > 0).all() and (chances <= 1).all()


def test_a_token_that_was_ruled_out_is_not_drawn_where_numpys_noise_is_zero():
    assert np.random.default_rng(271).standard_exponential(4096, dtype=np.float32)[2303] == 0
    logits = np.zeros((1, 4096), np.float32)
    logits[0, 2303] = -1
    tokens, chances = draw(logits, SeededNoise(271).exponential(logits.shape), Filters(top_k=4095))
    assert tokens[0] != 2303 and np.isfinite(np.log(chances)).all()


def test_without_noise_the_likeliest_is_taken():
    tokens, chances = draw(LOGITS, None, Filters(temperature=0))
    assert np.array_equal(tokens, LOGITS.argmax(axis=1))
    assert np.allclose(chances, softmax(LOGITS).max(axis=1))


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-6])
def test_the_coldest_temperatures_do_not_overflow(temperature):
    noise = RNG.standard_exponential(LOGITS.shape, dtype=np.float32)
    tokens, _ = draw(LOGITS, noise, Filters(temperature=temperature))
    assert np.array_equal(tokens, LOGITS.argmax(axis=1))


def test_draws_follow_the_probabilities():
    logits = np.tile(np.log(np.array([0.5, 0.3, 0.2], np.float32)), (60_000, 1))
    tokens, _ = draw(logits, RNG.standard_exponential(logits.shape, dtype=np.float32), Filters())
    assert np.allclose(np.bincount(tokens) / len(tokens), [0.5, 0.3, 0.2], atol=0.01)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    logits = LOGITS.copy()
    logits[7] = bad
    with pytest.raises(ModelError, match="not numbers"):
        draw(logits, None, Filters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"typical_mass": 0.0},
        {"typical_mass": 1.5},
        {"typical_min_tokens": -1},
        {"top_k": 0},
    ],
)
def test_options_out_of_range(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Filters(**wrong)
