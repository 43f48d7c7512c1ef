"""What a layer that learns is made of, forward and back: over arrays of numpy on a CPU, of mlx elsewhere.

On a CPU mlx makes exponentials one at a time, and its gradients keep all that was on the way; numpy's are
worked out here by hand, in blocks that stay in the cache, and attention keeps none of its weights. All are
exact but for rounding. Signals have a row for each position of each clip, (B * S, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.nn.layers.quantized import QuantizedLinear
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_mlx import cpu
from audiogen_mlx.musicgen.model import EPS, attend, outputs
from audiogen_mlx.nn import gelu

Array: TypeAlias = Any
"""Of mlx, or of numpy."""

Span = tuple[int, int]
"""Outputs of a layer, from the first up to the last."""

ROWS = 64
"""Positions whose attention is worked out at a time."""


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

    def norm(self, layer: Any, x: Array) -> Array: ...

    def norm_back(self, layer: Any, x: Array, slope: Array) -> Array: ...

    def activate(self, x: Array, activation: str) -> Array: ...

    def activate_back(self, x: Array, slope: Array, activation: str) -> Array: ...

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> Array:
        """What is heard, (B * S, H * D)."""

    def attend_back(
        self, given: Heads, heard: Array, slope: Array, seen: Array | None, *, causal: bool
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
        return x @ self.weight(layer, span).T

    def product_back(self, layer: Any, slope: Array, span: Span) -> Array:
        return slope @ self.weight(layer, span)

    def norm(self, layer: Any, x: Array) -> Array:
        return cpu.layer_norm(x, self.array(layer.weight), self.array(layer.bias), EPS)

    def norm_back(self, layer: Any, x: Array, slope: Array) -> Array:
        return _norm_back(x, slope * self.array(layer.weight))

    def activate(self, x: Array, activation: str) -> Array:
        return cpu.in_parts(_gelu, x) if activation == "gelu" else np.maximum(x, 0)

    def activate_back(self, x: Array, slope: Array, activation: str) -> Array:
        return cpu.in_parts(_gelu_back, x, slope) if activation == "gelu" else slope * (x > 0)

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> Array:
        query, keys, values = given
        count, steps, heads, width = query.shape
        out = np.empty((count, steps, heads * width), np.float32)
        laid = out.reshape(query.shape)
        for item, start, stop, end in _blocks(query, keys, causal):
            weights = _weights(
                query[item, start:stop], keys[item, :end], None if seen is None else seen[item], causal
            )
            laid[item, start:stop] = (weights @ _by_head(values[item, :end])).transpose(1, 0, 2)
        return out.reshape(count * steps, -1)

    def attend_back(
        self, given: Heads, heard: Array, slope: Array, seen: Array | None, *, causal: bool
    ) -> list[Array]:
        query, keys, values = given
        heard, slope = heard.reshape(query.shape), slope.reshape(query.shape)
        scale = np.float32(query.shape[3] ** -0.5)
        of_query, of_keys, of_values = (np.zeros(each.shape, np.float32) for each in given)
        for item, start, stop, end in _blocks(query, keys, causal):
            asked, back = query[item, start:stop], _by_head(slope[item, start:stop])  # back: (H, r, D)
            weights = _weights(asked, keys[item, :end], None if seen is None else seen[item], causal)
            of_values[item, :end] += (weights.swapaxes(1, 2) @ back).transpose(1, 0, 2)
            scores = back @ _by_head(values[item, :end]).swapaxes(1, 2)
            scores -= (back * _by_head(heard[item, start:stop])).sum(axis=2, keepdims=True)
            scores *= weights
            scores *= scale
            of_query[item, start:stop] = (scores @ _by_head(keys[item, :end])).transpose(1, 0, 2)
            of_keys[item, :end] += (scores.swapaxes(1, 2) @ _by_head(asked)).transpose(1, 0, 2)
        return [of_query, of_keys, of_values]

    def cross_entropy(self, said: Array, targets: NDArray[np.int32]) -> tuple[float, Array]:
        said -= said.max(axis=2, keepdims=True)
        share, places = _shares(targets), np.maximum(targets, 0)[..., None]
        chosen = np.take_along_axis(said, places, axis=2)
        np.exp(said, out=said)
        total = said.sum(axis=2, keepdims=True)
        loss = float(((np.log(total) - chosen)[..., 0] * share).sum(dtype=np.float64))
        said /= total
        np.put_along_axis(said, places, np.take_along_axis(said, places, axis=2) - 1, axis=2)
        said *= share[..., None]
        return loss, said

    def join(self, parts: list[Array], axis: int = -1) -> Array:
        return np.concatenate(parts, axis=axis)

    def put(self, whole: Array, span: Span, part: Array) -> None:
        whole[:, span[0] : span[1]] = part

    def settle(self, *arrays: Array) -> None:
        return None


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

    def norm(self, layer: Any, x: Array) -> Array:
        return mx.fast.layer_norm(x, layer.weight, layer.bias, EPS)

    def norm_back(self, layer: Any, x: Array, slope: Array) -> Array:
        return _norm_back(x.astype(mx.float32), (slope * layer.weight).astype(mx.float32)).astype(x.dtype)

    def activate(self, x: Array, activation: str) -> Array:
        return gelu(x) if activation == "gelu" else mx.maximum(x, 0)

    def activate_back(self, x: Array, slope: Array, activation: str) -> Array:
        if activation != "gelu":
            return slope * (x > 0)
        share = 0.5 * (1 + mx.erf(x * math.sqrt(0.5)))
        return slope * (share + x * mx.exp(-0.5 * x * x) * _AT_ZERO)

    def attend(self, given: Heads, seen: Array | None, *, causal: bool) -> Array:
        made = self._attend(given, seen, causal)
        return made.reshape(-1, made.shape[-1])

    def attend_back(
        self, given: Heads, heard: Array, slope: Array, seen: Array | None, *, causal: bool
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


def _shares(targets: NDArray[np.int32]) -> NDArray[np.float32]:
    """How much each target counts in the loss."""
    counted = targets >= 0
    counts = counted.sum(axis=0)
    shares: NDArray[np.float64] = counted / np.maximum(counts, 1) / max(1, (counts > 0).sum())
    return shares.astype(np.float32)


_AT_ZERO = 1 / math.sqrt(2 * math.pi)
"""The density of the normal distribution there."""


def _norm_back(x: Array, slope: Array) -> Array:
    """Through the normalising of rows x, from the gradient of what came of it; over arrays of either kind."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = ((centred * centred).mean(axis=-1, keepdims=True) + EPS) ** -0.5
    normal = centred * inverse
    along = (slope * normal).mean(axis=-1, keepdims=True)
    return (slope - slope.mean(axis=-1, keepdims=True) - normal * along) * inverse


def _by_head(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, H, D) -> (H, n, D), where it lies."""
    return x.transpose(1, 0, 2)


def _blocks(query: Array, keys: Array, causal: bool) -> list[tuple[int, int, int, int]]:
    """Clip, first and last position, and how many keys those see, of every block of positions."""
    count, steps = query.shape[:2]
    starts = range(0, steps, ROWS)
    return [
        (item, start, stop, stop if causal else keys.shape[1])
        for item in range(count)
        for start in starts
        for stop in (min(start + ROWS, steps),)
    ]


def _weights(query: Array, keys: Array, seen: Array | None, causal: bool) -> Array:
    """How much each position (r, H, D) attends to each key (n, H, D): (H, r, n). The last keys are theirs."""
    scale = np.float32(query.shape[2] ** -0.5)
    weights = _by_head(query * scale) @ keys.transpose(1, 2, 0)
    if seen is not None:
        weights[:, :, ~seen[: keys.shape[0]]] = -np.inf
    if causal:
        rows = query.shape[0]
        weights[:, :, -rows:] += np.triu(np.full((rows, rows), -np.inf, np.float32), 1)
    weights -= weights.max(axis=2, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=2, keepdims=True)
    return weights


def _gelu(out: Array, x: Array) -> None:
    share, _ = _normal(x)
    np.multiply(x, share, out=out)


def _gelu_back(out: Array, x: Array, slope: Array) -> None:
    share, density = _normal(x)
    density *= np.float32(_AT_ZERO)
    density *= x
    share += density
    np.multiply(slope, share, out=out)


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
