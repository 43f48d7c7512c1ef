"""The transformer of a MusicGen: one step as a graph, what it attends to as another, and both in numpy.

The graph of a step keeps keys and values of all positions in memory that its caller owns: it is given as
`past_keys.i` and written to in place when `keys.i` is bound to the same memory. onnxruntime's
GroupQueryAttention does that, and sees of each row as many positions as `lengths` says, so that rows may
begin with prefixes of different lengths. It takes heads of multiples of 8, to which heads are filled up with
zeros; that changes no sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_core.ops import Float
from audiogen_onnx.exporter.musicgen.nodes import FLOAT, INT32, INT64, Nodes, Shape, graph
from audiogen_onnx.exporter.musicgen.numbers import BLOCK, FINE, stored
from audiogen_onnx.exporter.musicgen.source import Source
from audiogen_onnx.exporter.musicgen.text import activated, softmax
from audiogen_onnx.musicgen.decoder import padded
from audiogen_onnx.products import half

EPS = 1e-5


def write(path: Path, config: Config, source: Source, dtype: str) -> None:
    """Write the graph of some steps.

    inputs
        tokens        int64 (R, K, S)
        prefix        float32 (R, P, width), of models that have one: vectors before the tokens; P may be 0
        order         int64 (R, M, 1), with it: the places of prefix and tokens, in the order they are read
        positions     float32 (R or 1, M, width), what is added for where a vector stands; M = S without a
                      prefix
        keep          int64 (R, T, 1), the vectors of whose next tokens something is wanted
        lengths       int32 (R,), positions of each row, these included, less one
        total         int32 (1,), the most positions of a row
        past_keys.i, past_values.i    float32 (R, H, positions, D)
        cross_keys.i  float32 (R, H, D, L), cross_values.i (R, H, L, D), cross_bias (R, 1, 1, L), of models
                      that attend to the text: what `write_cross` makes, and what is added to hide padding
    outputs
        logits        float32 (R, K, T, N)
        keys.i, values.i
    """
    books, size, width = config.codebooks, config.codebook_size, config.width
    inputs: dict[str, tuple[int, Shape]] = {"tokens": (INT64, ("rows", books, "steps"))}
    if config.clip or config.text_in_prefix:
        inputs |= {"prefix": (FLOAT, ("rows", "prefix", width)), "order": (INT64, ("rows", "places", 1))}
    inputs |= {
        "positions": (FLOAT, ("rows or 1", "places", width)),
        "keep": (INT64, ("rows", "kept", 1)),
        "lengths": (INT32, ("rows",)),
        "total": (INT32, (1,)),
    }
    cache: Shape = ("rows", config.heads, "positions", padded(config))
    outputs: dict[str, tuple[int, Shape]] = {"logits": (FLOAT, ("rows", books, "kept", size))}
    for index in range(config.layers):
        inputs |= {f"past_{part}.{index}": (FLOAT, cache) for part in ("keys", "values")}
        outputs |= {f"{part}.{index}": (FLOAT, cache) for part in ("keys", "values")}
    if not config.text_in_prefix:
        inputs |= cross_ends(config) | {"cross_bias": (FLOAT, ("rows", 1, 1, "length"))}
    with graph(path, inputs, outputs, dtype, level=4) as nodes:
        x = embedded(nodes, "tokens", config, source)
        if config.clip or config.text_in_prefix:
            x = nodes.node("Concat", ["prefix", x], "with_prefix", axis=1)
            x = nodes.node("GatherND", [x, "order"], "in_order", batch_dims=1)
        x = nodes.node("Add", [x, "positions"], "placed")
        for index in range(config.layers):
            x = block(nodes, x, config, index, source, _cached)
        x = nodes.node("GatherND", [x, "keep"], "kept", batch_dims=1)
        x = nodes.layer_norm(x, "norm", *_norm(source, "norm", width), EPS)
        x = nodes.product(x, "heads", source.take("heads.weight", books * size, width), FINE)
        x = nodes.node("Reshape", [x, nodes.constant([0, 0, books, size])], "by_codebook")
        nodes.node("Transpose", [x], "logits", perm=[0, 2, 1, 3])


def write_cross(path: Path, config: Config, source: Source, dtype: str) -> None:
    """Write the graph `text` float32 (R, L, width) -> `cross_keys.i`, scaled as attention wants it, and
    `cross_values.i` of every layer.
    """
    width = config.width
    with graph(path, {"text": (FLOAT, ("rows", "length", width))}, cross_ends(config), dtype) as nodes:
        scale = nodes.constant(np.float32((width // config.heads) ** -0.5))
        for index in range(config.layers):
            _, keys, values = _cross(source, index, width)
            made = nodes.product("text", f"keys.{index}", keys)
            turned = nodes.heads(made, f"keys.{index}.turned", config.heads, turned=True)
            nodes.node("Mul", [turned, scale], f"cross_keys.{index}")
            made = nodes.product("text", f"values.{index}", values)
            nodes.heads(made, f"cross_values.{index}", config.heads)


def write_melody(path: Path, config: Config, source: Source) -> None:
    """Write the graph `features` float32 (frames, bins) -> `vectors` (frames, width)."""
    assert config.chroma is not None
    bins, width = config.chroma.bins, config.width
    features, vectors = ((FLOAT, ("frames", size)) for size in (bins, width))
    with graph(path, {"features": features}, {"vectors": vectors}, "float32") as nodes:
        weight, bias = source.take("melody.weight", width, bins), source.take("melody.bias", width)
        nodes.linear("features", "vectors", weight, bias)


def cross_ends(config: Config) -> dict[str, tuple[int, Shape]]:
    """Names, types and shapes of the keys and values of a text."""
    heads, size = config.heads, config.width // config.heads
    ends: dict[str, tuple[int, Shape]] = {}
    for index in range(config.layers):
        ends[f"cross_keys.{index}"] = (FLOAT, ("rows", heads, size, "length"))
        ends[f"cross_values.{index}"] = (FLOAT, ("rows", heads, "length", size))
    return ends


def embedded(nodes: Nodes, codes: str, config: Config, source: Source) -> str:
    """The sums of the vectors of codes (R, K, S): (R, S, width)."""
    rows = config.codebook_size + 1
    offsets = nodes.constant((np.arange(config.codebooks) * rows).reshape(1, -1, 1))
    places = nodes.node("Add", [codes, offsets], "places_in_table")
    table = source.take("embeddings", config.codebooks * rows, config.width)
    found = nodes.rows("embedding", table, places)
    return nodes.node("ReduceSum", [found, nodes.constant([1])], "embedded", keepdims=0)


def block(nodes: Nodes, x: str, config: Config, index: int, source: Source, attention: Attention) -> str:
    """One layer, with its own way to attend to itself."""
    name, width, heads = f"blocks.{index}", config.width, config.heads
    y = nodes.layer_norm(x, f"{name}.norm", *_norm(source, f"{name}.attention_norm", width), EPS)
    x = nodes.node("Add", [x, attention(nodes, y, config, index, source)], f"{name}.attended")
    if not config.text_in_prefix:
        y = nodes.layer_norm(x, f"{name}.cross.norm", *_norm(source, f"{name}.cross.norm", width), EPS)
        query = nodes.product(y, f"{name}.cross.query", _cross(source, index, width)[0])
        query = nodes.heads(query, f"{name}.cross.heads", heads)
        ends = (f"cross_keys.{index}", f"cross_values.{index}")
        heard = nodes.attend(query, *ends, f"{name}.cross.heard", "cross_bias")
        out = source.take(f"{name}.cross.out.weight", width, width)
        x = nodes.node("Add", [x, nodes.product(heard, f"{name}.cross.out", out)], f"{name}.crossed")
    y = nodes.layer_norm(x, f"{name}.feed_norm", *_norm(source, f"{name}.feed_norm", width), EPS)
    y = nodes.product(y, f"{name}.up", source.take(f"{name}.up.weight", config.hidden, width), FINE)
    y = nodes.activate(y, f"{name}.active", config.activation)
    y = nodes.product(y, f"{name}.down", source.take(f"{name}.down.weight", width, config.hidden))
    return nodes.node("Add", [x, y], f"{name}.made")


Attention = Callable[[Nodes, str, Config, int, Source], str]
"""Writes the attention of a layer, its products included: (R, M, width) -> (R, M, width)."""


def _cached(nodes: Nodes, y: str, config: Config, index: int, source: Source) -> str:
    """Attention to all positions before, whose keys and values lie in the cache."""
    name, width, heads = f"blocks.{index}", config.width, config.heads
    size, wide = width // heads, padded(config)
    missing = ((0, 0), (0, 0), (0, wide - size))
    qkv = source.take(f"{name}.qkv.weight", 3 * width, width).reshape(3, heads, size, width)
    y = nodes.product(y, f"{name}.qkv", np.pad(qkv, (*missing, (0, 0))).reshape(-1, width))
    cache = [f"past_keys.{index}", f"past_values.{index}"]
    heard = nodes.node(
        "GroupQueryAttention",
        [y, "", "", *cache, "lengths", "total"],
        f"{name}.heard",
        f"keys.{index}",
        f"values.{index}",
        num_heads=heads,
        kv_num_heads=heads,
        scale=size**-0.5,
    )
    by_head = source.take(f"{name}.out.weight", width, width).reshape(width, heads, size)
    return nodes.product(heard, f"{name}.out", np.pad(by_head, missing).reshape(width, -1))


def _norm(source: Source, name: str, width: int) -> tuple[Float, Float]:
    return source.take(f"{name}.weight", width), source.take(f"{name}.bias", width)


def _cross(source: Source, index: int, width: int) -> tuple[Float, Float, Float]:
    """What makes queries, keys and values of the attention to the text: (width, width) each."""
    whole = source.take(f"blocks.{index}.cross.qkv.weight", 3 * width, width)
    query, keys, values = np.split(whole, 3)
    return query, keys, values


# The same in numpy


@dataclass(frozen=True)
class Row:
    """One row: its tokens (K, S), the prefix (P, width) before them, the text (L, width) it attends to."""

    tokens: NDArray[np.integer[Any]]
    prefix: Float | None = None
    text: Float | None = None


def by_numpy(
    config: Config, source: Source, rows: list[Row], dtype: str, seen: NDArray[np.bool_] | None = None
) -> list[Float]:
    """The logits (K, S, N) of every row, in a MusicGen those of the next tokens. One layer is read at a time.

    seen  (M, M) true where a position sees another; None: all that are not behind it
    """
    width, books, size = config.width, config.codebooks, config.codebook_size
    table = source.take("embeddings", books * (size + 1), width)
    if dtype != "float32":
        table = half(table, "embeddings").astype(np.float32)
    by_book: Any = table.reshape(books, size + 1, width)
    streams: list[Float] = []
    for row in rows:
        x = by_book[np.arange(books)[:, None], row.tokens].sum(axis=0, dtype=np.float32)
        x = x if row.prefix is None else np.concatenate([row.prefix, x])
        streams.append(x + positions(len(x), width, config.clock))
    del table, by_book
    for index in range(config.layers):
        layer = _Numbers(config, source, index, dtype)
        streams = [layer(x, row.text, seen) for x, row in zip(streams, rows, strict=True)]
    norm, heads = _norm(source, "norm", width), source.take("heads.weight", books * size, width)
    product = _Matrix(heads, dtype, FINE)
    logits = [product(_normed(x[-row.tokens.shape[1] :], norm)) for x, row in zip(streams, rows, strict=True)]
    return [made.reshape(len(made), books, size).transpose(1, 0, 2) for made in logits]


class _Matrix:
    """A product with what a graph of some dtype keeps of a matrix."""

    def __init__(self, weight: Float, dtype: str, size: int = BLOCK) -> None:
        self.weight = stored(weight, dtype, size)

    def __call__(self, x: Float) -> Float:
        made: Float = x @ self.weight.T
        return made


class _Numbers:
    """One block."""

    def __init__(self, config: Config, source: Source, index: int, dtype: str) -> None:
        name, width, hidden = f"blocks.{index}", config.width, config.hidden
        self.heads, self.activation = config.heads, config.activation
        self.norms = [_norm(source, f"{name}.{part}", width) for part in ("attention_norm", "feed_norm")]
        sizes = {
            "qkv": (3 * width, width),
            "out": (width, width),
            "up": (hidden, width),
            "down": (width, hidden),
        }
        self.matrix = {
            part: _Matrix(
                source.take(f"{name}.{part}.weight", *shape), dtype, FINE if part == "up" else BLOCK
            )
            for part, shape in sizes.items()
        }
        self.cross: list[_Matrix] = []
        if not config.text_in_prefix:
            self.cross_norm = _norm(source, f"{name}.cross.norm", width)
            parts = (*_cross(source, index, width), source.take(f"{name}.cross.out.weight", width, width))
            self.cross = [_Matrix(part, dtype) for part in parts]

    def __call__(self, x: Float, text: Float | None, seen: NDArray[np.bool_] | None) -> Float:
        q, k, v = np.split(self.matrix["qkv"](_normed(x, self.norms[0])), 3, axis=1)
        seen = np.tri(len(x), dtype=np.bool_) if seen is None else seen
        hidden = np.where(seen, np.float32(0), np.float32(-np.inf))
        x = x + self.matrix["out"](self._attend(q, k, v, hidden))
        if text is not None:
            query, keys, values, out = self.cross
            y = query(_normed(x, self.cross_norm))
            x = x + out(self._attend(y, keys(text), values(text)))
        y = activated(self.matrix["up"](_normed(x, self.norms[1])), self.activation)
        return x + self.matrix["down"](y)

    def _attend(self, query: Float, keys: Float, values: Float, bias: Float | None = None) -> Float:
        parts = (part.reshape(len(part), self.heads, -1).swapaxes(0, 1) for part in (query, keys, values))
        q, k, v = parts  # (H, L, D)
        scores = q @ k.swapaxes(1, 2) * np.float32(q.shape[2] ** -0.5)
        heard = softmax(scores if bias is None else scores + bias) @ v
        return heard.swapaxes(0, 1).reshape(len(query), -1)


def _normed(x: Float, norm: tuple[Float, Float]) -> Float:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPS))
    made: Float = scaled * norm[0] + norm[1]
    return made
