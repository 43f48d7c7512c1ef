"""What the networks that listen to a clip are made of: linear layers, norms, positions. In float32."""

from __future__ import annotations

import math
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.weights import Weights

LONGEST_PERIOD = 10_000.0
"""Of the waves that say where a vector stands, in steps (divided by 2 pi)."""


class Linear:
    """x @ weight.T + bias, taken from `name`.weight and, where there is one, `name`.bias."""

    def __init__(self, table: Weights, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        weight = mx.array(table.take(f"{name}.weight", (outputs, inputs)))
        self.weight = mx.contiguous(weight.T)  # (inputs, outputs): a product then reads it in order
        mx.eval(self.weight)
        self.bias = mx.array(table.take(f"{name}.bias", (outputs,))) if bias else None

    def __call__(self, x: mx.array) -> mx.array:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class LayerNorm:
    """Each vector to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, table: Weights, name: str, width: int, eps: float = 1e-5) -> None:
        self.weight = mx.array(table.take(f"{name}.weight", (width,)))
        self.bias = mx.array(table.take(f"{name}.bias", (width,)))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, self.eps)


def attend(query: mx.array, key: mx.array, value: mx.array, heads: int) -> mx.array:
    """Attention of all to all: three (B, F, width) -> (B, F, width)."""
    batch, frames, width = query.shape
    query, key, value = (
        part.reshape(batch, frames, heads, width // heads).transpose(0, 2, 1, 3)  # (B, H, F, D)
        for part in (query, key, value)
    )
    y = mx.fast.scaled_dot_product_attention(query, key, value, scale=(width // heads) ** -0.5)
    return y.transpose(0, 2, 1, 3).reshape(batch, frames, width)


@partial(mx.compile, shapeless=True)
def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x times the normal distribution up to x."""
    return 0.5 * x * (1 + mx.erf(x * 0.7071067811865476))


def positions(count: int, width: int) -> NDArray[np.float32]:
    """What is added for where a vector stands: (count, width), cosines of falling frequencies, then sines.

    Angles are float32 products, as in the originals, which shows in the fourth digit far along.
    """
    half = width // 2
    steps = np.arange(half, dtype=np.float32)
    speeds = np.exp(steps * np.float32(-math.log(LONGEST_PERIOD) / max(1, half - 1)))
    angles = np.arange(count, dtype=np.float32)[:, None] * speeds
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
