"""Pointwise functions by numpy on the CPU: the same numbers as mlx's own."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiogen_mlx import cpu

ROWS = cpu.BLOCK // 300 * 2 + 5  # more than two blocks, the last one short


def sample(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32))


def plain(function, *arrays: mx.array) -> np.ndarray:
    """In float64 by mlx's formula, where numpy's way is not taken."""
    with mx.stream(mx.cpu):
        return np.array(function(*(array.astype(mx.float64) for array in arrays)))


@pytest.mark.parametrize(
    ("function", "count"), [(cpu.silu_gated, 2), (cpu.softmax, 1)], ids=["silu_gated", "softmax"]
)
def test_equal_to_the_plain_formula(function, count: int) -> None:
    arrays = [sample(2, ROWS, 300, seed=seed) for seed in range(count)]
    assert cpu.applies(*arrays)
    np.testing.assert_allclose(np.array(function(*arrays)), plain(function, *arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_attention_with_shared_heads(bias: bool) -> None:
    query, key, value = sample(2, 4, 7, 32), sample(2, 2, 5, 32, seed=1), sample(2, 2, 5, 32, seed=2)
    added = sample(1, 1, 1, 5, seed=3) if bias else None
    found = cpu.attention(query, key, value, scale=0.2, bias=added)
    expected = mx.fast.scaled_dot_product_attention(query, key, value, scale=0.2, mask=added)
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)


def test_views_and_extreme_numbers() -> None:
    wide = mx.array([[-200.0, 0.0, 200.0, 1.0, 2.0, 3.0]])
    value, gate = wide[:, 3:], wide[:, :3]
    np.testing.assert_allclose(np.array(cpu.silu_gated(value, gate)), [[0.0, 0.0, 600.0]])
    assert np.array_equal(np.array(cpu.softmax(gate)), [[0.0, 0.0, 1.0]])


def test_half_precision_stays_in_mlx() -> None:
    x = sample(3, 4).astype(mx.float16)
    assert not cpu.applies(x)
    assert cpu.softmax(x).dtype == mx.float16


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_memory_is_kept_and_given_back():
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    cpu.keep_memory(True)
    try:
        arrays = [np.ones(5_000_000, np.float32) for _ in range(5)]  # 95 MiB
        taken = resident()
        del arrays
        assert resident() > taken - 20
    finally:
        cpu.keep_memory(False)
    assert resident() < taken - 70
