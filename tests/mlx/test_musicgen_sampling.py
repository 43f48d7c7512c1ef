"""Drawing tokens: each filter against a plain re-reckoning, frequencies, the corners of rounding."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.sampling import Sampler, filtered, pick


def logits(rows: int = 5, size: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (rows, size)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kept(x: np.ndarray, **options: object) -> np.ndarray:
    made = np.array(filtered(mx.array(x), Sampling(**options)))
    return made / made.sum(-1, keepdims=True)


@pytest.mark.parametrize("count", [1, 2, 7, 49])
def test_top_k(count: int):
    x = logits()
    made = kept(x, top_k=count)
    assert ((made > 0).sum(-1) == count).all()
    for row, given in zip(made, x, strict=True):
        assert set(np.flatnonzero(row)) == set(np.argsort(given)[-count:])


@pytest.mark.parametrize("count", [0, 50, 1000])
def test_top_k_of_all(count: int):
    np.testing.assert_allclose(kept(logits(), top_k=count), softmax(logits()), atol=1e-6)


def test_top_k_keeps_ties():
    x = np.array([[3.0, 1.0, 1.0, 1.0, 0.0]], np.float32)
    assert np.flatnonzero(kept(x, top_k=2)[0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_top_p(share: float):
    x = logits()
    made = kept(x, top_k=0, top_p=share)
    for row, given in zip(made, softmax(x), strict=True):
        order = np.argsort(-given)
        before = np.cumsum(given[order]) - given[order]
        assert set(np.flatnonzero(row)) == set(order[before <= share])


def test_top_p_of_what_top_k_left():
    x = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    assert np.flatnonzero(kept(x, top_k=2, top_p=0.55)[0]).tolist() == [0]  # 0.4 of 0.7 is 0.57
    assert np.flatnonzero(kept(x, top_k=2, top_p=0.6)[0]).tolist() == [0, 1]


def test_min_p():
    x = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    assert np.flatnonzero(kept(x, top_k=0, min_p=0.5)[0]).tolist() == [0, 1]


def test_frequencies_are_the_probabilities():
    x = np.tile(logits(1, 8), (4, 1))[None]  # (1, K, N)
    sampler = Sampler(Sampling(temperature=0.7, top_k=0), 4, [3], 4000)
    drawn = np.array([np.array(sampler(mx.array(x), step)) for step in range(4000)]).reshape(-1)
    shares = np.bincount(drawn, minlength=8) / drawn.size
    np.testing.assert_allclose(shares, softmax(x[0, 0] / 0.7), atol=0.02)


def test_each_codebook_has_its_own_temperature():
    x = mx.array(np.tile(logits(1, 8), (2, 1))[None])
    sampler = Sampler(Sampling(temperature=[0.0, 5.0], top_k=0), 2, [0], 300)
    drawn = np.array([np.array(sampler(x, step))[0] for step in range(300)])
    assert set(drawn[:, 0]) == {int(np.argmax(logits(1, 8)))}
    assert len(set(drawn[:, 1])) == 8


def test_greedy():
    x = logits(4)[None]
    made = np.array(Sampler(Sampling(temperature=0), 4, [0], 1)(mx.array(x), 0))
    np.testing.assert_array_equal(made, x.argmax(-1))


def test_one_is_the_likeliest():
    x = logits(4)[None]
    made = np.array(Sampler(Sampling(top_k=1), 4, [0], 1)(mx.array(x), 0))
    np.testing.assert_array_equal(made, x.argmax(-1))


def test_items_draw_with_their_own_seeds():
    x = np.tile(logits(4)[None], (3, 1, 1))
    batch = Sampler(Sampling(top_k=0), 4, [7, 8, 7], 10)
    alone = Sampler(Sampling(top_k=0), 4, [8], 10)
    for step in range(10):
        drawn = np.array(batch(mx.array(x), step))
        np.testing.assert_array_equal(drawn[0], drawn[2])
        np.testing.assert_array_equal(drawn[1:2], np.array(alone(mx.array(x[:1]), step)))


@pytest.mark.parametrize("number", [0.0, 0.25, 1 - 2**-23])
def test_what_has_no_probability_is_never_taken(number: float):
    rng = np.random.default_rng(1)
    for _ in range(50):
        probabilities = rng.random(200).astype(np.float32) * (rng.random(200) < 0.05)
        probabilities[rng.integers(200)] = 1e-8
        taken = int(pick(mx.array(probabilities), mx.array(number)))
        assert probabilities[taken] > 0


def test_the_ends_of_the_range():
    probabilities = mx.array([0.0, 0.5, 0.0, 0.5, 0.0])
    numbers = (0.0, 0.4999, 0.5001, 1 - 2**-23)
    assert [int(pick(probabilities, mx.array(number))) for number in numbers] == [1, 1, 3, 3]
