"""What numpy does faster on a CPU than mlx, whose results it gives.

mlx's CPU backend computes exponentials and sines one number at a time on x86: 12 to 17 ns each, where numpy
takes 0.5 ns; it asks the BLAS for a product of two matrices where one has few rows, and that copies the other
first, and with several threads waits by spinning. Memory of an mlx array on a CPU is shared with numpy on the
way there and copied once on the way back.

Functions that leave mlx evaluate what they are given, so they are not for `mx.compile` there.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from queue import SimpleQueue
from threading import Thread, local
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.ops import Lstm, LstmLayer
from audiogen_core.ops.numpy_ops import NumpyOps, erf
from audiogen_mlx import blas

Floats = NDArray[np.float32]
Rows = Callable[..., None]
"""Writes into its first argument (rows, channels) what it makes of the same rows of the others."""

BLOCK = 1 << 16
"""Numbers worked on at a time, so that every pass but the first finds them in the cache."""

CACHED = 1 << 14
"""Numbers of a matrix that are multiplied with one row after the other."""

UNCOPIED = 1 << 19
"""Multiplications up to which OpenBLAS's kernels for AVX-512 read both matrices where they lie, and give a
row the same numbers in any company (the limit is 1,000,000; close to it neither holds for narrow ones)."""

AVX512 = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
"""What OpenBLAS calls processors for which it has such kernels, AMD's too."""

PART = 1 << 16
"""Numbers of a matrix that a thread takes at least: reading them takes as long as waking it."""

WORTH_ROWS = 1 << 20
"""Numbers of a layer's largest matrix from which on steps are bound by memory."""

RELEASED = 512
"""Numbers a product of numpy must give to let other threads run meanwhile."""

MOST_ROWS = 8
"""Up to here a step is bound by reading matrices."""

WORTH_NUMPY = 4_096
"""Exponentials from which on leaving mlx in the middle of a step pays off."""

LARGE = 1 << 25
"""Bytes from which on memory is the system's at once, in `keep_memory`: the most that all glibc allow."""

_own = local()


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


def in_parts(function: Rows, *arrays: Floats) -> Floats:
    """`function` over some rows at a time of arrays of numpy (rows, width), by all threads."""
    out: Floats = np.empty(arrays[0].shape, np.float32)

    def some(start: int, stop: int) -> None:
        function(out[start:stop], *(array[start:stop] for array in arrays))

    shared(some, len(out), max(BLOCK // max(out.shape[-1], 1), 1))
    return out


# Functions of each number


def elu(out: Floats, x: Floats) -> None:
    np.minimum(x, 0, out=out)
    np.exp(out, out=out)
    out -= 1
    out += np.maximum(x, 0)


def tanh(out: Floats, x: Floats) -> None:
    np.tanh(x, out=out)


def silu(out: Floats, x: Floats) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.divide(x, out, out=out)


def sine(rate: float) -> Rows:
    """The sine of a multiple."""

    def function(out: Floats, x: Floats) -> None:
        np.multiply(x, np.float32(rate), out=out)
        np.sin(out, out=out)

    return function


def dynamic_tanh(alpha: float, gamma: Floats, beta: Floats) -> Rows:
    """The function for these channels."""

    def function(out: Floats, x: Floats) -> None:
        np.multiply(x, np.float32(alpha), out=out)
        np.tanh(out, out=out)
        out *= gamma
        out += beta

    return function


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
    silu(out, gate)
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

    bias  added to scores, of a shape that fits (B, heads, L, S), or None
    """
    if not applies(query, key, value):
        return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=bias)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (mx.repeat(part, shared, axis=1) for part in (key, value))
    scores = (query * scale) @ key.swapaxes(-1, -2)  # (B, H, L, S)
    return softmax(scores if bias is None else scores + bias) @ value


# One step of a decoder: arrays of numpy, few rows, bound by reading matrices from memory


def attention_of_one(
    query: Floats, keys: Floats, values: Floats, *, scale: float, mask: NDArray[np.bool_] | None = None
) -> Floats:
    """Attention of one position: query (R, H, 1, D), keys and values (R, H, n, D) -> (R, H, 1, D).

    mask  true where a key is seen, (R, 1, 1, n); None: all are
    """
    out = np.empty(query.shape, np.float32)
    asked = (query * np.float32(scale)).swapaxes(-1, -2)  # (R, H, D, 1): the keys are read as they lie

    def some(start: int, stop: int) -> None:
        scores = np.matmul(keys[:, start:stop], asked[:, start:stop]).swapaxes(-1, -2)  # (R, heads, 1, n)
        if mask is not None:
            scores[~np.broadcast_to(mask, scores.shape)] = -np.inf
        _softmax(scores, scores)
        np.matmul(scores, values[:, start:stop], out=out[:, start:stop])

    heads = keys.shape[1]
    shared(some, heads, max(1, heads * PART // (keys.size + values.size)))
    return out


def product(x: Floats, weight: Floats) -> Floats:
    """x (..., in) @ weight (out, in).T, for few rows: each weight comes from memory once.

    What a number is does not depend on how many rows there are, nor on threads; the way is chosen by the
    processor, not by measuring, so that a clip made again has the same bytes.
    """
    inputs = weight.shape[1]
    rows = x.reshape(-1, inputs)
    return (_in_blocks if _reads_in_place() else _row_by_row)(rows, weight).reshape(*x.shape[:-1], -1)


@cache
def _reads_in_place() -> bool:
    """Whether numpy's BLAS multiplies small matrices without copying them first."""
    from threadpoolctl import threadpool_info

    return any(
        each["internal_api"] == "openblas" and "numpy" in each["filepath"] and each["architecture"] in AVX512
        for each in threadpool_info()
    )


def _in_blocks(rows: Floats, weight: Floats) -> Floats:
    """Blocks of the matrix so small that they are not copied: this keeps up with memory."""
    outputs, inputs = weight.shape
    count = len(rows)
    if count == 1:  # numpy has another kernel for a vector, which rounds otherwise
        rows = np.concatenate([rows, rows])
    most = min(UNCOPIED // len(rows), PART) // inputs
    size = math.gcd(outputs, 1 << max(0, most.bit_length() - 1))
    blocks = weight.reshape(-1, size, inputs).swapaxes(-1, -2)
    out = np.empty((len(rows), outputs), np.float32)
    y = out.reshape(len(rows), -1, size).swapaxes(0, 1)

    def some(start: int, stop: int) -> None:
        np.matmul(rows, blocks[start:stop], out=y[start:stop])

    part = max(PART // inputs, -(-RELEASED // len(rows)))
    shared(some, len(blocks), -(-part // size))
    return out[:count]


def _row_by_row(rows: Floats, weight: Floats) -> Floats:
    """A block of the matrix multiplied with one row after the other while it is in the cache.

    For processors on which a product of two matrices copies both before it begins; one of a matrix and a
    vector does not.
    """
    outputs, inputs = weight.shape
    size = math.gcd(outputs, 1 << max(0, (CACHED // inputs).bit_length() - 1))
    blocks = weight.reshape(-1, 1, size, inputs)
    y = np.empty((len(blocks), len(rows), size, 1), np.float32)  # in this order numpy goes through them

    def some(start: int, stop: int) -> None:
        np.matmul(blocks[start:stop], rows[None, :, :, None], out=y[start:stop])

    part = max(PART // inputs, -(-RELEASED // len(rows)))
    shared(some, len(blocks), -(-part // size))
    return y.swapaxes(0, 1).reshape(len(rows), outputs)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Over the last axis."""
    width = np.float32(x.shape[-1])
    mean: Any = np.add.reduce(x, axis=-1, keepdims=True) / width
    y: Floats = x - mean
    variance: Any = np.add.reduce(y * y, axis=-1, keepdims=True) / width
    y /= np.sqrt(variance + np.float32(eps))
    y *= weight
    y += bias
    return y


def gelu(x: Floats) -> Floats:
    """The exact GELU."""
    y: Floats = erf(x * np.float32(math.sqrt(0.5)), np.float32)
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def shared(work: Callable[[int, int], None], count: int, step: int) -> None:
    """`work(start, stop)` on all parts of a range, `step` long, by this thread and those that are idle.

    Each takes the next part when it has done one. So a thread that is late, or that waits for a processor,
    holds up one part at most, and nobody waits for a thread that has not begun.
    """
    starts = iter(range(0, count, step))
    parts = -(-count // step)
    done: SimpleQueue[int | MemoryError] = SimpleQueue()

    def take() -> None:
        taken = 0
        try:
            for start in starts:
                work(start, min(start + step, count))
                taken += 1
        except MemoryError as error:
            done.put(error)
        else:
            done.put(taken)

    threads = blas.threads()
    inbox = _inbox(threads - 1)
    for _ in range(min(threads, parts) - 1):
        inbox.put(take)
    take()
    while parts:
        ended = done.get()
        if isinstance(ended, MemoryError):
            raise ended
        parts -= ended


@cache
def _inbox(helpers: int) -> SimpleQueue[Callable[[], None]]:
    """Where so many other threads look for work; they sleep when there is none."""
    inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def help_out() -> None:
        with np.errstate(all="ignore"):  # each thread has its own
            while True:
                inbox.get()()

    for _ in range(helpers):
        Thread(target=help_out, name="audiogen-step", daemon=True).start()
    return inbox


def keep_memory(keep: bool) -> None:
    """Whether memory that is freed stays with this process, so that it need not be cleared to be had again.

    For work that takes and frees the same over and over: of an update's seconds, clearing takes a seventh.
    Without, what is free now is given back, and so is what will be, but for a little. Nothing changes where
    the C library is not GNU's.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return
    trim_threshold, mmap_threshold = -1, -3  # by their numbers in malloc.h
    library.mallopt(trim_threshold, -1 if keep else 2 * LARGE)
    library.mallopt(mmap_threshold, LARGE)
    if not keep:
        library.malloc_trim(0)


def small_product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T in blocks, which round as release 0.1.0 did."""
    outputs, inputs = weight.shape
    rows = x.size // inputs
    fits = (
        size for size in (256, 128, 64, 32, 16) if rows * size * inputs <= 1_000_000 and outputs % size == 0
    )
    size = next(fits, 0)
    if not size:
        return x @ weight.T
    y = x.reshape(1, rows, inputs) @ weight.reshape(-1, size, inputs).swapaxes(-1, -2)
    return y.transpose(1, 0, 2).reshape(*x.shape[:-1], outputs)


def half_product(x: mx.array, weight: mx.array) -> mx.array:
    """x (..., in) @ weight (out, in).T in half precision, which mlx multiplies with one thread per stream."""
    streams = _streams()
    cuts = [len(weight) * index // len(streams) for index in range(len(streams) + 1)]
    parts = [
        mx.matmul(x, weight[start:stop].T, stream=stream)
        for stream, start, stop in zip(streams, cuts, cuts[1:], strict=False)
    ]
    return mx.concatenate(parts, axis=-1)


def _streams() -> Sequence[mx.Stream]:
    """One for each thread that may compute; each thread of the program has its own."""
    if len(getattr(_own, "streams", ())) != blas.threads():
        _own.streams = [mx.new_stream(mx.Device(mx.cpu)) for _ in range(blas.threads())]
    streams: Sequence[mx.Stream] = _own.streams
    return streams


class HostLstm:
    """Core's LSTM in numpy, on signals (B, T, C) of mlx."""

    def __init__(self, layers: Sequence[LstmLayer]) -> None:
        self._lstm: Lstm = NumpyOps().lstm(layers)

    def __call__(self, x: mx.array, state: Any) -> tuple[mx.array, Any]:
        y, after = self._lstm(np.array(x, copy=False).transpose(0, 2, 1), state)
        return mx.array(np.ascontiguousarray(y.transpose(0, 2, 1))), after
