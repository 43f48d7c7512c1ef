"""Chunked equals whole, for any cut and any layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.layers import (
    Conv,
    Convolutional,
    ConvTranspose,
    Elu,
    Layer,
    Recurrent,
    Residual,
    stream,
    whole,
)
from audiogen_core.ops import LstmLayer, resolve

OPS = resolve("numpy")


def cut(x: np.ndarray, sizes: list[int]):
    """(signal, last) chunks; the sizes are used in turn until the clip is used up."""
    start, turn = 0, 0
    while start < x.shape[-1]:
        stop = start + sizes[turn % len(sizes)]
        yield x[..., start:stop], stop >= x.shape[-1]
        start, turn = stop, turn + 1


def random_conv(
    rng, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, causal: bool
) -> Conv:
    total = (kernel - 1) * dilation + 1 - stride
    right = 0 if causal else total // 2
    weight = rng.standard_normal((outputs, inputs, kernel)).astype(np.float32) / np.sqrt(inputs * kernel)
    return Conv(
        OPS.conv_weight(weight),
        OPS.vector(rng.standard_normal(outputs).astype(np.float32)),
        kernel,
        stride,
        dilation,
        total - right,
        right,
        "reflect",
        fill_last=True,
    )


def joined(stages, x, sizes):
    parts = list(stream(OPS, stages, cut(x, sizes)))
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    return np.concatenate([part for part, _ in parts], axis=2)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 700),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    causal=st.booleans(),
    strides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_an_encoder_in_chunks_is_the_encoder_at_once(seed, length, sizes, causal, strides):
    rng = np.random.default_rng(seed)
    layers: list[Layer] = [random_conv(rng, 1, 2, 7, 1, 1, causal)]
    for stride in strides:
        branch = [Elu(), random_conv(rng, 2, 2, 3, 1, 2, causal), Elu()]
        layers += [Residual(branch), random_conv(rng, 2, 2, 2 * stride, stride, 1, causal)]
    stages = [Convolutional(layers, down=int(np.prod(strides)))]
    x = rng.standard_normal((1, 1, length)).astype(np.float32)
    expected = whole(OPS, stages, x)
    assert expected.shape[2] == -(-length // int(np.prod(strides)))
    np.testing.assert_allclose(joined(stages, x, sizes), expected, rtol=0, atol=2e-5)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(1, 60),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    causal=st.booleans(),
    strides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_a_decoder_in_chunks_is_the_decoder_at_once(seed, frames, sizes, causal, strides):
    rng = np.random.default_rng(seed)
    layers: list[Layer] = [random_conv(rng, 2, 2, 7, 1, 1, causal)]
    for stride in strides:
        weight = rng.standard_normal((2, 2, 2 * stride)).astype(np.float32)
        right = stride if causal else stride // 2
        layers.append(
            ConvTranspose(OPS.conv_transpose_weight(weight), None, 2 * stride, stride, stride - right, right)
        )
        layers.append(Residual([Elu(), random_conv(rng, 2, 2, 3, 1, 1, causal)]))
    stages = [Convolutional(layers, up=int(np.prod(strides)))]
    x = rng.standard_normal((1, 2, frames)).astype(np.float32)
    expected = whole(OPS, stages, x)
    assert expected.shape[2] == frames * int(np.prod(strides))
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(joined(stages, x, sizes), expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("sizes", [[1], [3, 50], [7]])
def test_the_state_of_an_lstm_is_carried_from_chunk_to_chunk(name, sizes):
    ops = resolve(name)
    rng = np.random.default_rng(0)
    layers = [
        LstmLayer(
            *(rng.standard_normal(shape).astype(np.float32) * 0.3 for shape in ((16, 4), (16, 4), (16,)))
        )
        for _ in range(2)
    ]
    stages = [Recurrent(ops.lstm(layers))]
    x = rng.standard_normal((1, 4, 90)).astype(np.float32)
    parts = [
        ops.numpy(part) for part, _ in stream(ops, stages, ((ops.signal(c), z) for c, z in cut(x, sizes)))
    ]
    expected = ops.numpy(whole(ops, stages, ops.signal(x)))
    np.testing.assert_allclose(np.concatenate(parts, axis=2), expected, rtol=0, atol=1e-6)
