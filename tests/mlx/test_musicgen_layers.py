"""Products, attention and caches as the transformer uses them, against plain ones."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from audiogen_mlx import cpu
from audiogen_mlx.musicgen.model import Block, Cache, Linear, Rows, attend
from support.musicgen_models import TINY, transformer


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("streams", [0, 2, 3])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 64, 48), (2, 512, 1024), (3, 1024, 2048), (40, 512, 96), (2, 8, 7)]
)
def test_products_in_blocks(
    rows: int, inputs: int, outputs: int, streams: int, monkeypatch: pytest.MonkeyPatch
):
    made = [mx.new_stream(mx.Device(mx.cpu)) for _ in range(streams)]
    monkeypatch.setattr(cpu, "_streams", lambda: made)
    x, weight = normal(rows, 1, inputs), normal(outputs, inputs, seed=1)
    expected = np.array(x, copy=False) @ np.array(weight, copy=False).T
    np.testing.assert_allclose(np.array(cpu.product(x, weight)), expected, rtol=0, atol=2e-4)


def test_streams_are_as_many_as_threads(monkeypatch: pytest.MonkeyPatch):
    import threading

    from audiogen_mlx import blas

    monkeypatch.setattr(blas, "use", lambda: blas.Blas("", "none", threads=3))
    found: list[int] = []

    def count() -> None:
        found.append(len(cpu._streams()))
        assert cpu._streams() is cpu._streams()

    for _ in range(2):
        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
    assert found == [3, 3]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("length", "streams"), [(3, 0), (700, 0), (2000, 0), (2000, 3)])
def test_attention_of_one_position(length: int, streams: int, masked: bool, monkeypatch: pytest.MonkeyPatch):
    made = [mx.new_stream(mx.Device(mx.cpu)) for _ in range(streams)]
    monkeypatch.setattr(cpu, "_streams", lambda: made)
    query, keys, values = (
        normal(2, 4, 1, 16),
        normal(2, 4, length, 16, seed=1),
        normal(2, 4, length, 16, seed=2),
    )
    mask = mx.arange(length)[None, None, None] >= mx.array([0, 1])[:, None, None, None] if masked else None
    expected = mx.fast.scaled_dot_product_attention(query, keys, values, scale=0.25, mask=mask)
    heard = attend(query, keys, values, mask)
    assert heard.shape == (2, 1, 64)
    np.testing.assert_allclose(
        np.array(heard), np.array(expected).transpose(0, 2, 1, 3).reshape(2, 1, 64), atol=1e-5
    )


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
