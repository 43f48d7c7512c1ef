"""Linear layers and norms of the transformer, laid out for the device they run on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx

from audiogen_mlx.musicgen.weights import GROUP, Matrix, Quantized, Source

EPS = 1e-5


def on_cpu() -> bool:
    """Whether mlx computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


class Linear:
    """x @ matrix.T + bias, from a matrix (out, in).

    On a CPU a matrix lies (in, out), which its products read in order; on a GPU it stays as it is.
    """

    def __init__(self, matrix: Matrix, bias: mx.array | None = None) -> None:
        self.quantized = matrix if isinstance(matrix, Quantized) else None
        self.bias = bias
        if isinstance(matrix, Quantized):
            return
        self.weight = mx.contiguous(matrix.T).T if on_cpu() else mx.contiguous(matrix)
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
            y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Norm:
    """Each vector to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, source: Source, name: str) -> None:
        self.weight = source.vector(f"{name}.weight").astype(source.dtype)
        self.bias = source.vector(f"{name}.bias").astype(source.dtype)
        mx.eval(self.weight, self.bias)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, EPS)


def activation(name: str) -> Callable[[mx.array], mx.array]:
    """The function between the two linear layers of a feed-forward part."""
    return {"gelu": _gelu, "relu": _relu}[name]


@partial(mx.compile, shapeless=True)
def _gelu(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.erf(x * 0.7071067811865476))


def _relu(x: mx.array) -> mx.array:
    return mx.maximum(x, 0)
