"""Exponentials on the CPU, by numpy.

mlx's CPU backend computes them one number at a time: 12 to 17 ns each on x86. numpy's are vectorised and
take 0.5 ns, so on the CPU these functions leave mlx for them and come back; memory is
shared on the way there and copied once on the way back. On any other device, and in other dtypes than
float32, they are plain mlx.

On the CPU arguments are evaluated at once; functions that call these are not for `mx.compile` there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = 1 << 16
"""Numbers worked on at a time, so that every pass but the first finds them in the cache."""


def applies(*arrays: mx.array) -> bool:
    """Whether numpy is to be used: on the CPU, in float32."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return on_cpu and all(array.dtype == mx.float32 for array in arrays)


def silu_gated(value: mx.array, gate: mx.array) -> mx.array:
    """value * gate * sigmoid(gate), of equal shapes."""
    if not applies(value, gate):
        return value * (gate * mx.sigmoid(gate))
    return _blockwise(_silu_gated, value, gate)


def softmax(x: mx.array) -> mx.array:
    """Softmax over the last axis."""
    if not applies(x):
        return mx.softmax(x, axis=-1)
    return _blockwise(_softmax, x)


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


def _blockwise(function: Callable[..., None], *arrays: mx.array) -> mx.array:
    """`function(out, *views)` for some rows at a time; arrays of one shape, or rows of one length."""
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


def _silu_gated(out: Floats, value: Floats, gate: Floats) -> None:
    np.negative(gate, out=out)
    np.exp(out, out=out)
    out += 1
    np.divide(gate, out, out=out)
    np.multiply(out, value, out=out)


def _softmax(out: Floats, x: Floats) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    total: Any = out.sum(axis=-1, keepdims=True)
    np.divide(out, total, out=out)
