"""What numpy does better than mlx on a CPU, for the codecs' verbs.

mlx has no vectorised exponentials and sines for x86, and runs a matrix times one vector as a whole
matrix product. numpy has both, and mlx arrays on a CPU are numpy arrays without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core.ops import Float, Lstm, LstmLayer
from audiogen_core.ops.numpy_ops import NumpyOps

Pointwise = Callable[[Float, Float], None]  # reads (rows, channels), writes the result into the second

_BLOCK = 1 << 16  # numbers worked off at a time, so that they stay in the cache from step to step


def pointwise(function: Pointwise, x: mx.array) -> mx.array:
    """`function` over all rows of x (..., C). Evaluates x."""
    source = np.array(x, copy=False)
    rows = source.reshape(-1, source.shape[-1])
    result = np.empty(rows.shape, np.float32)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        function(rows[start : start + step], result[start : start + step])
    return mx.array(result.reshape(source.shape))


def elu(x: Float, y: Float) -> None:
    np.minimum(x, 0, out=y)
    np.exp(y, out=y)
    y -= 1
    y += np.maximum(x, 0)


def tanh(x: Float, y: Float) -> None:
    np.tanh(x, out=y)


def snake(alpha: Float, beta: Float) -> Pointwise:
    """The function for these channels."""
    share = 1 / (beta + np.float32(1e-9))

    def function(x: Float, y: Float) -> None:
        np.multiply(x, alpha, out=y)
        np.sin(y, out=y)
        y *= y
        y *= share
        y += x

    return function


class HostLstm:
    """Core's LSTM in numpy, on signals (B, T, C) of mlx."""

    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self._lstm: Lstm = NumpyOps().lstm(layers)

    def __call__(self, x: mx.array, state: Any) -> tuple[mx.array, Any]:
        y, after = self._lstm(np.array(x, copy=False).transpose(0, 2, 1), state)
        return mx.array(np.ascontiguousarray(y.transpose(0, 2, 1))), after
