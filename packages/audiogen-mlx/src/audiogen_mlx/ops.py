"""The codecs' verbs in mlx. Signals are float32 and lie channels last: (B, T, C).

Every verb is plain mlx and runs on Metal, CUDA and the CPU alike; there are no kernels of our own. On a
CPU some of them take another way to the same result, which is faster there (`MlxOps.on_cpu`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.ops import Attention, Float, Lstm, LstmLayer, PadMode
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_mlx import cpu, forks
from audiogen_mlx.nn import gelu, mean_over_time

Codebook: TypeAlias = tuple[mx.array, mx.array]  # the entries (N, D), half their squared lengths (N,)
LstmState: TypeAlias = list[tuple[mx.array, mx.array]]  # hidden and cell (B, H) of each layer


class _Weight:
    """A weight in the layout of the one layer it belongs to, made at its first use; the rest is let go."""

    def __init__(self, array: Float) -> None:
        self.shape: tuple[int, int, int] = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
        self.kernel = self.shape[2]
        self._array: Float | None = np.asarray(array, dtype=np.float32)
        self._laid_out: tuple[str, list[mx.array]] | None = None

    def _layout(self, use: str, make: Callable[[Float], list[Float]]) -> list[mx.array]:
        if self._laid_out is None:
            assert self._array is not None
            parts = [mx.array(np.ascontiguousarray(part)) for part in make(self._array)]
            self._laid_out, self._array = (use, parts), None
        if self._laid_out[0] != use:
            raise OptionError(f"this weight is laid out for {self._laid_out[0]} and cannot serve {use}")
        return self._laid_out[1]


class ConvWeight(_Weight):
    """The weight of a convolution, from (out, in, k)."""

    @property
    def plain(self) -> mx.array:
        """(out, k, in), as mlx has it."""
        return self._layout("mlx's convolution", lambda array: [array.transpose(0, 2, 1)])[0]

    def suits_taps(self, stride: int, dilation: int) -> bool:
        """Whether the products with all taps make fewer numbers than the input laid out for each tap."""
        outputs, inputs, kernel = self.shape
        if stride == 1:
            return kernel == 1 or outputs <= inputs
        return dilation == 1 and kernel % stride == 0 and outputs <= stride * inputs

    def taps(self, stride: int) -> list[mx.array]:
        """(stride * in, out) for each tap: what `stride` neighbouring steps add to an output."""
        outputs, inputs, kernel = self.shape

        def make(array: Float) -> list[Float]:
            folded = array.reshape(outputs, inputs, kernel // stride, stride).transpose(2, 3, 1, 0)
            return list(folded.reshape(-1, stride * inputs, outputs))

        return self._layout(f"taps of stride {stride}", make)


class TransposeWeight(_Weight):
    """The weight of a transposed convolution, from (in, out, k)."""

    def folded(self, stride: int) -> mx.array:
        """(stride * out, overlap, in): row r * out + o makes step r of output o in every group of steps."""
        inputs, outputs, kernel = self.shape
        overlap = -(-kernel // stride)  # how many inputs reach one output

        def make(array: Float) -> list[Float]:
            taps = np.zeros((inputs, outputs, overlap * stride), np.float32)
            taps[..., :kernel] = array
            newest_last = taps.reshape(inputs, outputs, overlap, stride)[:, :, ::-1]
            return [newest_last.transpose(3, 1, 2, 0).reshape(stride * outputs, overlap, inputs)]

        return self._layout(f"a transposed convolution of stride {stride}", make)[0]


class MlxOps:
    """The verbs of `audiogen_core.ops.Ops`, for mlx's default device at the time of construction.

    on_cpu  take the ways that are faster on a CPU; None means as the device asks for. They evaluate
            what they are given, so they do not go into `mx.compile`
    """

    name = "mlx"

    def __init__(self, *, on_cpu: bool | None = None) -> None:
        self.on_cpu = cpu.here() if on_cpu is None else on_cpu
        # On a CPU short chunks keep what a layer makes near the cache; elsewhere launches must pay off.
        self.chunk_seconds = 2.0 if self.on_cpu else 30.0

    def signal(self, array: Float) -> mx.array:
        forks.check()
        return mx.array(np.ascontiguousarray(array.transpose(0, 2, 1), dtype=np.float32))

    def numpy(self, signal: mx.array) -> Float:
        return np.array(signal, dtype=np.float32).transpose(0, 2, 1)

    def indices(self, array: NDArray[np.integer]) -> mx.array:
        forks.check()
        return mx.array(np.asarray(array, dtype=np.int32))

    def indices_numpy(self, indices: mx.array) -> NDArray[np.int64]:
        return np.array(indices).astype(np.int64)

    def length(self, signal: mx.array) -> int:
        return int(signal.shape[1])

    def vector(self, array: Float) -> mx.array:
        return mx.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))

    def conv_weight(self, array: Float) -> ConvWeight:
        return ConvWeight(array)

    def depthwise_weight(self, array: Float) -> mx.array:
        return mx.array(np.ascontiguousarray(array[:, 0].T, dtype=np.float32))  # (k, C)

    def conv_transpose_weight(self, array: Float) -> TransposeWeight:
        return TransposeWeight(array)

    def codebook(self, array: Float) -> Codebook:
        book = mx.array(np.ascontiguousarray(array, dtype=np.float32))
        return book, 0.5 * mx.sum(book * book, axis=1)

    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm:
        return cpu.HostLstm(layers) if self.on_cpu else MlxLstm(layers)

    def pad(self, x: mx.array, left: int, right: int, mode: PadMode = "constant") -> mx.array:
        if left == 0 and right == 0:
            return x
        if mode == "constant":
            return _zeros_around(x, left, right)
        length = x.shape[1]
        order = np.arange(-left, length + right)
        before, after = np.abs(order[:left]), 2 * (length - 1) - order[left + length :]
        parts = [x[:, mx.array(before)]] if left else []
        parts.append(x)
        if right:
            parts.append(x[:, mx.array(after)])
        return mx.concatenate(parts, axis=1)

    def trim(self, x: mx.array, left: int, right: int) -> mx.array:
        return x[:, left : x.shape[1] - right]

    def concat(self, parts: Sequence[mx.array]) -> mx.array:
        return parts[0] if len(parts) == 1 else mx.concatenate(list(parts), axis=1)

    def stack(self, parts: Sequence[mx.array]) -> mx.array:
        return mx.concatenate(list(parts), axis=2)

    def channels(self, x: mx.array, start: int, stop: int) -> mx.array:
        return x[..., start:stop]

    def fold(self, x: mx.array, size: int) -> mx.array:
        batch, steps, channels = x.shape
        return x.reshape(batch, steps // size, size * channels)

    def unfold(self, x: mx.array, size: int) -> mx.array:
        batch, steps, wide = x.shape
        return x.reshape(batch, steps * size, wide // size)

    def spread(self, vector: mx.array, x: mx.array) -> mx.array:
        return mx.broadcast_to(vector, (*x.shape[:2], len(vector)))

    def conv(
        self,
        x: mx.array,
        weight: ConvWeight,
        bias: mx.array | None = None,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> mx.array:
        if self.on_cpu and weight.suits_taps(stride, dilation):
            y = _conv_by_taps(x, weight, stride, dilation)
        else:
            y = mx.conv1d(x, weight.plain, stride=stride, dilation=dilation)
        return y if bias is None else y + bias

    def depthwise_conv(self, x: mx.array, weight: mx.array, bias: mx.array | None = None) -> mx.array:
        taps = weight.shape[0]
        frames = x.shape[1] - taps + 1
        y = x[:, :frames] * weight[0]
        for tap in range(1, taps):
            y = y + x[:, tap : tap + frames] * weight[tap]
        return y if bias is None else y + bias

    def conv_transpose(
        self, x: mx.array, weight: TransposeWeight, bias: mx.array | None = None, *, stride: int
    ) -> mx.array:
        """A plain convolution that makes `stride` steps at once: far faster than mlx's own on a CPU."""
        folded = weight.folded(stride)
        outputs, overlap, _ = folded.shape
        y = mx.conv1d(_zeros_around(x, overlap - 1, overlap - 1), folded)
        y = y.reshape(x.shape[0], -1, outputs // stride)[:, : (x.shape[1] - 1) * stride + weight.kernel]
        return y if bias is None else y + bias

    def spectrum(self, x: mx.array, window: NDArray[np.float64], hop: int) -> mx.array:
        if self.on_cpu:
            return self.signal(NumpyOps().spectrum(self.numpy(x), window, hop))
        starts = np.arange(0, x.shape[1] - len(window) + 1, hop)
        frames = x[:, mx.array(starts[:, None] + np.arange(len(window))), 0]  # (B, F, window)
        y = mx.fft.rfft(frames * mx.array(window.astype(np.float32)))
        return mx.concatenate([mx.real(y), mx.imag(y)], axis=-1)

    def elu(self, x: mx.array) -> mx.array:
        return cpu.blockwise(cpu.elu, x) if self.on_cpu else _elu(x)

    def gelu(self, x: mx.array) -> mx.array:
        return gelu(x)

    def tanh(self, x: mx.array) -> mx.array:
        return cpu.blockwise(cpu.tanh, x) if self.on_cpu else mx.tanh(x)

    def power(self, x: mx.array, exponent: float) -> mx.array:
        return mx.power(x, exponent)

    def snake(self, x: mx.array, alpha: mx.array, beta: mx.array | None = None) -> mx.array:
        beta = alpha if beta is None else beta
        if self.on_cpu:
            return cpu.blockwise(cpu.snake(np.array(alpha), np.array(beta)), x)
        return _snake(x, alpha, beta)

    def silu(self, x: mx.array) -> mx.array:
        return cpu.blockwise(cpu.silu, x) if self.on_cpu else x * mx.sigmoid(x)

    def sine(self, x: mx.array, rate: float) -> mx.array:
        return cpu.blockwise(cpu.sine(rate), x) if self.on_cpu else mx.sin(rate * x)

    def dynamic_tanh(self, x: mx.array, alpha: float, gamma: mx.array, beta: mx.array) -> mx.array:
        if self.on_cpu:
            return cpu.blockwise(cpu.dynamic_tanh(alpha, np.array(gamma), np.array(beta)), x)
        return _dynamic_tanh(x, mx.array(alpha), gamma, beta)

    def scale(self, x: mx.array, factor: mx.array) -> mx.array:
        return x * factor

    def group_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        centred = x - mx.mean(mean_over_time(x), axis=2, keepdims=True)
        variance = mx.mean(mean_over_time(mx.square(centred)), axis=2, keepdims=True)
        return centred * (mx.rsqrt(variance + eps) * weight) + bias

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, weight, bias, eps)

    def unit(self, x: mx.array) -> mx.array:
        return x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    def attention(self, query: mx.array, key: mx.array, value: mx.array, how: Attention) -> mx.array:
        batch, length, channels = query.shape
        size, missing = how.blocks(length)
        cosine, sine = (mx.array(table)[:, None] for table in how.rotary(length))  # (T, 1, turned / 2)
        half = how.turned // 2

        def headed(x: mx.array, turns: bool, around: tuple[int, int]) -> mx.array:
            """(B * blocks, H, steps of a block and those around it, D)."""
            x = x.reshape(batch, length, how.heads, -1)
            if turns:
                first, second, rest = mx.split(x, [half, 2 * half], axis=-1)
                x = mx.concatenate(
                    [first * cosine - second * sine, second * cosine + first * sine, rest], axis=-1
                )
            if any(around) or missing:
                x = mx.pad(x, [(0, 0), (around[0], around[1] + missing), (0, 0), (0, 0)])
            if any(around):
                starts = np.arange(0, length + missing, size)[:, None]
                x = x[:, mx.array(starts + np.arange(sum(around) + size))]
            return x.reshape(-1, sum(around) + size, *x.shape[-2:]).swapaxes(1, 2)

        hidden = how.hidden(length)
        bias = None if hidden is None else mx.array(np.tile(hidden, (batch, 1, 1)))[:, None]
        y = cpu.attention(
            headed(query, True, (0, 0)),
            headed(key, True, how.window),
            headed(value, False, how.window),
            scale=(channels // how.heads) ** -0.5,
            bias=bias,
        )
        return y.swapaxes(1, 2).reshape(batch, -1, channels)[:, :length]

    def nearest(self, x: mx.array, codebook: Codebook) -> mx.array:
        book, half_square = codebook
        return mx.argmax(x @ book.T - half_square, axis=-1)  # (B, F)

    def lookup(self, indices: mx.array, codebook: Codebook) -> mx.array:
        return codebook[0][indices]  # (B, F, D)


class MlxLstm:
    """A stack of LSTM layers over time; the state of the last step is returned for the next chunk.

    What the input adds to the gates is one product over all steps; only the recurrence is a loop.
    """

    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self.layers = [
            (
                mx.array(np.ascontiguousarray(layer.weight_ih.T, dtype=np.float32)),  # (I, 4H)
                mx.array(np.ascontiguousarray(layer.weight_hh.T, dtype=np.float32)),  # (H, 4H)
                mx.array(np.ascontiguousarray(layer.bias, dtype=np.float32)),
            )
            for layer in layers
        ]

    def __call__(self, x: mx.array, state: LstmState | None) -> tuple[mx.array, LstmState]:
        if state is None:
            zero = mx.zeros((x.shape[0], self.layers[0][1].shape[0]))
            state = [(zero, zero)] * len(self.layers)
        after = []
        for (weight_ih, weight_hh, bias), (hidden, cell) in zip(self.layers, state, strict=True):
            driven = x @ weight_ih + bias  # (B, T, 4H)
            steps = []
            for step in range(x.shape[1]):
                hidden, cell = _lstm_step(driven[:, step], hidden, cell, weight_hh)
                steps.append(hidden)
            x = mx.stack(steps, axis=1)
            mx.eval(x, cell)
            after.append((hidden, cell))
        return x, after


def _conv_by_taps(x: mx.array, weight: ConvWeight, stride: int, dilation: int) -> mx.array:
    """One product per tap, each added to what is there: the input is never laid out for each tap.

    Steps that one stride covers lie side by side as the channels of one step, without a copy.
    """
    batch, length, channels = x.shape
    reach = (weight.kernel - 1) * dilation
    frames = (length - reach - 1) // stride + 1
    folded = x[:, : (frames - 1) * stride + reach + 1].reshape(batch, -1, stride * channels)
    taps = weight.taps(stride)
    y = folded[:, :frames] @ taps[0]
    for tap in range(1, len(taps)):
        start = tap * dilation
        y = mx.addmm(y, folded[:, start : start + frames], taps[tap])
    return y


def _zeros_around(x: mx.array, left: int, right: int) -> mx.array:
    batch, _, channels = x.shape
    ends = [mx.zeros((batch, count, channels), x.dtype) for count in (left, right)]
    return mx.concatenate([ends[0], x, ends[1]], axis=1)


@mx.compile
def _lstm_step(
    drive: mx.array, hidden: mx.array, cell: mx.array, weight: mx.array
) -> tuple[mx.array, mx.array]:
    i, f, g, o = mx.split(drive + hidden @ weight, 4, axis=-1)
    cell = mx.sigmoid(f) * cell + mx.sigmoid(i) * mx.tanh(g)
    return mx.sigmoid(o) * mx.tanh(cell), cell


@partial(mx.compile, shapeless=True)
def _elu(x: mx.array) -> mx.array:
    return mx.where(x > 0, x, mx.expm1(mx.minimum(x, 0)))


@partial(mx.compile, shapeless=True)
def _dynamic_tanh(x: mx.array, alpha: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
    return mx.tanh(alpha * x) * gamma + beta


@partial(mx.compile, shapeless=True)
def _snake(x: mx.array, alpha: mx.array, beta: mx.array) -> mx.array:
    return x + mx.square(mx.sin(x * alpha)) / (beta + 1e-9)
