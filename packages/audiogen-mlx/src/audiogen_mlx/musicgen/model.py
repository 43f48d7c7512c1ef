"""MusicGen's transformer (arXiv 2306.05284): tokens of all codebooks at once to logits of the next ones.

Pre-norm blocks without biases; sinusoidal positions; text attended to, or before the music as a prefix.

On a CPU a step is bound by reading the weights, which mlx's BLAS copies before it multiplies. So there the
steps of a run that has few rows go through numpy: the same blocks, whose leaves (`Linear`, `Norm`, `attend`,
the activation) take arrays of either kind.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.nn.layers import linear
from mlx.nn.layers.normalization import LayerNorm
from mlx.nn.layers.quantized import QuantizedLinear

from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_mlx import cpu
from audiogen_mlx.nn import Module, gelu

EPS = 1e-5

Array: TypeAlias = Any
"""Of mlx, or of numpy in the steps that go through numpy."""

Mask: TypeAlias = Array | str | None
"""True where a key is seen, (R, 1, S, n) or (R, 1, 1, n); "causal"; or None: all are."""

Text: TypeAlias = tuple[Array, Array]
"""The keys and values (rows, heads, L, head width) of a text in one layer."""


@dataclass
class Run:
    """A run in progress: its rows, its cache, the text in every layer, and the mask of the text.

    host  its steps go through numpy, and so cache, text and mask are arrays of numpy
    """

    rows: Rows
    cache: Cache
    text: list[Text]
    mask: Array | None
    host: bool

    def close(self) -> None:
        """Let go of all keys and values; the run cannot go on."""
        self.cache.layers.clear()
        self.text.clear()


class Transformer(Module):
    """The network. `run` begins a run; a call goes on with it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        books, size = config.codebooks, config.codebook_size
        # One table for all codebooks, one after the other, each with the special token as its last row.
        self.embeddings = mx.zeros((books * (size + 1), config.width))
        self.heads = Linear(config.width, books * size, bias=False)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.norm = Norm(config.width, EPS)
        if config.text_projected:
            self.text = Linear(config.text_width, config.width)
        if config.chroma is not None:
            self.melody = Linear(config.chroma.bins, config.width)
        # Names that begin with _ are no parameters.
        self._starts = mx.arange(books)[:, None] * (size + 1)
        self._positions = mx.zeros((0, config.width))

    @property
    def dtype(self) -> mx.Dtype:
        return self.embeddings.dtype

    def run(self, rows: Rows, steps: int) -> Run:
        """Begin a run of at most `steps` steps of tokens."""
        length = steps if rows.prefix is None else rows.prefix.shape[1] + steps
        plain = self.dtype == mx.float32 and not isinstance(self.heads, QuantizedLinear)
        bound = self.config.width * self.config.hidden >= cpu.WORTH_ROWS  # small ones stay in the cache
        host = plain and bound and cpu.here() and rows.count <= cpu.MOST_ROWS
        cache = Cache(self.config, rows.count, length, None if host else self.dtype, rows.fill)
        text = []
        if rows.text is not None and not self.config.text_in_prefix:
            vectors = mx.array(rows.text).astype(self.dtype)
            text = [block.cross.remember(vectors) for block in self.blocks]
        mask: Array | None = (
            None if rows.mask is None else mx.array(rows.mask)[:, None, None, :]
        )  # (A, 1, 1, L)
        mx.eval(text, mask)
        if host:
            text = [(np.array(keys), np.array(values)) for keys, values in text]
            mask = None if mask is None else np.array(mask)
        else:
            mx.eval(cache.arrays)
        if length > self._positions.shape[0]:  # in whole thousands
            table = positions(-(-length // 1024) * 1024, self.config.width, self.config.clock)
            self._positions = mx.array(table).astype(self.dtype)
            mx.eval(self._positions)
        return Run(rows, cache, text, mask, host)

    def __call__(self, tokens: mx.array, run: Run, *, last: bool = False) -> mx.array:
        """Tokens (rows, K, S) -> logits of the tokens after each, (rows, K, S, N) in float32.

        With `last`, only of those after the last: (rows, K, 1, N). The first call of a run puts the prefix
        before the tokens.
        """
        count, books, steps = tokens.shape
        cache = run.cache
        x: Array = self.embed(tokens)
        if cache.offset == 0 and run.rows.prefix is not None:
            x = mx.concatenate([mx.array(run.rows.prefix).astype(self.dtype), x], axis=1)
        x = x + self._positions[cache.places(x.shape[1])]
        mask: Any = cache.mask(x.shape[1])
        if run.host and x.shape[1] == 1:
            x, mask = np.array(x), None if mask is None else np.array(mask)
        with np.errstate(all="ignore"):  # what is not finite is found in the logits
            for index, (block, layer) in enumerate(zip(self.blocks, cache.layers, strict=True)):
                text = run.text[index] if run.text else None
                x = block(x, layer, cache.offset, mask, text, run.mask)
            cache.offset += x.shape[1]
            x = x[:, -1:] if last else x[:, x.shape[1] - steps :]
            logits = mx.array(self.heads(self.norm(x))).astype(mx.float32)  # (R, S, K * N)
        laid = logits.reshape(count, x.shape[1], books, -1)
        turned: mx.array = laid.transpose(0, 2, 1, 3)
        return turned

    def embed(self, tokens: mx.array) -> mx.array:
        """Tokens (rows, K, S) -> the sums of their vectors (rows, S, D)."""
        return self.embeddings[tokens + self._starts].sum(axis=1)

    def project_text(self, vectors: mx.array) -> mx.array:
        """Vectors of the text encoder (..., text_width) -> (..., D)."""
        vectors = vectors.astype(self.dtype)
        return self.text(vectors) if self.config.text_projected else vectors

    def project_melody(self, features: mx.array) -> mx.array:
        """Features of a melody (..., bins) -> (..., D)."""
        projected: mx.array = self.melody(features.astype(self.dtype))
        return projected


class Block(Module):
    """One layer: attention to what came before, to the text where there is one, and a feed-forward part."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width
        self.attention_norm = Norm(width, EPS)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        if not config.text_in_prefix:
            self.cross = Cross(config)
        self.feed_norm = Norm(width, EPS)
        self.up = Linear(width, config.hidden, bias=False)
        self.down = Linear(config.hidden, width, bias=False)
        self.activate = _gelu if config.activation == "gelu" else _relu

    def __call__(
        self,
        x: Array,
        cache: LayerCache,
        start: int,
        mask: Mask,
        text: Text | None,
        text_mask: Array | None,
    ) -> Array:
        count, steps, _ = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(count, steps, 3, self.heads, -1)
        query, keys, values = qkv.transpose(2, 0, 3, 1, 4)  # (R, H, S, D) each
        x = x + self.out(attend(query, *cache.add(start, keys, values), mask))
        if text is not None:
            x = self.cross(x, text, text_mask)
        return x + self.down(self.activate(self.up(self.feed_norm(x))))


class Cross(Module):
    """Attention of the first rows to the text. A row with nothing to attend to gets exactly nothing."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = Norm(config.width, EPS)
        self.qkv = Linear(config.width, 3 * config.width, bias=False)
        self.out = Linear(config.width, config.width, bias=False)

    def remember(self, text: mx.array) -> Text:
        """Keys and values of text vectors (rows, L, width)."""
        count, length, width = text.shape
        # One matrix is stored: its first rows are for queries, at every step, the others for this alone.
        self._query = outputs(self.qkv, 0, width)
        pair = outputs(self.qkv, width, 3 * width)(text).reshape(count, length, 2, self.heads, -1)
        keys, values = pair.transpose(2, 0, 3, 1, 4)
        return mx.contiguous(keys), mx.contiguous(values)

    def __call__(self, x: Array, text: Text, mask: Array | None) -> Array:
        keys, values = text
        attending, steps = keys.shape[0], x.shape[1]
        asked = x[:attending]
        query = self._query(self.norm(asked)).reshape(attending, steps, self.heads, -1).transpose(0, 2, 1, 3)
        asked = asked + self.out(attend(query, keys, values, mask))
        if attending == x.shape[0]:
            return asked
        return (np if on_host(x) else mx).concatenate([asked, x[attending:]])


class Linear(linear.Linear):
    """x @ weight.T + bias."""

    def __call__(self, x: Array) -> Array:
        if on_host(x):
            product = cpu.product(x, np.asarray(self["weight"]))
            return product + np.asarray(self["bias"]) if "bias" in self else product
        if not cpu.here():
            y = x @ self["weight"].T
        elif x.dtype == mx.float32:
            y = cpu.small_product(x, self["weight"])
        else:
            y = cpu.half_product(x, self["weight"])
        return y + self["bias"] if "bias" in self else y


class Norm(LayerNorm):
    """Layer normalization."""

    def __call__(self, x: Array) -> Array:
        if on_host(x):
            weight, bias = (np.asarray(self[name]) for name in ("weight", "bias"))
            return cpu.layer_norm(x, weight, bias, self.eps)
        return super().__call__(x)  # type: ignore[no-untyped-call]


def on_host(x: Array) -> bool:
    """Whether this is an array of numpy."""
    return isinstance(x, np.ndarray)


def _gelu(x: Array) -> Array:
    return cpu.gelu(x) if on_host(x) else gelu(x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0) if on_host(x) else mx.maximum(x, 0)


def outputs(layer: Linear | QuantizedLinear, start: int, stop: int) -> Linear | QuantizedLinear:
    """Some outputs of a layer without a bias as a layer of their own, in the same memory."""
    part = copy(layer)
    part.update({name: array[start:stop] for name, array in layer.items() if isinstance(array, mx.array)})
    return part


def attend(query: Array, keys: Array, values: Array, mask: Any = None) -> Array:
    """Softmax attention: query (R, H, S, D), keys and values (R, H, n, D), a `Mask` -> (R, S, H * D)."""
    count, heads, steps, width = query.shape
    scale = width**-0.5
    y: Array
    if on_host(query):
        y = cpu.attention_of_one(query, keys, values, scale=scale, mask=mask)
    else:
        # Several positions of a run whose steps go through numpy find arrays of numpy.
        keys, values, mask = (mx.array(part) if on_host(part) else part for part in (keys, values, mask))
        if steps == 1 and not isinstance(mask, str) and cpu.here():  # rounded as in release 0.1.0
            scores = (keys @ (query * scale).swapaxes(-1, -2)).swapaxes(-1, -2)
            scores = scores if mask is None else mx.where(mask, scores, -mx.inf)
            y = cpu.softmax(scores, worth=cpu.WORTH_NUMPY) @ values
        else:
            y = mx.fast.scaled_dot_product_attention(query, keys, values, scale=scale, mask=mask)
    return y.transpose(0, 2, 1, 3).reshape(count, steps, heads * width)


class LayerCache:
    """Keys and values of one layer: (rows, heads, positions, head width), filled from the left.

    dtype  None: they are float32 arrays of numpy
    """

    def __init__(self, rows: int, heads: int, positions: int, width: int, dtype: mx.Dtype | None) -> None:
        shape = rows, heads, positions, width
        self.keys: Array = np.zeros(shape, np.float32) if dtype is None else mx.zeros(shape, dtype)
        self.values: Array = np.zeros(shape, np.float32) if dtype is None else mx.zeros(shape, dtype)

    def add(self, start: int, keys: Array, values: Array) -> tuple[Array, Array]:
        """Put in the keys and values of positions from `start` on; returns those of all positions so far."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


class Cache:
    """What a run remembers: keys and values of all positions in every layer, in memory laid out once.

    positions  of the whole run
    dtype      None: arrays of numpy
    fill       (rows,) positions at the beginning of each row that are nothing; None when there are none
    """

    def __init__(
        self,
        config: Config,
        rows: int,
        positions: int,
        dtype: mx.Dtype | None,
        fill: tuple[int, ...] | None = None,
    ) -> None:
        width = config.width // config.heads
        self.layers = [LayerCache(rows, config.heads, positions, width, dtype) for _ in range(config.layers)]
        self.offset = 0  # positions that are in it
        self.fill = fill if fill is not None and any(fill) else None

    @property
    def arrays(self) -> list[mx.array]:
        return [array for layer in self.layers for array in (layer.keys, layer.values)]

    def mask(self, steps: int) -> Mask:
        """What each of the next `steps` positions may see."""
        if self.fill is None:
            return "causal" if steps > 1 else None
        end = self.offset + steps
        keys = mx.arange(end)
        queries = mx.arange(self.offset, end)[:, None]
        real = keys[None, None, :] >= mx.array(self.fill)[:, None, None]  # (R, 1, end)
        seen = mx.logical_and(real, keys[None, :] <= queries)  # (R, steps, end)
        itself = keys[None, :] == queries
        return mx.logical_or(seen, itself)[:, None]  # what is nothing sees itself, so no row is empty

    def places(self, steps: int) -> mx.array:
        """The place in its own sequence of each of the next positions: (rows or 1, steps)."""
        places = mx.arange(self.offset, self.offset + steps)[None]
        if self.fill is None:
            return places
        return mx.maximum(places - mx.array(self.fill)[:, None], 0)
