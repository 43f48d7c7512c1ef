"""One step of the transformer on a CPU: it is bound by reading the weights, so they are read well.

A product of few rows with a large matrix is done in blocks small enough for OpenBLAS to multiply where they
lie (in one piece it would copy the matrix first, and take more than twice as long), and the blocks are
shared out among streams, each of which has a thread of its own. Exponentials are numpy's, which are
vectorised, unlike mlx's on x86.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from audiogen_mlx import blas

SMALL_PRODUCT = 1_000_000
"""Up to this many multiplications OpenBLAS does not copy what it multiplies."""

WORTH_SHARING = 200_000
"""Numbers that are read for less than this long are not worth a second thread."""

WORTH_NUMPY = 4_096
"""Exponentials from which on leaving mlx for numpy pays off."""

_BLOCKS = (256, 128, 64, 32, 16)
_MOST_STREAMS = 8

_own = threading.local()


def here() -> bool:
    """Whether mlx computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T."""
    outputs, inputs = weight.shape
    rows = x.size // inputs
    flat = x.reshape(1, rows, inputs)
    fits = (size for size in _BLOCKS if rows * size * inputs <= SMALL_PRODUCT and outputs % size == 0)
    size = next(fits, 0)
    if not size:
        return x @ weight.T
    blocks = weight.reshape(-1, size, inputs).swapaxes(-1, -2)  # (blocks, in, size)
    y = _shared(lambda cut: (flat, blocks[cut]), len(blocks), weight.size, axis=0)  # (blocks, rows, size)
    return y.transpose(1, 0, 2).reshape(*x.shape[:-1], outputs)


def attention(
    query: mx.array, keys: mx.array, values: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Attention of one position: query (R, H, 1, D), keys and values (R, H, n, D) -> (R, H, 1, D).

    mask  true where a key is seen, (R, 1, 1, n); None: all are
    """
    heads = keys.shape[1]
    asked = (query * scale).swapaxes(-1, -2)
    scores = _shared(lambda cut: (keys[:, cut], asked[:, cut]), heads, keys.size, axis=1)
    scores = scores.swapaxes(-1, -2)  # (R, H, 1, n); the keys were read as they lie
    if mask is not None:
        scores = mx.where(mask, scores, -math.inf)
    shares = _softmax(scores)
    return _shared(lambda cut: (shares[:, cut], values[:, cut]), heads, values.size, axis=1)


def _softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis; of many numbers by numpy, which evaluates them at once."""
    if scores.size < WORTH_NUMPY or scores.dtype != mx.float32:
        return mx.softmax(scores, axis=-1)
    mx.eval(scores)
    given = np.array(scores, copy=False)
    made = given - given.max(axis=-1, keepdims=True)
    np.exp(made, out=made)
    made /= made.sum(axis=-1, keepdims=True)
    return mx.array(made)


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
    made = [
        mx.matmul(*pair(slice(start, stop)), stream=stream)
        for stream, start, stop in zip(streams, cuts, cuts[1:], strict=False)
    ]
    return mx.concatenate(made, axis=axis)


def _streams() -> Sequence[mx.Stream]:
    """As many as the BLAS has threads; each thread of the program has its own."""
    if not hasattr(_own, "streams"):
        count = min(blas.use().threads, _MOST_STREAMS)
        _own.streams = [mx.new_stream(mx.Device(mx.cpu)) for _ in range(count)] if count > 1 else []
    streams: Sequence[mx.Stream] = _own.streams
    return streams
