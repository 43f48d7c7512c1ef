"""Products, attention and caches as the transformer uses them, against plain ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.musicgen.conditioning import Rows
from audiogen_mlx import blas, cpu
from audiogen_mlx.musicgen import model
from audiogen_mlx.musicgen.model import Block, Cache, Linear, Norm, attend
from support.musicgen_models import TINY, transformer


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """So many threads take the steps through numpy."""
    monkeypatch.setattr(blas, "threads", lambda: request.param)
    cpu._inbox.cache_clear()
    yield request.param
    cpu._inbox.cache_clear()


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 64, 48), (2, 512, 1024), (3, 1024, 2048), (8, 512, 96), (2, 8, 7), (1, 40_000, 6), (2, 1536, 4608)],
)
@pytest.mark.parametrize("in_place", [True, False])
def test_products_by_rows(
    rows: int, inputs: int, outputs: int, in_place: bool, threads: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cpu, "_reads_in_place", lambda: in_place)
    x, weight = draw(rows, 1, inputs), draw(outputs, inputs, seed=1)
    found = cpu.product(x, weight)
    assert found.shape == (rows, 1, outputs) and found.dtype == np.float32
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * inputs)


def test_a_product_has_the_same_bytes_in_any_company():
    x, weight = draw(8, 1, 1024), draw(4096, 1024, seed=1)
    whole = cpu.product(x, weight)
    for rows in (1, 2, 5):
        assert np.array_equal(cpu.product(x[:rows], weight), whole[:rows])
    for count in (1, 2, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blas, "threads", lambda count=count: count)
            cpu._inbox.cache_clear()
            assert np.array_equal(cpu.product(x, weight), whole)
    cpu._inbox.cache_clear()


def test_parts_are_taken_by_all_threads_and_no_late_one_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blas, "threads", lambda: 2)
    cpu._inbox.cache_clear()
    both = threading.Barrier(2, timeout=30)
    seen: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        if start < 4:
            both.wait()  # two threads are here, or this fails
        seen.append((start, stop))

    cpu.shared(work, 7, 2)
    assert sorted(seen) == [(0, 2), (2, 4), (4, 6), (6, 7)]
    monkeypatch.setattr(cpu, "_inbox", lambda helpers: SimpleQueue())  # which nobody looks into
    seen.clear()
    cpu.shared(lambda start, stop: seen.append((start, stop)), 7, 2)
    assert seen == [(0, 2), (2, 4), (4, 6), (6, 7)]


def test_memory_that_runs_out_in_another_thread_is_told(threads: int):
    def work(start: int, stop: int) -> None:
        if start == 6:
            raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        cpu.shared(work, 8, 2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [3, 700, 2000, 9000])
def test_attention_of_one_position(length: int, masked: bool, threads: int):
    query, keys, values = draw(2, 4, 1, 16), draw(2, 4, length, 16, seed=1), draw(2, 4, length, 16, seed=2)
    mask = np.arange(length)[None, None, None] >= np.array([0, 1])[:, None, None, None] if masked else None
    given = [mx.array(part) for part in (query, keys, values)]
    seen = None if mask is None else mx.array(mask)
    expected = np.array(mx.fast.scaled_dot_product_attention(*given, scale=0.25, mask=seen))
    for found in (attend(query, keys, values, mask), np.array(attend(given[0], keys, values, mask))):
        assert found.shape == (2, 1, 64)
        np.testing.assert_allclose(found, expected.transpose(0, 2, 1, 3).reshape(2, 1, 64), atol=1e-5)


@pytest.mark.parametrize("function", ["layer_norm", "gelu", "relu"])
def test_leaves_take_arrays_of_either_kind(function: str):
    x = draw(2, 1, 300)
    norm = Norm(300)
    norm.weight, norm.bias = normal(300, seed=1), normal(300, seed=2)
    leaf = {"layer_norm": norm, "gelu": model._gelu, "relu": model._relu}[function]
    np.testing.assert_allclose(leaf(x), np.array(leaf(mx.array(x))), rtol=1e-5, atol=2e-6)


def test_activations():
    import math

    x = np.linspace(-5, 5, 101, dtype=np.float32)
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    gelu, relu = (Block(replace(TINY, activation=name)).activate for name in ("gelu", "relu"))
    np.testing.assert_allclose(np.array(gelu(mx.array(x))), exact, atol=1e-6)
    np.testing.assert_array_equal(np.array(relu(mx.array(x))), np.maximum(x, 0))


def test_quantised_layers():
    weight, bias = normal(96, 128), normal(96, seed=3)
    plain = Linear(128, 96)
    plain.load_weights([("weight", weight), ("bias", bias)])
    x = normal(2, 1, 128, seed=4)
    exact = np.array(x @ weight.T + bias)
    np.testing.assert_allclose(np.array(plain(x)), exact, rtol=0, atol=2e-4)
    assert 0 < np.abs(np.array(plain.to_quantized(64, 8)(x)) - exact).max() < 0.2


def test_the_mask_of_filled_rows():
    cache = Cache(TINY, 2, 6, mx.float32, fill=(0, 2))
    first = np.array(cache.mask(3))[:, 0]
    np.testing.assert_array_equal(first[0], np.tril(np.ones((3, 3), bool)))
    np.testing.assert_array_equal(first[1], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    cache.offset = 3
    np.testing.assert_array_equal(np.array(cache.mask(1))[:, 0, 0], [[1, 1, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(np.array(cache.places(1)), [[3], [1]])
    assert Cache(TINY, 2, 6, mx.float32, fill=(0, 0)).mask(1) is None


def test_rows_filled_on_the_left_are_as_without():
    network = transformer(TINY)
    tokens = mx.array(np.random.default_rng(0).integers(0, 16, (2, 4, 7)).astype(np.int32))
    long, short = normal(5, 64), normal(3, 64, seed=1)
    filled = mx.concatenate([mx.zeros((2, 64)), short])
    together = network(tokens, network.run(Rows(2, mx.stack([long, filled]), fill=(0, 2)), 7))
    for row, prefix in enumerate((long, short)):
        alone = network(tokens[row : row + 1], network.run(Rows(1, prefix[None]), 7))
        np.testing.assert_allclose(np.array(together[row]), np.array(alone[0]), rtol=0, atol=1e-5)


def test_rows_that_attend_to_nothing_are_as_those_that_attend_to_zeros():
    network = transformer(TINY)
    tokens = mx.array(np.random.default_rng(0).integers(0, 16, (2, 4, 5)).astype(np.int32))
    text = normal(1, 6, 64)
    skipped = network(tokens, network.run(Rows(2, text=text), 5))
    zeros = network(tokens, network.run(Rows(2, text=mx.concatenate([text, mx.zeros_like(text)])), 5))
    np.testing.assert_allclose(np.array(skipped), np.array(zeros), rtol=0, atol=1e-5)


def test_steps_past_the_first_thousand_positions():
    network = transformer(TINY)
    tokens = mx.array(np.random.default_rng(0).integers(0, 16, (1, 4, 1100)).astype(np.int32))
    whole = network(tokens, network.run(Rows(1), 1100), last=True)
    run = network.run(Rows(1), 1100)
    network(tokens[:, :, :1090], run, last=True)
    for step in range(1090, 1100):
        last = network(tokens[:, :, step : step + 1], run)
    np.testing.assert_allclose(np.array(last), np.array(whole), rtol=0, atol=1e-4)
