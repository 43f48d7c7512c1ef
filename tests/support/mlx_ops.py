"""The verbs in mlx, channels last inside: (B, T, C). Proves that the codecs cross to a third framework."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from audiogen_core.ops import LstmLayer


class MlxOps:
    name = "mlx"
    chunk_seconds = 30.0

    def signal(self, array: Any) -> mx.array:
        return mx.array(np.ascontiguousarray(array.transpose(0, 2, 1), dtype=np.float32))

    def numpy(self, signal: mx.array) -> np.ndarray:
        return np.array(signal).transpose(0, 2, 1)

    def indices(self, array: Any) -> mx.array:
        return mx.array(np.asarray(array, dtype=np.int32))

    def indices_numpy(self, indices: mx.array) -> np.ndarray:
        return np.array(indices).astype(np.int64)

    def length(self, signal: mx.array) -> int:
        return signal.shape[1]

    def vector(self, array: Any) -> mx.array:
        return mx.array(np.asarray(array, dtype=np.float32).reshape(-1))

    def conv_weight(self, array: Any) -> mx.array:
        return mx.array(np.ascontiguousarray(array.transpose(0, 2, 1), dtype=np.float32))  # (out, k, in)

    depthwise_weight = conv_weight

    def conv_transpose_weight(self, array: Any) -> mx.array:
        return mx.array(np.ascontiguousarray(array.transpose(1, 2, 0), dtype=np.float32))  # (out, k, in)

    def codebook(self, array: Any) -> tuple[mx.array, mx.array]:
        book = mx.array(np.asarray(array, dtype=np.float32))
        return book, 0.5 * mx.sum(book * book, axis=1)

    def lstm(self, layers: Sequence[LstmLayer]) -> Any:
        return _MlxLstm(layers)

    def pad(self, x: mx.array, left: int, right: int, mode: str = "constant") -> mx.array:
        if mode == "constant":
            return mx.pad(x, ((0, 0), (left, right), (0, 0)))
        length = x.shape[1]
        parts = [x]
        if left:
            parts.insert(0, x[:, left:0:-1])
        if right:
            parts.append(x[:, length - 2 : (length - 2 - right if length - 2 - right >= 0 else None) : -1])
        return mx.concatenate(parts, axis=1) if len(parts) > 1 else x

    def trim(self, x: mx.array, left: int, right: int) -> mx.array:
        return x[:, left : x.shape[1] - right]

    def concat(self, parts: Sequence[mx.array]) -> mx.array:
        return parts[0] if len(parts) == 1 else mx.concatenate(list(parts), axis=1)

    def stack(self, parts: Sequence[mx.array]) -> mx.array:
        return mx.concatenate(list(parts), axis=2)

    def channels(self, x: mx.array, start: int, stop: int) -> mx.array:
        return x[..., start:stop]

    def conv(
        self,
        x: mx.array,
        weight: mx.array,
        bias: mx.array | None = None,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> mx.array:
        y = mx.conv1d(x, weight, stride=stride, dilation=dilation)
        return y if bias is None else y + bias

    def depthwise_conv(self, x: mx.array, weight: mx.array, bias: mx.array | None = None) -> mx.array:
        y = mx.conv1d(x, weight, groups=x.shape[-1])
        return y if bias is None else y + bias

    def conv_transpose(
        self, x: mx.array, weight: mx.array, bias: mx.array | None = None, *, stride: int
    ) -> mx.array:
        y = mx.conv_transpose1d(x, weight, stride=stride)
        return y if bias is None else y + bias

    def elu(self, x: mx.array) -> mx.array:
        return nn.elu(x)

    def gelu(self, x: mx.array) -> mx.array:
        return nn.gelu(x)

    def tanh(self, x: mx.array) -> mx.array:
        return mx.tanh(x)

    def power(self, x: mx.array, exponent: float) -> mx.array:
        return mx.power(x, exponent)

    def snake(self, x: mx.array, alpha: mx.array, beta: mx.array | None = None) -> mx.array:
        return x + mx.square(mx.sin(x * alpha)) / ((alpha if beta is None else beta) + 1e-9)

    def scale(self, x: mx.array, factor: mx.array) -> mx.array:
        return x * factor

    def group_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        centred = x - x.mean(axis=(1, 2), keepdims=True)
        variance = mx.square(centred).mean(axis=(1, 2), keepdims=True)
        return centred * mx.rsqrt(variance + eps) * weight + bias

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, weight, bias, eps)

    def unit(self, x: mx.array) -> mx.array:
        return x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    def nearest(self, x: mx.array, codebook: tuple[mx.array, mx.array]) -> mx.array:
        book, half_square = codebook
        return mx.argmax(x @ book.T - half_square, axis=-1)

    def lookup(self, indices: mx.array, codebook: tuple[mx.array, mx.array]) -> mx.array:
        return codebook[0][indices]


class _MlxLstm:
    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self.layers = [
            (
                mx.array(np.ascontiguousarray(layer.weight_ih.T)),
                mx.array(np.ascontiguousarray(layer.weight_hh.T)),
                mx.array(layer.bias),
            )
            for layer in layers
        ]

    def __call__(self, x: mx.array, state: Any) -> tuple[mx.array, Any]:
        size = self.layers[0][1].shape[0]
        state = state or [(mx.zeros((x.shape[0], size)),) * 2 for _ in self.layers]
        after = []
        for (weight_ih, weight_hh, bias), (hidden, cell) in zip(self.layers, state, strict=True):
            driven = x @ weight_ih + bias
            steps = []
            for step in range(x.shape[1]):
                hidden, cell = _lstm_step(driven[:, step], hidden, cell, weight_hh)
                steps.append(hidden)
            x = mx.stack(steps, axis=1)
            mx.eval(x, cell)
            after.append((hidden, cell))
        return x, after


@partial(mx.compile)
def _lstm_step(
    drive: mx.array, hidden: mx.array, cell: mx.array, weight: mx.array
) -> tuple[mx.array, mx.array]:
    i, f, g, o = mx.split(drive + hidden @ weight, 4, axis=-1)
    cell = mx.sigmoid(f) * cell + mx.sigmoid(i) * mx.tanh(g)
    return mx.sigmoid(o) * mx.tanh(cell), cell
