"""What numpy and OpenBLAS do faster on a CPU than mlx, whose results they give.

mlx's CPU backend computes exponentials and sines one number at a time on x86: 12 to 17 ns each, where numpy
takes 0.5 ns; it runs a matrix times one vector as a whole matrix product; and OpenBLAS copies a large matrix
before a product with few rows. Memory of an mlx array on a CPU is shared with numpy on the way there and
copied once on the way back.

Functions that leave mlx evaluate what they are given, so they are not for `mx.compile` there.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.ops import Lstm, LstmLayer
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_mlx import blas

Floats = NDArray[np.float32]
Rows = Callable[..., None]
"""Writes into its first argument (rows, channels) what it makes of the same rows of the others."""

BLOCK = 1 << 16
"""Numbers worked on at a time, so that every pass but the first finds them in the cache."""

SMALL_PRODUCT = 1_000_000
"""Up to this many multiplications OpenBLAS does not copy what it multiplies."""

WORTH_SHARING = 200_000
"""Numbers that are read for less than this long are not worth a second thread."""

WORTH_NUMPY = 4_096
"""Exponentials from which on leaving mlx in the middle of a step pays off."""

_PRODUCT_ROWS = (256, 128, 64, 32, 16)
_MOST_STREAMS = 8

_own = threading.local()


def here() -> bool:
    """Whether mlx computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def applies(*arrays: mx.array) -> bool:
    """Whether numpy is to be used: on the CPU, in float32."""
    return here() and all(array.dtype == mx.float32 for array in arrays)


def blockwise(function: Rows, *arrays: mx.array) -> mx.array:
    """`function` over some rows at a time of float32 arrays of one shape."""
    mx.eval(arrays)
    views = [np.array(array, copy=False) for array in arrays]
    shape = views[0].shape
    out = np.empty(shape, np.float32)
    rows = [view.reshape(-1, shape[-1]) for view in views]
    filled = out.reshape(-1, shape[-1])
    step = max(BLOCK // max(shape[-1], 1), 1)
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(filled), step):
            span = slice(start, start + step)
            function(filled[span], *(row[span] for row in rows))
    return mx.array(out)


# Functions of each number


def elu(out: Floats, x: Floats) -> None:
    np.minimum(x, 0, out=out)
    np.exp(out, out=out)
    out -= 1
    out += np.maximum(x, 0)


def tanh(out: Floats, x: Floats) -> None:
    np.tanh(x, out=out)


def snake(alpha: Floats, beta: Floats) -> Rows:
    """The function for these channels."""
    share = 1 / (beta + np.float32(1e-9))

    def function(out: Floats, x: Floats) -> None:
        np.multiply(x, alpha, out=out)
        np.sin(out, out=out)
        out *= out
        out *= share
        out += x

    return function


def silu_gated(value: mx.array, gate: mx.array) -> mx.array:
    """value * gate * sigmoid(gate), of equal shapes."""
    if not applies(value, gate):
        return value * (gate * mx.sigmoid(gate))
    return blockwise(_silu_gated, value, gate)


def _silu_gated(out: Floats, value: Floats, gate: Floats) -> None:
    np.negative(gate, out=out)
    np.exp(out, out=out)
    out += 1
    np.divide(gate, out, out=out)
    np.multiply(out, value, out=out)


# Attention


def softmax(x: mx.array, *, worth: int = 0) -> mx.array:
    """Softmax over the last axis; of fewer than `worth` numbers by mlx, which need not stop for it."""
    if x.size < worth or not applies(x):
        return mx.softmax(x, axis=-1)
    return blockwise(_softmax, x)


def _softmax(out: Floats, x: Floats) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    total: Any = out.sum(axis=-1, keepdims=True)
    np.divide(out, total, out=out)


def attention(
    query: mx.array, key: mx.array, value: mx.array, *, scale: float, bias: mx.array | None = None
) -> mx.array:
    """Softmax attention, (B, heads, L, D); fewer key heads than query heads are shared among them.

    bias  added to scores, (1, 1, 1, S), or None
    """
    if not applies(query, key, value):
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=bias)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (mx.repeat(part, shared, axis=1) for part in (key, value))
    scores = (query * scale) @ key.swapaxes(-1, -2)  # (B, H, L, S)
    return softmax(scores if bias is None else scores + bias) @ value


def attention_of_one(
    query: mx.array, keys: mx.array, values: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Attention of one position: query (R, H, 1, D), keys and values (R, H, n, D) -> (R, H, 1, D).

    mask  true where a key is seen, (R, 1, 1, n); None: all are
    """
    heads = keys.shape[1]
    asked = (query * scale).swapaxes(-1, -2)  # (R, H, D, 1): the keys are read as they lie
    scores = _shared(lambda cut: (keys[:, cut], asked[:, cut]), heads, keys.size, axis=1)
    scores = scores.swapaxes(-1, -2)  # (R, H, 1, n)
    if mask is not None:
        scores = mx.where(mask, scores, -math.inf)
    shares = softmax(scores, worth=WORTH_NUMPY)
    return _shared(lambda cut: (shares[:, cut], values[:, cut]), heads, values.size, axis=1)


# Products that are bound by reading a matrix


def product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T.

    Of few rows it is done in blocks small enough for OpenBLAS to multiply where they lie (in one piece it
    takes more than twice as long), and the blocks are shared out among streams, each of which has a thread
    of its own.
    """
    outputs, inputs = weight.shape
    rows = x.size // inputs
    flat = x.reshape(1, rows, inputs)
    fits = (size for size in _PRODUCT_ROWS if rows * size * inputs <= SMALL_PRODUCT and outputs % size == 0)
    size = next(fits, 0)
    if not size:
        return x @ weight.T
    blocks = weight.reshape(-1, size, inputs).swapaxes(-1, -2)  # (blocks, in, size)
    y = _shared(lambda cut: (flat, blocks[cut]), len(blocks), weight.size, axis=0)  # (blocks, rows, size)
    return y.transpose(1, 0, 2).reshape(*x.shape[:-1], outputs)


def _shared(
    pair: Callable[[slice], tuple[mx.array, mx.array]], count: int, numbers: int, *, axis: int
) -> mx.array:
    """A product of stacked matrices, of which each stream makes a part.

    pair     gives both sides of a part of the stack
    count    matrices in the stack
    numbers  that are read
    axis     of the stack in the product
    """
    streams = _streams() if numbers >= WORTH_SHARING else ()
    parts = min(len(streams), count)
    if parts < 2:
        one, other = pair(slice(None))
        return one @ other
    cuts = [count * index // parts for index in range(parts + 1)]
    products = [
        mx.matmul(*pair(slice(start, stop)), stream=stream)
        for stream, start, stop in zip(streams, cuts, cuts[1:], strict=False)
    ]
    return mx.concatenate(products, axis=axis)


def _streams() -> Sequence[mx.Stream]:
    """As many as the BLAS has threads; each thread of the program has its own."""
    if not hasattr(_own, "streams"):
        count = min(blas.use().threads, _MOST_STREAMS)
        _own.streams = [mx.new_stream(mx.Device(mx.cpu)) for _ in range(count)] if count > 1 else []
    streams: Sequence[mx.Stream] = _own.streams
    return streams


class HostLstm:
    """Core's LSTM in numpy, on signals (B, T, C) of mlx."""

    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self._lstm: Lstm = NumpyOps().lstm(layers)

    def __call__(self, x: mx.array, state: Any) -> tuple[mx.array, Any]:
        y, after = self._lstm(np.array(x, copy=False).transpose(0, 2, 1), state)
        return mx.array(np.ascontiguousarray(y.transpose(0, 2, 1))), after
