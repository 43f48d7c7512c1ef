"""What a layer that learns is made of, forward and back: over arrays of numpy on a CPU, of mlx elsewhere.

On a CPU mlx makes exponentials one at a time, and its gradients keep all that was on the way; numpy's are
worked out here by hand, in parts that stay in the cache and that threads share, and attention keeps none of
its weights. All are exact but for rounding, which no number of threads changes. Signals have a row for each
position of each clip, (B * S, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Protocol, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.nn.layers.quantized import QuantizedLinear
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from audiogen_core.errors import OptionError
from audiogen_mlx import blas, cpu
from audiogen_mlx.musicgen.model import EPS, attend, outputs
from audiogen_mlx.nn import gelu

Array: TypeAlias = Any
"""Of mlx, or of numpy."""

Span = tuple[int, int]
"""Outputs of a layer, from the first up to the last."""

ROWS = 64
"""Positions whose attention is worked out at a time."""

WEIGHTS = 1 << 17
"""Weights of attention that are worked out at a time."""

COLUMNS = 2048
"""Of a product's outputs, those that a thread works out at a time, or fewer, so that all have some."""

HEIGHT = 256
"""Rows of a product with a narrow matrix that a thread works out at a time."""


Heads = Sequence[Array]
"""Query (B, S, H, D), keys and values (B, n, H, D)."""


class Kind(Protocol):
    """What computes. `seen` is (B, n), true where a key is real, or None: all are."""

    def array(self, given: Any) -> Array:
        """An array of either kind as one of this, with its numbers as it computes with them; None is None."""

    def exact(self, given: Any) -> Array:
        """In float32."""

    def product(self, layer: Any, x: Array, span: Span) -> Array:
        """x by some rows of the layer's matrix: (rows, in) -> (rows, span)."""

    def product_back(self, layer: Any, slope: Array, span: Span) -> Array:
        """The gradient of what went in, from that of these outputs."""

    def weight(self, layer: Any, span: Span) -> Array:
        """Rows of the layer's matrix, float32. Raises OptionError where it is quantised."""

    def narrow(self, x: Array, matrix: Array) -> Array:
        """x @ matrix, where one side of it is short."""

    def add(self, whole: Array, span: Span, x: Array, matrix: Array) -> None:
        """Add x @ matrix, where x is narrow, to some columns."""

    def norm(self, layer: Any, x: Array) -> tuple[Array, Array]:
        """x normalised, and of this what the way back needs."""

    def normed(self, layer: Any, kept: Array) -> Array:
        """x normalised, once more."""

    def norm_back(self, layer: Any, kept: Array, slope: Array) -> Array:
        """The gradient of x, from that of what came of it."""

    def activate(self, x: Array, activation: str) -> Array: ...

    def activated(self, x: Array, activation: str) -> tuple[Array, Array]:
        """What comes of x, and how steep it is there."""

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> tuple[Array, Array]:
        """What is heard, (B * S, H * D), and of this what the way back needs."""

    def attend_back(
        self, given: Heads, kept: Array, slope: Array, seen: Array | None, *, causal: bool
    ) -> list[Array]:
        """The gradients of query, keys and values, in their shapes, from that of what was heard."""

    def cross_entropy(self, said: Array, targets: NDArray[np.int32]) -> tuple[float, Array]:
        """The loss of logits (rows, K, N), which may be written over, and its gradient of them.

        targets  (rows, K), below 0 where there is none

        The mean over each codebook's targets, then over those codebooks that have some.
        """

    def join(self, parts: list[Array], axis: int = -1) -> Array: ...

    def put(self, whole: Array, span: Span, part: Array) -> None:
        """Write over some columns."""

    def settle(self, *arrays: Array) -> None:
        """Have it worked out now, and forget how."""

    def threads(self) -> AbstractContextManager[Any]:
        """Let threads be shared as this kind shares them, as long as the block lasts."""


class Host:
    """numpy, in float32; weights that are kept in half of that are widened where they are used."""

    def array(self, given: Any) -> Array:
        if isinstance(given, mx.array):
            given = np.array(given if given.dtype == mx.float32 else given.astype(mx.float32), copy=False)
        return given

    def weight(self, layer: Any, span: Span) -> Array:
        whole = layer.weight  # what is kept in half is not widened all at once
        if whole.dtype != mx.float32:
            whole, span = whole[span[0] : span[1]], (0, span[1] - span[0])
        return self.array(whole)[span[0] : span[1]]

    exact = array

    def product(self, layer: Any, x: Array, span: Span) -> Array:
        return _multiplied(x, self.weight(layer, span).T)

    def product_back(self, layer: Any, slope: Array, span: Span) -> Array:
        return _multiplied(slope, self.weight(layer, span))

    def narrow(self, x: Array, matrix: Array) -> Array:
        out = np.empty((len(x), matrix.shape[1]), np.float32)

        def some(start: int, stop: int) -> None:
            np.matmul(x[start:stop], matrix, out=out[start:stop])

        cpu.shared(some, len(x), HEIGHT)
        return out

    def add(self, whole: Array, span: Span, x: Array, matrix: Array) -> None:
        def some(start: int, stop: int) -> None:
            whole[start:stop, span[0] : span[1]] += x[start:stop] @ matrix

        cpu.shared(some, len(x), HEIGHT)

    def norm(self, layer: Any, x: Array) -> tuple[Array, Array]:
        weight, bias, width = self.array(layer.weight), self.array(layer.bias), np.float32(x.shape[1])
        normal, inverse = np.empty_like(x), np.empty((len(x), 1), np.float32)

        def some(out: Array, x: Array, normal: Array, inverse: Array) -> None:
            np.subtract(x, np.add.reduce(x, axis=1, keepdims=True) / width, out=normal)
            squares = np.einsum("ij,ij->i", normal, normal)[:, None]
            inverse[:] = 1 / np.sqrt(squares / width + np.float32(EPS))
            normal *= inverse
            np.multiply(normal, weight, out=out)
            out += bias

        return cpu.in_parts(some, x, normal, inverse), (normal, inverse)

    def normed(self, layer: Any, kept: Array) -> Array:
        weight, bias = self.array(layer.weight), self.array(layer.bias)

        def some(out: Array, normal: Array) -> None:
            np.multiply(normal, weight, out=out)
            out += bias

        return cpu.in_parts(some, kept[0])

    def norm_back(self, layer: Any, kept: Array, slope: Array) -> Array:
        weight, width = self.array(layer.weight), np.float32(slope.shape[1])

        def some(out: Array, slope: Array, normal: Array, inverse: Array) -> None:
            np.multiply(slope, weight, out=out)
            along = np.einsum("ij,ij->i", out, normal)[:, None] / width
            out -= np.add.reduce(out, axis=1, keepdims=True) / width
            out -= normal * along
            out *= inverse

        return cpu.in_parts(some, slope, *kept)

    def activate(self, x: Array, activation: str) -> Array:
        return cpu.in_parts(_gelu, x) if activation == "gelu" else np.maximum(x, 0)

    def activated(self, x: Array, activation: str) -> tuple[Array, Array]:
        if activation != "gelu":
            return np.maximum(x, 0), np.float32(x > 0)
        steep = np.empty_like(x)

        def some(out: Array, x: Array, steep: Array) -> None:
            share, density = _normal(x)
            np.multiply(x, share, out=out)
            density *= np.float32(_AT_ZERO)
            density *= x
            np.add(share, density, out=steep)

        return cpu.in_parts(some, x, steep), steep

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> tuple[Array, Array]:
        out = np.empty(given[0].shape, np.float32)
        sums = np.empty((*out.shape[:3], 1), np.float32)  # logarithms of those of exp(scores)

        def some(item: int, own: slice) -> None:
            query, keys, values = (_by_head(part[item, :, own]) for part in given)
            laid, laid_sums = (_by_head(part[item, :, own]) for part in (out, sums))
            for start, stop, end in _blocks(query, keys, causal):
                weights = _scores(query[:, start:stop], keys[:, :end], _row(seen, item), causal)
                most = weights.max(axis=2, keepdims=True)
                weights -= most
                np.exp(weights, out=weights)
                total = weights.sum(axis=2, keepdims=True)
                laid[:, start:stop] = (weights @ values[:, :end]) / total
                laid_sums[:, start:stop] = np.log(total) + most

        _by_heads(some, given)
        return out.reshape(-1, out.shape[2] * out.shape[3]), (out, sums)

    def attend_back(
        self, given: Heads, kept: Array, slope: Array, seen: Array | None, *, causal: bool
    ) -> list[Array]:
        slope = slope.reshape(given[0].shape)
        scale = np.float32(given[0].shape[3] ** -0.5)
        found = [np.zeros(each.shape, np.float32) for each in given]

        def some(item: int, own: slice) -> None:
            query, keys, values, of_query, of_keys, of_values, heard, sums, back = (
                _by_head(part[item, :, own]) for part in (*given, *found, *kept, slope)
            )
            for start, stop, end in _blocks(query, keys, causal):
                asked, given_back = query[:, start:stop], back[:, start:stop]
                weights = _scores(asked, keys[:, :end], _row(seen, item), causal)
                weights -= sums[:, start:stop]
                np.exp(weights, out=weights)
                of_values[:, :end] += weights.swapaxes(1, 2) @ given_back
                scores = given_back @ values[:, :end].swapaxes(1, 2)
                scores -= (given_back * heard[:, start:stop]).sum(axis=2, keepdims=True)
                scores *= weights
                of_query[:, start:stop] = (scores @ keys[:, :end]) * scale
                of_keys[:, :end] += scores.swapaxes(1, 2) @ (asked * scale)

        _by_heads(some, given)
        return found

    def cross_entropy(self, said: Array, targets: NDArray[np.int32]) -> tuple[float, Array]:
        shares, places = _shares(targets), np.maximum(targets, 0)[..., None]
        losses = np.empty(shares.shape, np.float64)

        def some(start: int, stop: int) -> None:
            part, place, share = said[start:stop], places[start:stop], shares[start:stop]
            part -= part.max(axis=2, keepdims=True)
            chosen = np.take_along_axis(part, place, axis=2)
            np.exp(part, out=part)
            total = part.sum(axis=2, keepdims=True)
            losses[start:stop] = (np.log(total) - chosen)[..., 0] * share
            part /= total
            np.put_along_axis(part, place, np.take_along_axis(part, place, axis=2) - 1, axis=2)
            part *= share[..., None]

        cpu.shared(some, len(said), max(1, cpu.BLOCK // max(said[0].size, 1)))
        return float(losses.sum()), said

    def join(self, parts: list[Array], axis: int = -1) -> Array:
        return np.concatenate(parts, axis=axis)

    def put(self, whole: Array, span: Span, part: Array) -> None:
        whole[:, span[0] : span[1]] = part

    def settle(self, *arrays: Array) -> None:
        return None

    def threads(self) -> AbstractContextManager[Any]:
        limits: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
        return limits


class Device:
    """mlx, in the dtype of the network; quantised layers too."""

    def __init__(self, dtype: mx.Dtype) -> None:
        self.dtype = dtype

    def array(self, given: Any) -> Array:
        if given is None:
            return None
        made = mx.array(given)
        return made.astype(self.dtype) if mx.issubdtype(made.dtype, mx.floating) else made

    def exact(self, given: Any) -> Array:
        return mx.array(given).astype(mx.float32)

    def weight(self, layer: Any, span: Span) -> Array:
        if isinstance(layer, QuantizedLinear):
            raise OptionError("a DoRA cannot be learned beside quantised matrices")
        return layer.weight[span[0] : span[1]].astype(mx.float32)

    def product(self, layer: Any, x: Array, span: Span) -> Array:
        if isinstance(layer, QuantizedLinear):
            return outputs(layer, *span)(x)
        return x @ layer.weight[span[0] : span[1]].T

    def product_back(self, layer: Any, slope: Array, span: Span) -> Array:
        if not isinstance(layer, QuantizedLinear):
            return slope @ layer.weight[span[0] : span[1]]
        part = outputs(layer, *span)
        return mx.quantized_matmul(
            slope,
            part.weight,
            part.scales,
            part.biases,
            transpose=False,
            group_size=layer.group_size,
            bits=layer.bits,
        )

    def narrow(self, x: Array, matrix: Array) -> Array:
        return x @ matrix

    def add(self, whole: Array, span: Span, x: Array, matrix: Array) -> None:
        self.put(whole, span, whole[:, span[0] : span[1]] + x @ matrix)

    def norm(self, layer: Any, x: Array) -> tuple[Array, Array]:
        return self.normed(layer, x), x

    def normed(self, layer: Any, kept: Array) -> Array:
        return mx.fast.layer_norm(kept, layer.weight, layer.bias, EPS)

    def norm_back(self, layer: Any, kept: Array, slope: Array) -> Array:
        x, slope = kept.astype(mx.float32), (slope * layer.weight).astype(mx.float32)
        centred = x - x.mean(axis=-1, keepdims=True)
        inverse = ((centred * centred).mean(axis=-1, keepdims=True) + EPS) ** -0.5
        normal = centred * inverse
        along = (slope * normal).mean(axis=-1, keepdims=True)
        back = (slope - slope.mean(axis=-1, keepdims=True) - normal * along) * inverse
        return back.astype(kept.dtype)

    def activate(self, x: Array, activation: str) -> Array:
        return gelu(x) if activation == "gelu" else mx.maximum(x, 0)

    def activated(self, x: Array, activation: str) -> tuple[Array, Array]:
        if activation != "gelu":
            return mx.maximum(x, 0), (x > 0).astype(x.dtype)
        share = 0.5 * (1 + mx.erf(x * math.sqrt(0.5)))
        return gelu(x), share + x * mx.exp(-0.5 * x * x) * _AT_ZERO

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> tuple[Array, Array]:
        made = self._attend(given, seen, causal)
        return made.reshape(-1, made.shape[-1]), None

    def attend_back(
        self, given: Heads, kept: Array, slope: Array, seen: Array | None, *, causal: bool
    ) -> list[Array]:
        def attended(*parts: mx.array) -> mx.array:
            return self._attend(parts, seen, causal)

        laid = slope.reshape(*given[0].shape[:2], -1)
        _, slopes = mx.vjp(attended, list(given), [laid])
        return list(slopes)

    def _attend(self, given: Heads, seen: Array | None, causal: bool) -> mx.array:
        mask: Any = "causal" if causal else None
        if seen is not None:
            mask = seen[:, None, None, :]
            if causal:
                places = mx.arange(given[1].shape[1])
                mask = mx.logical_and(mask, places[None, :] <= places[:, None])
        query, keys, values = (part.transpose(0, 2, 1, 3) for part in given)
        heard: mx.array = attend(query, keys, values, mask)
        return heard

    def cross_entropy(self, said: Array, targets: NDArray[np.int32]) -> tuple[float, Array]:
        share, places = mx.array(_shares(targets)), mx.array(np.maximum(targets, 0))[..., None]

        def loss(said: mx.array) -> mx.array:
            chosen = mx.take_along_axis(said, places, axis=2)[..., 0]
            return ((mx.logsumexp(said, axis=2) - chosen) * share).sum()

        made, slope = mx.value_and_grad(loss)(said.astype(mx.float32))
        found: Any = made.item()
        return float(found), slope

    def join(self, parts: list[Array], axis: int = -1) -> Array:
        return mx.concatenate(parts, axis=axis)

    def put(self, whole: Array, span: Span, part: Array) -> None:
        whole[:, span[0] : span[1]] = part.astype(whole.dtype)

    def settle(self, *arrays: Array) -> None:
        mx.eval(arrays)

    def threads(self) -> AbstractContextManager[Any]:
        return nullcontext()


def _shares(targets: NDArray[np.int32]) -> NDArray[np.float32]:
    """How much each target counts in the loss."""
    counted = targets >= 0
    counts = counted.sum(axis=0)
    shares: NDArray[np.float64] = counted / np.maximum(counts, 1) / max(1, (counts > 0).sum())
    return shares.astype(np.float32)


_AT_ZERO = 1 / math.sqrt(2 * math.pi)
"""The density of the normal distribution there."""


@cache
def _libraries() -> ThreadpoolController:
    """Those whose threads can be told to be one: the threads here share what is to be done themselves."""
    return ThreadpoolController()


def _multiplied(x: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """x @ matrix, some columns at a time."""
    out = np.empty((len(x), matrix.shape[1]), np.float32)

    def some(start: int, stop: int) -> None:
        np.matmul(x, matrix[:, start:stop], out=out[:, start:stop])

    cpu.shared(some, matrix.shape[1], min(COLUMNS, -(-matrix.shape[1] // blas.threads())))
    return out


def _by_head(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, H, D) -> (H, n, D), where it lies."""
    return x.transpose(1, 0, 2)


def _by_heads(work: Callable[[int, slice], None], given: Heads) -> None:
    """`work(clip, heads)` on some heads of a clip at a time."""
    count, _, heads, _ = given[0].shape
    size = max(1, WEIGHTS // (ROWS * given[1].shape[1]))
    parts = [(item, slice(first, first + size)) for item in range(count) for first in range(0, heads, size)]

    def some(start: int, stop: int) -> None:
        for item, own in parts[start:stop]:
            work(item, own)

    cpu.shared(some, len(parts), 1)


def _row(seen: NDArray[np.bool_] | None, item: int) -> NDArray[np.bool_] | None:
    """Which keys of a clip are real, where not all are."""
    return None if seen is None or seen[item].all() else seen[item]


def _blocks(query: Array, keys: Array, causal: bool) -> Iterator[tuple[int, int, int]]:
    """First and last position of each block (H, S, D), and how many keys (H, n, D) it sees."""
    for start in range(0, query.shape[1], ROWS):
        stop = min(start + ROWS, query.shape[1])
        yield start, stop, stop if causal else keys.shape[1]


_LATER = np.triu(np.full((ROWS, ROWS), -np.inf, np.float32), 1)
"""Added to scores, so that no position attends to one after it."""


def _scores(query: Array, keys: Array, seen: Array | None, causal: bool) -> Array:
    """How well each position (H, r, D) fits each key (H, n, D): (H, r, n). The last keys are theirs."""
    scale = np.float32(query.shape[2] ** -0.5)
    scores = (query * scale) @ keys.swapaxes(1, 2)
    if seen is not None:
        scores[:, :, ~seen[: keys.shape[1]]] = -np.inf
    if causal:
        rows = query.shape[1]
        scores[:, :, -rows:] += _LATER[:rows, :rows]
    return scores


def _gelu(out: Array, x: Array) -> None:
    share, _ = _normal(x)
    np.multiply(x, share, out=out)


def _normal(x: Array) -> tuple[Array, Array]:
    """The normal distribution up to x, to 2e-7 (Abramowitz and Stegun, 7.1.26), and exp(-x * x / 2)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911 * math.sqrt(0.5)) * size)
    series = np.float32(1.061405429) * t
    for each in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += np.float32(each)
        series *= t
    density = np.exp(np.float32(-0.5) * (x * x))
    series *= density
    share = np.copysign(1 - series, x)
    share += 1
    share *= np.float32(0.5)
    return share, density
