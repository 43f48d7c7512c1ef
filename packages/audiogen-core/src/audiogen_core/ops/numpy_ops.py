"""The verbs in plain numpy: the truth that runs anywhere. Signals are float32 (B, C, T)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import NDArray

from audiogen_core.ops.protocol import Attention, Float, Lstm, LstmLayer, PadMode

_BLOCK = 1 << 18  # elements of one unfolded block: it stays in the cache between its writing and its use


class NumpyOps:
    """Convolutions as matrix products over unfolded blocks, everything else as array arithmetic."""

    name = "numpy"
    chunk_seconds = 2.0  # what one layer makes then stays near the cache

    def signal(self, array: Float) -> Float:
        return np.ascontiguousarray(array, dtype=np.float32)

    def numpy(self, signal: Float) -> Float:
        return signal

    def indices(self, array: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        return np.asarray(array, dtype=np.int64)

    def indices_numpy(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return indices

    def length(self, signal: Float) -> int:
        return int(signal.shape[-1])

    def vector(self, array: Float) -> Float:
        return np.ascontiguousarray(array, dtype=np.float32).reshape(-1, 1)  # (C, 1)

    def conv_weight(self, array: Float) -> Float:
        return np.ascontiguousarray(array, dtype=np.float32)

    depthwise_weight = conv_weight

    def conv_transpose_weight(self, array: Float) -> Float:
        return np.ascontiguousarray(array.transpose(1, 2, 0), dtype=np.float32)  # (out, k, in)

    def codebook(self, array: Float) -> tuple[Float, Float]:
        book = np.ascontiguousarray(array, dtype=np.float32)
        half_square: Float = 0.5 * np.sum(book * book, axis=1, keepdims=True)
        return book, half_square  # (N, D), (N, 1)

    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm:
        return _NumpyLstm(layers)

    def pad(self, x: Float, left: int, right: int, mode: PadMode = "constant") -> Float:
        if left == 0 and right == 0:
            return x
        return np.pad(x, ((0, 0), (0, 0), (left, right)), mode=mode)

    def trim(self, x: Float, left: int, right: int) -> Float:
        return x[..., left : x.shape[-1] - right]

    def concat(self, parts: Sequence[Float]) -> Float:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def stack(self, parts: Sequence[Float]) -> Float:
        return np.concatenate(parts, axis=1)

    def channels(self, x: Float, start: int, stop: int) -> Float:
        return x[:, start:stop]

    def fold(self, x: Float, size: int) -> Float:
        batch, channels, steps = x.shape
        parts = x.reshape(batch, channels, steps // size, size).transpose(0, 3, 1, 2)
        return parts.reshape(batch, size * channels, steps // size)

    def unfold(self, x: Float, size: int) -> Float:
        batch, wide, steps = x.shape
        parts = x.reshape(batch, size, wide // size, steps).transpose(0, 2, 3, 1)
        return parts.reshape(batch, wide // size, steps * size)

    def spread(self, vector: Float, x: Float) -> Float:
        return np.broadcast_to(vector, (x.shape[0], len(vector), x.shape[2]))

    def conv(
        self, x: Float, weight: Float, bias: Float | None = None, *, stride: int = 1, dilation: int = 1
    ) -> Float:
        outputs, inputs, kernel = weight.shape
        frames = (x.shape[-1] - dilation * (kernel - 1) - 1) // stride + 1  # only whole windows
        if kernel == 1 and stride == 1:
            y = np.matmul(weight[:, :, 0], x)
        else:
            y = np.empty((x.shape[0], outputs, frames), np.float32)
            matrix = weight.reshape(outputs, inputs * kernel)
            block = max(256, _BLOCK // (inputs * kernel))
            for clip, result in zip(x, y, strict=True):
                for start in range(0, frames, block):
                    count = min(block, frames - start)
                    np.matmul(
                        matrix,
                        _unfold(clip, start * stride, count, kernel, stride, dilation),
                        out=result[:, start : start + count],
                    )
        return y if bias is None else np.add(y, bias, out=y)

    def depthwise_conv(self, x: Float, weight: Float, bias: Float | None = None) -> Float:
        kernel = weight.shape[-1]
        frames = x.shape[-1] - kernel + 1
        y = x[..., :frames] * weight[:, :, 0]
        for tap in range(1, kernel):
            y += x[..., tap : tap + frames] * weight[:, :, tap]
        return y if bias is None else np.add(y, bias, out=y)

    def conv_transpose(self, x: Float, weight: Float, bias: Float | None = None, *, stride: int) -> Float:
        outputs, kernel, inputs = weight.shape
        batch, _, frames = x.shape
        overlap = -(-kernel // stride)  # how many inputs reach one output
        total = (frames - 1) * stride + kernel
        # Output time as (step of the input, place within the stride): the taps of one `piece` of the kernel
        # then fall on whole steps, and overlap-add is a sum of shifted blocks.
        y = np.zeros((batch, outputs, frames + overlap - 1, stride), np.float32)
        matrix = weight.reshape(outputs * kernel, inputs)
        block = max(64, _BLOCK // (outputs * kernel))
        for clip, result in zip(x, y, strict=True):
            for start in range(0, frames, block):
                part = np.matmul(matrix, clip[:, start : start + block]).reshape(outputs, kernel, -1)
                count = part.shape[-1]
                for piece in range(overlap):
                    taps = part[:, piece * stride : (piece + 1) * stride].transpose(0, 2, 1)  # (out, n, taps)
                    place = start + piece
                    result[:, place : place + count, : taps.shape[-1]] += taps
        y = y.reshape(batch, outputs, -1)[..., :total]
        return y if bias is None else np.add(y, bias, out=y)

    def spectrum(self, x: Float, window: NDArray[np.float64], hop: int) -> Float:
        frames = sliding_window_view(x[:, 0], len(window), axis=-1)[:, ::hop]  # (B, F, window)
        # In float64: float32 leaves noise in quiet bins beside loud ones, which a codec may raise.
        y = np.fft.rfft(frames * window)
        return np.concatenate([y.real, y.imag], axis=2).transpose(0, 2, 1).astype(np.float32)

    def elu(self, x: Float) -> Float:
        y = np.minimum(x, 0)
        np.expm1(y, out=y)
        return np.add(y, np.maximum(x, 0), out=y)

    def gelu(self, x: Float) -> Float:
        return np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(math.sqrt(0.5))))

    def tanh(self, x: Float) -> Float:
        y: Float = np.tanh(x)
        return y

    def power(self, x: Float, exponent: float) -> Float:
        y: Float = np.power(x, np.float32(exponent))
        return y

    def snake(self, x: Float, alpha: Float, beta: Float | None = None) -> Float:
        y: Float = np.sin(x * alpha)
        y *= y
        y /= (alpha if beta is None else beta) + np.float32(1e-9)  # as DAC does it: alpha may be 0
        return np.add(y, x, out=y)

    def silu(self, x: Float) -> Float:
        with np.errstate(over="ignore"):
            y: Float = np.exp(-x)
        y += 1
        return np.divide(x, y, out=y)

    def sine(self, x: Float, rate: float) -> Float:
        y: Float = np.sin(x * np.float32(rate))
        return y

    def dynamic_tanh(self, x: Float, alpha: float, gamma: Float, beta: Float) -> Float:
        y: Float = x * np.float32(alpha)
        np.tanh(y, out=y)
        y *= gamma
        return np.add(y, beta, out=y)

    def scale(self, x: Float, factor: Float) -> Float:
        return x * factor

    def group_norm(self, x: Float, weight: Float, bias: Float, eps: float) -> Float:
        return _normalise(x, (1, 2), eps) * weight + bias

    def layer_norm(self, x: Float, weight: Float, bias: Float, eps: float) -> Float:
        return _normalise(x, (1,), eps) * weight + bias

    def unit(self, x: Float) -> Float:
        norm: Float = np.sqrt(np.sum(x * x, axis=1, keepdims=True, dtype=np.float32))
        return np.divide(x, np.maximum(norm, np.float32(1e-12)), dtype=np.float32)

    def attention(self, query: Float, key: Float, value: Float, how: Attention) -> Float:
        batch, channels, length = query.shape
        size, missing = how.blocks(length)
        cosine, sine = (table.T for table in how.rotary(length))

        def headed(x: Float, turns: bool, around: tuple[int, int]) -> Float:
            """(B, H, blocks, D, steps of a block and those around it)."""
            x = x.reshape(batch, how.heads, -1, length)
            x = _turned(x, cosine, sine) if turns else x
            x = np.pad(x, ((0, 0), (0, 0), (0, 0), (around[0], around[1] + missing)))
            blocks = sliding_window_view(x, around[0] + size + around[1], axis=-1)[..., ::size, :]
            return blocks.swapaxes(2, 3)

        asked = headed(query, True, (0, 0)).swapaxes(-1, -2) * np.float32((channels // how.heads) ** -0.5)
        scores = np.matmul(asked, headed(key, True, how.window))
        hidden = how.hidden(length)
        if hidden is not None:
            scores += hidden
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        y: Float = np.matmul(
            headed(value, False, how.window), scores.swapaxes(-1, -2)
        )  # (B, H, blocks, D, size)
        whole: Float = y.swapaxes(2, 3).reshape(batch, channels, -1)
        return whole[..., :length]

    def nearest(self, x: Float, codebook: tuple[Float, Float]) -> NDArray[np.int64]:
        # The nearest b to x: |x - b|^2 = |x|^2 - 2 (x.b - |b|^2 / 2) is least where the bracket is largest.
        book, half_square = codebook
        best: NDArray[np.int64] = np.argmax(np.matmul(book, x) - half_square, axis=1)
        return best  # (B, F)

    def lookup(self, indices: NDArray[np.int64], codebook: tuple[Float, Float]) -> Float:
        return np.ascontiguousarray(codebook[0][indices].transpose(0, 2, 1))  # (B, D, F)


class _NumpyLstm:
    """A stack of LSTM layers over time; the state of the last step is returned for the next chunk."""

    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self.layers = [
            LstmLayer(*(np.ascontiguousarray(part, dtype=np.float32) for part in layer)) for layer in layers
        ]

    def __call__(self, x: Float, state: list[tuple[Float, Float]] | None) -> tuple[Float, Any]:
        batch = x.shape[0]
        if state is None:
            size = self.layers[0].weight_hh.shape[1]
            zero = np.zeros((batch, size), np.float32)
            state = [(zero, zero)] * len(self.layers)
        after = []
        for layer, (hidden, cell) in zip(self.layers, state, strict=True):
            driven = np.matmul(layer.weight_ih, x) + layer.bias[:, None]  # (B, 4H, T)
            driven = np.ascontiguousarray(driven.transpose(2, 0, 1))  # (T, B, 4H)
            x = np.empty((batch, hidden.shape[1], len(driven)), np.float32)
            recurrent = layer.weight_hh.T
            for step, drive in enumerate(driven):
                hidden, cell = _lstm_step(drive + hidden @ recurrent, cell)
                x[..., step] = hidden
            after.append((hidden, cell))
        return x, after


def _lstm_step(gates: Float, cell: Float) -> tuple[Float, Float]:
    size = cell.shape[1]
    squashed = 0.5 * np.tanh(0.5 * gates) + np.float32(0.5)  # the sigmoid, without overflow
    candidate = np.tanh(gates[:, 2 * size : 3 * size])
    cell = squashed[:, size : 2 * size] * cell + squashed[:, :size] * candidate
    return squashed[:, 3 * size :] * np.tanh(cell), cell


def _turned(x: Float, cosine: Float, sine: Float) -> Float:
    """(B, H, D, T) with the first channels of each head turned by position, half against half."""
    half = len(cosine)
    first, second = x[:, :, :half], x[:, :, half : 2 * half]
    return np.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine, x[:, :, 2 * half :]], axis=2
    )


def _unfold(clip: Float, start: int, count: int, kernel: int, stride: int, dilation: int) -> Float:
    """(C, T) -> (C * kernel, count): column n holds the samples that output `start / stride + n` sees."""
    channels, _ = clip.shape
    row, step = clip.strides
    view = as_strided(
        clip[:, start:],
        (channels, kernel, count),
        (row, step * dilation, step * stride),
        writeable=False,
    )
    return view.reshape(channels * kernel, count)


def _normalise(x: Float, axes: tuple[int, ...], eps: float) -> Float:
    centred: Float = x - x.mean(axis=axes, keepdims=True)
    variance: Float = np.mean(centred * centred, axis=axes, keepdims=True)
    normal: Float = centred / np.sqrt(variance + np.float32(eps))
    return normal


def erf(x: Float, inside: type[np.floating[Any]] = np.float64) -> Float:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26); in float32 inside to 4e-7, sooner."""
    size: NDArray[np.floating[Any]] = np.abs(x).astype(inside)
    t = size * 0.3275911  # from here on in place: in a step of MusicGen memory is what takes time
    t += 1
    np.divide(1, t, out=t)
    y = t * 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        y += coefficient
        y *= t
    size *= size
    np.negative(size, out=size)
    y *= np.exp(size, out=size)
    np.subtract(1, y, out=y)
    np.copysign(y, x, out=y)
    return y.astype(np.float32, copy=False)
