"""A prompt to vectors: the encoder of T5 and the projection behind it, as a graph and in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.musicgen.config import Config
from audiogen_core.ops import Float
from audiogen_core.ops.numpy_ops import erf
from audiogen_core.t5 import T5Config, relative_buckets
from audiogen_onnx.exporter.musicgen.nodes import BOOL, FLOAT, INT64, Nodes, graph
from audiogen_onnx.exporter.musicgen.source import Source

_HIDDEN = np.float32(-3.0e38)  # added to scores of padding


def write(path: Path, t5: T5Config, config: Config, encoder: Source, model: Source, dtype: str) -> None:
    """Write the graph `ids` int64 (B, L), `mask` bool (B, L), true where a token is real -> `vectors`
    (B, L, width). The vectors of padding are not zeroed.

    encoder  the tensors of the T5
    model    those of the MusicGen, to which the projection belongs
    """
    inputs = {"ids": (INT64, ("batch", "length")), "mask": (BOOL, ("batch", "length"))}
    outputs = {"vectors": (FLOAT, ("batch", "length", config.width))}
    with graph(path, inputs, outputs, dtype) as nodes:
        x = nodes.rows("embedding", encoder.take("embedding.weight", t5.vocabulary, t5.width), "ids")
        bias = _bias(nodes, distances(t5, encoder))
        inner = t5.heads * t5.head_width
        for index in range(t5.layers):
            name = f"blocks.{index}"
            norm = encoder.take(f"{name}.attention_norm.weight", t5.width)
            y = nodes.rms_norm(x, f"{name}.attention_norm", norm, t5.eps)
            wide = nodes.product(y, f"{name}.qkv", encoder.take(f"{name}.qkv.weight", 3 * inner, t5.width))
            parts = [f"{name}.{part}" for part in ("query", "key", "value")]
            nodes.node("Split", [wide], parts[0], *parts[1:], axis=-1, num_outputs=3)
            query, value = (nodes.heads(part, f"{part}.heads", t5.heads) for part in (parts[0], parts[2]))
            key = nodes.heads(parts[1], f"{parts[1]}.heads", t5.heads, turned=True)
            heard = nodes.attend(query, key, value, f"{name}.attention", bias)
            out = nodes.product(heard, f"{name}.out", encoder.take(f"{name}.out.weight", t5.width, inner))
            x = nodes.node("Add", [x, out], f"{name}.attended")
            norm = encoder.take(f"{name}.feed_norm.weight", t5.width)
            y = nodes.rms_norm(x, f"{name}.feed_norm", norm, t5.eps)
            y = _feed(nodes, y, name, t5, encoder)
            down = nodes.product(y, f"{name}.down", encoder.take(f"{name}.down.weight", t5.width, t5.hidden))
            x = nodes.node("Add", [x, down], f"{name}.made")
        x = nodes.rms_norm(x, "norm", encoder.take("norm.weight", t5.width), t5.eps)
        if config.text_projected:
            weight = model.take("text.weight", config.width, t5.width)
            nodes.linear(x, "vectors", weight, model.take("text.bias", config.width))
        else:
            nodes.node("Identity", [x], "vectors")


def distances(t5: T5Config, encoder: Source) -> Float:
    """Each head's bias for the distances -F to F, key minus query: (2*F+1, heads); further ones act as F."""
    table = encoder.take("distances.weight", t5.buckets, t5.heads)
    places = np.arange(-t5.max_distance, t5.max_distance + 1)
    return table[relative_buckets(places, t5.buckets, t5.max_distance)]


def _bias(nodes: Nodes, table: Float) -> str:
    """What attention adds: (B, heads, L, L)."""
    furthest = len(table) // 2
    length = nodes.node("Squeeze", [nodes.node("Shape", ["ids"], "shape", start=1, end=2)], "length")
    places = nodes.node("Range", [nodes.constant(0), length, nodes.constant(1)], "places")
    keys = nodes.node("Unsqueeze", [places, nodes.constant([0])], "keys")
    queries = nodes.node("Unsqueeze", [places, nodes.constant([1])], "queries")
    relative = nodes.node("Sub", [keys, queries], "relative")
    ends = [nodes.constant(-furthest), nodes.constant(furthest)]
    clipped = nodes.node("Clip", [relative, *ends], "clipped")
    row = nodes.node("Add", [clipped, ends[1]], "row")
    found = nodes.node("Gather", [nodes.tensor("distances", table), row], "found", axis=0)
    by_head = nodes.node("Transpose", [found], "by_head", perm=[2, 0, 1])
    of_places = nodes.node("Unsqueeze", [by_head, nodes.constant([0])], "of_places")
    real = nodes.node("Unsqueeze", ["mask", nodes.constant([1, 2])], "real")  # (B, 1, 1, L)
    hidden = [real, nodes.constant(np.float32(0)), nodes.constant(_HIDDEN)]
    return nodes.node("Add", [of_places, nodes.node("Where", hidden, "padding")], "bias")


def _feed(nodes: Nodes, y: str, name: str, t5: T5Config, encoder: Source) -> str:
    up = encoder.take(f"{name}.up.weight", (2 if t5.gated else 1) * t5.hidden, t5.width)
    if not t5.gated:
        return nodes.activate(nodes.product(y, f"{name}.up", up), f"{name}.active", t5.activation)
    gate, straight = np.split(up, 2)
    active = nodes.activate(nodes.product(y, f"{name}.gate", gate), f"{name}.active", t5.activation)
    return nodes.node("Mul", [active, nodes.product(y, f"{name}.straight", straight)], f"{name}.gated")


# The same in numpy


def by_numpy(
    t5: T5Config, config: Config, encoder: Source, model: Source, ids: NDArray[np.int64], dtype: str
) -> Float:
    """What the graph makes of one text without padding: ids (L,) -> vectors (L, width)."""

    def product(y: Float, name: str, *shape: int) -> Float:
        return encoder.product(y, f"{name}.weight", *shape, dtype=dtype)

    table = encoder.take("embedding.weight", t5.vocabulary, t5.width)[ids]
    x = table if dtype == "float32" else table.astype(np.float16).astype(np.float32)
    places, inner = np.arange(len(ids)), t5.heads * t5.head_width
    reach = t5.max_distance
    row = np.clip(places[None] - places[:, None], -reach, reach) + reach
    bias = distances(t5, encoder)[row].transpose(2, 0, 1)  # (H, L, L)
    for index in range(t5.layers):
        name = f"blocks.{index}"
        y = _rms(x, encoder.take(f"{name}.attention_norm.weight", t5.width), t5.eps)
        qkv = product(y, f"{name}.qkv", 3 * inner, t5.width).reshape(len(ids), 3, t5.heads, -1)
        query, key, value = qkv.transpose(1, 2, 0, 3)
        heard = softmax(query @ key.swapaxes(1, 2) + bias) @ value
        x = x + product(heard.transpose(1, 0, 2).reshape(len(ids), -1), f"{name}.out", t5.width, inner)
        y = _rms(x, encoder.take(f"{name}.feed_norm.weight", t5.width), t5.eps)
        y = product(y, f"{name}.up", (2 if t5.gated else 1) * t5.hidden, t5.width)
        if t5.gated:
            y = activated(y[:, : t5.hidden], t5.activation) * y[:, t5.hidden :]
        else:
            y = activated(y, t5.activation)
        x = x + product(y, f"{name}.down", t5.width, t5.hidden)
    x = _rms(x, encoder.take("norm.weight", t5.width), t5.eps)
    if not config.text_projected:
        return x
    projected = model.product(x, "text.weight", config.width, t5.width, dtype=dtype)
    return projected + model.take("text.bias", config.width)


def softmax(scores: Float) -> Float:
    """Over the last axis."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    made: Float = shares / shares.sum(axis=-1, keepdims=True)
    return made


def activated(x: Float, activation: str) -> Float:
    """The activation that a configuration names."""
    made: Float
    if activation == "relu":
        made = np.maximum(x, 0)
    elif activation == "silu":
        made = x / (1 + np.exp(-x))
    elif activation == "gelu_new":
        made = 0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)))
    else:
        made = 0.5 * x * (1 + erf(x * np.float32(np.sqrt(0.5)), np.float32))
    return made


def _rms(x: Float, weight: Float, eps: float) -> Float:
    made: Float = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight
    return made
