"""What hears a style: MERT, a transformer and a residual quantiser, as a graph and in numpy. In float32."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiogen_core.errors import WeightsError
from audiogen_core.musicgen import mert as merts
from audiogen_core.musicgen import style as styles
from audiogen_core.musicgen.config import Config, StyleConfig
from audiogen_core.musicgen.files import Files
from audiogen_core.musicgen.mert import MertConfig
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.style import BATCH_NORM_EPS, StyleSizes
from audiogen_core.ops import Float
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_onnx.exporter.musicgen.nodes import FLOAT, Nodes, graph
from audiogen_onnx.exporter.musicgen.source import Source
from audiogen_onnx.exporter.musicgen.text import activated, softmax

_EPS = 1e-5  # of layer normalisation behind MERT


class _Parts(NamedTuple):
    """The facts and the tensors of both networks."""

    config: StyleConfig
    sizes: StyleSizes
    own: Source
    mert: MertConfig
    heard: Source

    @classmethod
    def of(cls, config: Config, files: Files) -> _Parts:
        assert config.style is not None
        sizes = StyleSizes.of(files.table, config.style)
        mert, table = merts.read_mert(files.mert_folder)
        sizes.check_mert(mert.width)
        own = Source(files.table, styles.pieces(sizes.layers))
        return cls(config.style, sizes, own, mert, Source(table, merts.pieces(mert, table)))

    def finish(self) -> None:
        self.own.table.finish(styles.IGNORED)
        self.heard.table.finish(merts.IGNORED)

    def books(self) -> list[Float]:
        """The codebooks of the quantiser, (entries, width) each."""
        return [self.own.table.take(name, (None, self.sizes.width)) for name in styles.codebooks(self.config)]

    def places(self) -> Float:
        """The weight of the convolution that says where a vector stands: (width, in a group, taps)."""
        taps, width = self.mert.position_kernel, self.mert.width
        direction = self.heard.take("places.direction", width, width // self.mert.position_groups, taps)
        length = np.sqrt(np.square(direction, dtype=np.float64).sum(axis=(0, 1), keepdims=True))
        if not length.all():
            name = self.heard.pieces["places.direction"][0]
            raise WeightsError(f"{self.heard.table.source}: {name} holds only zeros somewhere; it is damaged")
        fused: Float = (direction * (self.heard.take("places.gain", 1, 1, taps) / length)).astype(np.float32)
        return fused


def write(path: Path, config: Config, files: Files) -> None:
    """Write the graph `samples` float32 (B, T) at 24 kHz -> `tokens` (B, F, width), of each vector of MERT.

    A second input, `used` float32 (codebooks,), is 1 for each codebook that counts and 0 for others.
    """
    parts = _Parts.of(config, files)
    inputs = {"samples": (FLOAT, ("batch", "time")), "used": (FLOAT, (parts.config.codebooks,))}
    outputs = {"tokens": (FLOAT, ("batch", "frames", parts.sizes.outputs))}
    with graph(path, inputs, outputs, "float32") as nodes:
        x = _mert(nodes, parts)
        x = _transformer(nodes, x, parts)
        x = _quantised(nodes, x, parts)
        sizes = parts.sizes
        weight = parts.own.take("project.weight", sizes.outputs, sizes.width)
        nodes.linear(x, "tokens", weight, parts.own.take("project.bias", sizes.outputs))
    parts.finish()


def _mert(nodes: Nodes, parts: _Parts) -> str:
    config, source = parts.mert, parts.heard
    x = nodes.node("Unsqueeze", ["samples", nodes.constant([1])], "sound")  # (B, 1, T)
    inputs = (1, *config.conv_channels)
    for index, (into, out, kernel, stride) in enumerate(
        zip(inputs, config.conv_channels, config.conv_kernels, config.conv_strides, strict=False)
    ):
        name = f"convs.{index}"
        given = [x, nodes.tensor(f"{name}.weight", source.take(f"{name}.weight", out, into, kernel))]
        if config.conv_bias:
            given.append(nodes.tensor(f"{name}.bias", source.take(f"{name}.bias", out)))
        x = nodes.node("Conv", given, name, strides=[stride])
        if index == 0:
            ends = [
                nodes.tensor(f"conv_norm.{leaf}", source.take(f"conv_norm.{leaf}", out))
                for leaf in ("weight", "bias")
            ]
            x = nodes.node("InstanceNormalization", [x, *ends], "conv_norm", epsilon=merts.CONV_EPS)
        x = nodes.activate(x, f"{name}.active", "gelu")
    x = nodes.node("Transpose", [x], "vectors", perm=[0, 2, 1])  # (B, F, C)
    x = _norm(nodes, x, "projection_norm", source, config.conv_channels[-1], config.eps)
    x = _linear(nodes, x, "projection", source, config.width, config.conv_channels[-1])
    turned = nodes.node("Transpose", [x], "turned", perm=[0, 2, 1])
    half = config.position_kernel // 2
    weights = [nodes.tensor("places.weight", parts.places())]
    weights.append(nodes.tensor("places.bias", source.take("places.bias", config.width)))
    y = nodes.node("Conv", [turned, *weights], "placed", group=config.position_groups, pads=[half, half])
    if config.position_kernel % 2 == 0:  # an even kernel makes one vector too many
        cut = [nodes.constant([0]), nodes.constant([-1]), nodes.constant([2])]
        y = nodes.node("Slice", [y, *cut], "placed.cut")
    y = nodes.node("Transpose", [nodes.activate(y, "placed.active", "gelu")], "places", perm=[0, 2, 1])
    x = _norm(nodes, nodes.node("Add", [x, y], "with_places"), "norm", source, config.width, config.eps)
    for index in range(config.layers):
        name, width = f"blocks.{index}", config.width
        ends = [
            _linear(nodes, x, f"{name}.{part}", source, width, width) for part in ("query", "key", "value")
        ]
        heard = _attention(nodes, ends, f"{name}.heard", config.heads, width)
        y = _linear(nodes, heard, f"{name}.out", source, width, width)
        y = nodes.node("Add", [x, y], f"{name}.attended")
        x = _norm(nodes, y, f"{name}.attention_norm", source, width, config.eps)
        y = _linear(nodes, x, f"{name}.up", source, config.hidden, width)
        y = _linear(
            nodes, nodes.activate(y, f"{name}.active", "gelu"), f"{name}.down", source, width, config.hidden
        )
        y = nodes.node("Add", [x, y], f"{name}.made")
        x = _norm(nodes, y, f"{name}.final_norm", source, width, config.eps)
    return x


def _transformer(nodes: Nodes, x: str, parts: _Parts) -> str:
    """What the transformer and the norm behind it make: (B, F, width)."""
    source, sizes = parts.own, parts.sizes
    width = sizes.width
    longest = parts.mert.frames(round(styles.LONGEST * merts.SAMPLE_RATE))
    x = nodes.linear(
        x, "style.embed", source.take("embed.weight", width, sizes.inputs), source.take("embed.bias", width)
    )
    frames = nodes.node("Shape", [x], "style.frames", start=1, end=2)
    table = nodes.tensor("style.positions", positions(longest, width))
    cut = [nodes.constant([0]), frames, nodes.constant([0])]
    x = nodes.node("Add", [x, nodes.node("Slice", [table, *cut], "style.places")], "style.placed")
    for index in range(sizes.layers):
        name = f"style.blocks.{index}"

        def product(y: str, part: str, *shape: int, index: int = index, name: str = name) -> str:
            return nodes.product(y, f"{name}.{part}", source.take(f"blocks.{index}.{part}.weight", *shape))

        y = _norm(nodes, x, f"{name}.attention_norm", source, width, _EPS)
        wide = product(y, "qkv", 3 * width, width)
        ends = [f"{name}.{part}" for part in ("query", "key", "value")]
        nodes.node("Split", [wide], ends[0], *ends[1:], axis=-1, num_outputs=3)
        heard = _attention(nodes, ends, f"{name}.heard", parts.config.heads, width)
        x = nodes.node("Add", [x, product(heard, "out", width, width)], f"{name}.attended")
        y = _norm(nodes, x, f"{name}.feed_norm", source, width, _EPS)
        y = nodes.activate(product(y, "up", 4 * width, width), f"{name}.active", "gelu")
        x = nodes.node("Add", [x, product(y, "down", width, 4 * width)], f"{name}.made")
    if not parts.config.batch_norm:
        return x
    mean, scale = _statistics(parts)
    x = nodes.node("Sub", [x, nodes.tensor("style.mean", mean)], "style.centred")
    return nodes.node("Mul", [x, nodes.tensor("style.scale", scale)], "style.normalised")


def _statistics(parts: _Parts) -> tuple[Float, Float]:
    """The means of training, and one over the deviations."""
    mean, variance = (
        parts.own.take(f"batch_norm.{part}", parts.sizes.width) for part in ("mean", "variance")
    )
    return mean, 1 / np.sqrt(variance + np.float32(BATCH_NORM_EPS))


def _quantised(nodes: Nodes, x: str, parts: _Parts) -> str:
    """The sum of the entries that are nearest, one of each codebook that counts: (B, F, width)."""
    total = ""
    ends = [f"used.{index}" for index in range(parts.config.codebooks)]
    nodes.node("Split", ["used"], ends[0], *ends[1:], axis=0, num_outputs=len(ends))
    for index, book in enumerate(parts.books()):
        name = f"books.{index}"
        scores = nodes.node("MatMul", [x, nodes.tensor(f"{name}.turned", book.T)], f"{name}.product")
        half = nodes.tensor(f"{name}.half", np.float32(0.5) * np.square(book).sum(axis=1))
        scores = nodes.node("Sub", [scores, half], f"{name}.scores")
        code = nodes.node("ArgMax", [scores], f"{name}.code", axis=-1, keepdims=0)
        entry = nodes.node("Gather", [nodes.tensor(f"{name}.entries", book), code], f"{name}.entry", axis=0)
        counted = nodes.node("Mul", [entry, ends[index]], f"{name}.counted")
        total = nodes.node("Add", [total, counted], f"{name}.sum") if total else counted
        x = nodes.node("Sub", [x, entry], f"{name}.left")
    return total


def _attention(nodes: Nodes, ends: list[str], name: str, heads: int, width: int) -> str:
    query, value = (nodes.heads(ends[part], f"{ends[part]}.heads", heads) for part in (0, 2))
    key = nodes.heads(ends[1], f"{ends[1]}.heads", heads, turned=True)
    scaled = nodes.node(
        "Mul", [query, nodes.constant(np.float32((width // heads) ** -0.5))], f"{name}.scaled"
    )
    return nodes.attend(scaled, key, value, name)


def _linear(nodes: Nodes, x: str, name: str, source: Source, outputs: int, inputs: int) -> str:
    weight = source.take(f"{name}.weight", outputs, inputs)
    return nodes.linear(x, name, weight, source.take(f"{name}.bias", outputs))


def _norm(nodes: Nodes, x: str, name: str, source: Source, width: int, eps: float) -> str:
    stored = name.removeprefix("style.")
    weight, bias = (source.take(f"{stored}.{leaf}", width) for leaf in ("weight", "bias"))
    return nodes.layer_norm(x, name, weight, bias, eps)


# The same in numpy


def by_numpy(config: Config, files: Files, samples: Float, count: int) -> Float:
    """What the graph makes of one excerpt: samples (T,) -> tokens (F, width), by `count` codebooks."""
    parts = _Parts.of(config, files)
    own, sizes = parts.own, parts.sizes
    x = _linear_numpy(_mert_numpy(samples, parts), "embed", own, sizes.width, sizes.inputs)
    x = x + positions(len(x), sizes.width)
    for index in range(sizes.layers):
        name, width = f"blocks.{index}", sizes.width
        y = _norm_numpy(x, f"{name}.attention_norm", own, _EPS)
        qkv = np.split(y @ own.take(f"{name}.qkv.weight", 3 * width, width).T, 3, axis=1)
        heard = _attention_numpy(qkv, parts.config.heads)
        x = x + heard @ own.take(f"{name}.out.weight", width, width).T
        y = _norm_numpy(x, f"{name}.feed_norm", own, _EPS)
        y = activated(y @ own.take(f"{name}.up.weight", 4 * width, width).T, "gelu")
        x = x + y @ own.take(f"{name}.down.weight", width, 4 * width).T
    if parts.config.batch_norm:
        mean, scale = _statistics(parts)
        x = (x - mean) * scale
    total = np.zeros_like(x)
    for book in parts.books()[:count]:
        entry = book[(x @ book.T - np.float32(0.5) * np.square(book).sum(axis=1)).argmax(axis=1)]
        total, x = total + entry, x - entry
    return _linear_numpy(total, "project", own, sizes.outputs, sizes.width)


def _mert_numpy(samples: Float, parts: _Parts) -> Float:
    config, source, ops = parts.mert, parts.heard, NumpyOps()
    x: Float = samples[None, None]
    inputs = (1, *config.conv_channels)
    for index, (into, out, kernel, stride) in enumerate(
        zip(inputs, config.conv_channels, config.conv_kernels, config.conv_strides, strict=False)
    ):
        bias = source.take(f"convs.{index}.bias", out)[:, None] if config.conv_bias else None
        x = ops.conv(x, source.take(f"convs.{index}.weight", out, into, kernel), bias, stride=stride)
        if index == 0:
            centred = x - x.mean(axis=2, keepdims=True)
            variance = np.square(centred).mean(axis=2, keepdims=True) + np.float32(merts.CONV_EPS)
            weight, bias = (source.take(f"conv_norm.{leaf}", out)[:, None] for leaf in ("weight", "bias"))
            x = centred / np.sqrt(variance) * weight + bias
        x = activated(x, "gelu")
    y = _norm_numpy(x[0].T, "projection_norm", source, config.eps)
    y = _linear_numpy(y, "projection", source, config.width, config.conv_channels[-1])
    half, groups = config.position_kernel // 2, config.position_groups
    wide = np.pad(y.T[None], ((0, 0), (0, 0), (half, half)))
    convolved = [
        ops.conv(part, weight)
        for part, weight in zip(np.split(wide, groups, axis=1), np.split(parts.places(), groups), strict=True)
    ]
    placed = np.concatenate(convolved, axis=1)[0, :, : len(y)].T + source.take("places.bias", config.width)
    z = _norm_numpy(y + activated(placed, "gelu"), "norm", source, config.eps)
    for index in range(config.layers):
        name, width = f"blocks.{index}", config.width
        ends = [
            _linear_numpy(z, f"{name}.{part}", source, width, width) for part in ("query", "key", "value")
        ]
        heard = _linear_numpy(_attention_numpy(ends, config.heads), f"{name}.out", source, width, width)
        z = _norm_numpy(z + heard, f"{name}.attention_norm", source, config.eps)
        fed = activated(_linear_numpy(z, f"{name}.up", source, config.hidden, width), "gelu")
        fed = _linear_numpy(fed, f"{name}.down", source, width, config.hidden)
        z = _norm_numpy(z + fed, f"{name}.final_norm", source, config.eps)
    return z


def _attention_numpy(ends: list[Float], heads: int) -> Float:
    query, key, value = (part.reshape(len(part), heads, -1).swapaxes(0, 1) for part in ends)
    shares = softmax(query @ key.swapaxes(1, 2) * np.float32(query.shape[2] ** -0.5))
    return (shares @ value).swapaxes(0, 1).reshape(len(ends[0]), -1)


def _linear_numpy(x: Float, name: str, source: Source, outputs: int, inputs: int) -> Float:
    return x @ source.take(f"{name}.weight", outputs, inputs).T + source.take(f"{name}.bias", outputs)


def _norm_numpy(x: Float, name: str, source: Source, eps: float) -> Float:
    weight, bias = (source.take(f"{name}.{leaf}", x.shape[1]) for leaf in ("weight", "bias"))
    centred = x - x.mean(axis=1, keepdims=True)
    made: Float = (
        centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(eps)) * weight + bias
    )
    return made
