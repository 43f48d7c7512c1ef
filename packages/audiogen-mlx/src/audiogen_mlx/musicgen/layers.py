"""Linear layers, norms and attention of the transformer, each as the device it runs on likes it best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx

from audiogen_mlx.musicgen import on_cpu
from audiogen_mlx.musicgen.parts import gelu
from audiogen_mlx.musicgen.weights import GROUP, Matrix, Quantized, Source

EPS = 1e-5


class Linear:
    """x @ matrix.T + bias, from a matrix (out, in)."""

    def __init__(self, matrix: Matrix, bias: mx.array | None = None) -> None:
        self.quantized = matrix if isinstance(matrix, Quantized) else None
        self.bias = bias
        self._on_cpu = on_cpu.here()
        if isinstance(matrix, mx.array):
            self.weight = mx.contiguous(matrix)
            mx.eval(self.weight)

    @classmethod
    def with_bias(cls, source: Source, name: str) -> Linear:
        return cls(source.array(f"{name}.weight"), source.vector(f"{name}.bias").astype(source.dtype))

    def __call__(self, x: mx.array) -> mx.array:
        if self.quantized is not None:
            q = self.quantized
            y = mx.quantized_matmul(
                x, q.packed, q.scales, q.offsets, transpose=True, group_size=GROUP, bits=q.bits
            )
        else:
            y = on_cpu.product(x, self.weight) if self._on_cpu else x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Norm:
    """Each vector to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, source: Source, name: str) -> None:
        self.weight = source.vector(f"{name}.weight").astype(source.dtype)
        self.bias = source.vector(f"{name}.bias").astype(source.dtype)
        mx.eval(self.weight, self.bias)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, EPS)


def attend(query: mx.array, keys: mx.array, values: mx.array, mask: mx.array | str | None = None) -> mx.array:
    """Softmax attention: query (R, H, S, D), keys and values (R, H, n, D) -> (R, S, H * D).

    mask  true where a key is seen, (R, 1, S, n) or (R, 1, 1, n); "causal"; or None: all are
    """
    count, heads, steps, width = query.shape
    scale = width**-0.5
    if on_cpu.here() and steps == 1 and not isinstance(mask, str):
        y = on_cpu.attention(query, keys, values, scale=scale, mask=mask)
    else:
        y = mx.fast.scaled_dot_product_attention(query, keys, values, scale=scale, mask=mask)
    return y.transpose(0, 2, 1, 3).reshape(count, steps, heads * width)


def activation(name: str) -> Callable[[mx.array], mx.array]:
    """The function between the two linear layers of a feed-forward part."""
    if name == "gelu":
        return gelu
    return partial(mx.maximum, 0)
