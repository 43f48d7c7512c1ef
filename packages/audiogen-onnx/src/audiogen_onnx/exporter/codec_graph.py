"""A codec of audiogen-core as graphs, written layer by layer from its tensors, with onnx alone.

Each kind of layer is a function here, beside which `codecs` and `layers` of core are to be read. A graph
takes whole frames, `LEAST` or more; what depends on a clip's length otherwise is left to the caller.
`codec.py` does the same for LAC and DAC by tracing torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.codec import Codec
from audiogen_core.codecs import frame
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.layers import (
    Conv,
    Convolutional,
    ConvTranspose,
    Elu,
    Recurrent,
    Residual,
    ResidualQuantizer,
    Stage,
)
from audiogen_core.ops import Float
from audiogen_core.ops.numpy_ops import NumpyOps
from audiogen_onnx.exporter.musicgen.nodes import FLOAT, INT64, Nodes, graph
from audiogen_onnx.session import Session
from onnx import TensorProto

LEAST = 16
"""Frames of the shortest clip."""

TOLERANCE = 1e-4
"""Of samples between a graph and numpy."""

_NAMES = ("encoder", "decoder")


def write(codec: Codec, folder: Path) -> dict[str, Path]:
    """Write `encoder.onnx` and `decoder.onnx`, with weights beside them, into a folder. Returns both by name.

    codec  EnCodec of one channel, or the demo codec, of numpy

    encoder  `audio` float32 (B, 1, T * hop length) -> `codes` int64 (B, K, T)
    decoder  `codes` int64 (B, K, T) -> `audio` float32 (B, 1, T * hop length); a codebook adds nothing where
             its codes are below 0

    Raises OptionError for another kind of codec, ModelError when the decoder's sound is not that of numpy.
    """
    quantizer = codec._quantizer
    if codec.info.channels != 1 or codec.ops.name != "numpy" or type(quantizer) is not ResidualQuantizer:
        raise OptionError(
            f"{codec.info.name}: only EnCodec of one channel and the demo codec have such graphs"
        )
    books, count = [book for book, _ in quantizer.codebooks], codec.info.codebooks
    audio, codes = ((FLOAT, ("batch", 1, "samples")), (INT64, ("batch", count, "frames")))
    paths = {name: folder / f"{name}.onnx" for name in _NAMES}
    with graph(paths["encoder"], {"audio": audio}, {"codes": codes}, "float32") as nodes:
        _chosen(nodes, _stages(nodes, codec._encoder, "audio"), books)
    with graph(paths["decoder"], {"codes": codes}, {"audio": audio}, "float32") as nodes:
        nodes.node("Identity", [_stages(nodes, codec._decoder, _looked_up(nodes, books))], "audio")
    _check(codec, paths["decoder"])
    return paths


def _check(codec: Codec, path: Path) -> None:
    """Raise ModelError unless a decoder sounds as in numpy, over several lengths."""
    session, info, rng = Session(path), codec.info, np.random.default_rng(0)
    for frames in (LEAST, 3 * LEAST + 1):
        codes = rng.integers(0, info.codebook_size, (info.codebooks, frames))
        wanted = np.concatenate(list(codec.decode_blocks([codes])), axis=1)
        gap = float(np.abs(session.run({"codes": codes[None]})["audio"][0] - wanted).max())
        if not gap < TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise ModelError(f"{path.name}: the graph of {info.name} is {gap:.1e} from what numpy computes")


# Codebooks


def _chosen(nodes: Nodes, x: str, books: Sequence[Float]) -> str:
    """Nearest entries of one codebook after the other: (B, D, T) -> codes."""
    rows = []
    for index, book in enumerate(books):
        table = nodes.matrix(f"book.{index}", book)
        product = nodes.node("MatMul", [table, x], f"book.{index}.product")  # (B, N, T)
        half = nodes.tensor(f"book.{index}.half", 0.5 * np.sum(book * book, axis=1, keepdims=True))
        near = nodes.node("Sub", [product, half], f"book.{index}.near")
        rows.append(nodes.node("ArgMax", [near], f"book.{index}.row", axis=1))
        if index + 1 < len(books):
            found = nodes.node("Gather", [table, rows[-1]], f"book.{index}.found", axis=0)  # (B, 1, T, D)
            found = nodes.node("Squeeze", [found, nodes.constant([1])], f"book.{index}.entry")
            found = nodes.node("Transpose", [found], f"book.{index}.turned", perm=[0, 2, 1])
            x = nodes.node("Sub", [x, found], f"book.{index}.rest")
    return nodes.node("Concat", rows, "codes", axis=1)


def _looked_up(nodes: Nodes, books: Sequence[Float]) -> str:
    """The sums of chosen entries: codes -> (B, D, T)."""
    total = ""
    for index, book in enumerate(books):
        row = nodes.node("Gather", ["codes", nodes.constant(index)], f"row.{index}", axis=1)
        zero = nodes.constant(0)
        entry = nodes.node("Max", [row, zero], f"row.{index}.entry")
        found = nodes.node(
            "Gather", [nodes.matrix(f"book.{index}", book), entry], f"row.{index}.found", axis=0
        )
        there = nodes.node("GreaterOrEqual", [row, zero], f"row.{index}.there")
        there = nodes.node("Cast", [there], f"row.{index}.share", to=FLOAT)
        there = nodes.node("Unsqueeze", [there, nodes.constant([-1])], f"row.{index}.factor")
        found = nodes.node("Mul", [found, there], f"row.{index}.counted")
        total = nodes.node("Add", [total, found], f"row.{index}.sum") if total else found
    return nodes.node("Transpose", [total], "latents", perm=[0, 2, 1])


# Layers: signals are (B, C, T)


def _stages(nodes: Nodes, stages: Sequence[Stage], x: str) -> str:
    for index, stage in enumerate(stages):
        if isinstance(stage, Recurrent):
            x = _recurrent(nodes, stage, x, f"stage.{index}")
        elif isinstance(stage, Convolutional):
            x = _layers(nodes, stage.layers, x, f"stage.{index}")
    return x


def _layers(nodes: Nodes, layers: Sequence[Any], x: str, name: str) -> str:
    for index, layer in enumerate(layers):
        x = _layer(layer, nodes, x, f"{name}.{index}")
    return x


@singledispatch
def _layer(layer: Any, nodes: Nodes, x: str, name: str) -> str:
    raise OptionError(f"a codec with layers of the kind {type(layer).__name__} has no such graph")


@_layer.register
def _conv(layer: Conv, nodes: Nodes, x: str, name: str) -> str:
    pads = [layer.left, layer.right]  # whole frames come in, so that the last window of a stride is full
    if layer.mode != "constant" and any(pads):
        around = nodes.constant([0, 0, layer.left, 0, 0, layer.right])
        x, pads = nodes.node("Pad", [x, around], f"{name}.padded", mode=layer.mode), [0, 0]
    inputs = [x, _kernel(nodes, layer.weight, name), *_bias(nodes, layer.bias, name)]
    steps = {"strides": [layer.stride], "dilations": [layer.dilation], "pads": pads}
    return nodes.node("Conv", inputs, name, kernel_shape=[layer.kernel], **steps)


@_layer.register
def _conv_transpose(layer: ConvTranspose, nodes: Nodes, x: str, name: str) -> str:
    weight = np.ascontiguousarray(layer.weight.transpose(2, 0, 1))  # from (out, k, in), as numpy adopts it
    inputs = [x, nodes.tensor(f"{name}.weight", weight), *_bias(nodes, layer.bias, name)]
    pads = [layer.left, layer.right]
    return nodes.node(
        "ConvTranspose", inputs, name, kernel_shape=[layer.kernel], strides=[layer.stride], pads=pads
    )


@_layer.register
def _residual(layer: Residual, nodes: Nodes, x: str, name: str) -> str:
    branch = _layers(nodes, layer.branch, x, f"{name}.branch")
    return nodes.node("Add", [branch, _layers(nodes, layer.shortcut, x, f"{name}.shortcut")], name)


@_layer.register
def _elu(layer: Elu, nodes: Nodes, x: str, name: str) -> str:
    return nodes.node("Elu", [x], name)


@_layer.register
def _gelu(layer: frame.Gelu, nodes: Nodes, x: str, name: str) -> str:
    return nodes.node("Gelu", [x], name)


@_layer.register
def _scale(layer: frame.Scale, nodes: Nodes, x: str, name: str) -> str:
    return nodes.node("Mul", [x, nodes.tensor(f"{name}.factor", layer.factor)], name)


@_layer.register
def _depthwise(layer: frame.DepthwiseConv, nodes: Nodes, x: str, name: str) -> str:
    half = layer.kernel // 2
    inputs = [x, nodes.tensor(f"{name}.weight", layer.weight), *_bias(nodes, layer.bias, name)]
    facts = {"group": len(layer.weight), "kernel_shape": [layer.kernel], "pads": [half, half]}
    return nodes.node("Conv", inputs, name, **facts)


@_layer.register
def _layer_norm(layer: frame.LayerNorm, nodes: Nodes, x: str, name: str) -> str:
    turned = nodes.node("Transpose", [x], f"{name}.turned", perm=[0, 2, 1])
    weight, bias = layer.weight.reshape(-1), layer.bias.reshape(-1)
    normal = nodes.layer_norm(turned, f"{name}.normal", weight, bias, 1e-6)
    return nodes.node("Transpose", [normal], name, perm=[0, 2, 1])


@_layer.register
def _spectrum(layer: frame.Spectrum, nodes: Nodes, x: str, name: str) -> str:
    """Fourier transforms in float64, as numpy has them: real parts, then imaginary ones."""
    around = nodes.constant([0, 0, layer.edge, 0, 0, layer.edge])
    padded = nodes.node("Pad", [x, around], f"{name}.padded")
    exact = nodes.node("Cast", [padded], f"{name}.exact", to=TensorProto.DOUBLE)
    signal = nodes.node("Transpose", [exact], f"{name}.signal", perm=[0, 2, 1])  # (B, T, 1)
    window = nodes.tensor(f"{name}.window", frame.hann(layer.window))
    hop, size = nodes.constant(layer.hop_length), nodes.constant(layer.window)
    made = nodes.node("STFT", [signal, hop, window, size], f"{name}.made")  # (B, F, bins, 2)
    parts = nodes.node("Transpose", [made], f"{name}.parts", perm=[0, 3, 2, 1])
    whole = nodes.node("Reshape", [parts, nodes.constant([0, layer.window + 2, -1])], f"{name}.whole")
    return nodes.node("Cast", [whole], name, to=FLOAT)


@_layer.register
def _compress(layer: frame.Compress, nodes: Nodes, x: str, name: str) -> str:
    parts = nodes.node("Reshape", [x, nodes.constant([0, 2, layer.bins, -1])], f"{name}.parts")
    square = nodes.node("ReduceSumSquare", [parts, nodes.constant([1])], f"{name}.square")
    above = nodes.node("Add", [square, nodes.constant(np.float32(layer.floor))], f"{name}.above")
    power = nodes.constant(np.float32((layer.power - 1) / 2))
    gain = nodes.node("Pow", [above, power], f"{name}.power")
    gain = nodes.node("Mul", [gain, nodes.constant(np.float32(layer.scale))], f"{name}.gain")
    made = nodes.node("Mul", [parts, gain], f"{name}.made")
    return nodes.node("Reshape", [made, nodes.constant([0, 2 * layer.bins, -1])], name)


@_layer.register
def _even_windows(layer: frame.EvenWindows, nodes: Nodes, x: str, name: str) -> str:
    """Only the first and the last window of samples are changed, whatever lies between them."""
    gain = layer(NumpyOps(), np.ones((1, 1, 4 * layer.window), np.float32))
    begin = nodes.tensor(f"{name}.begin", gain[..., : layer.window])
    end = nodes.tensor(f"{name}.end", gain[..., -layer.window :])
    length = nodes.node("Shape", [x], f"{name}.length", start=2, end=3)
    between = nodes.node("Sub", [length, nodes.constant([2 * layer.window])], f"{name}.between")
    shape = nodes.node("Concat", [nodes.constant([1, 1]), between], f"{name}.shape", axis=0)
    middle = nodes.node("Expand", [nodes.constant(np.float32(1)), shape], f"{name}.middle")
    whole = nodes.node("Concat", [begin, middle, end], f"{name}.gain", axis=2)
    return nodes.node("Mul", [x, whole], name)


def _recurrent(nodes: Nodes, stage: Recurrent, x: str, name: str) -> str:
    """LSTM layers, and what they were given added."""
    lstm: Any = stage.lstm
    y = nodes.node("Transpose", [x], f"{name}.steps", perm=[2, 0, 1])  # (T, B, C)
    for index, layer in enumerate(lstm.layers):
        at, size = f"{name}.{index}", layer.weight_hh.shape[1]
        bias = np.concatenate([_gates(layer.bias), np.zeros_like(layer.bias)])
        parts = {"ih": _gates(layer.weight_ih), "hh": _gates(layer.weight_hh), "bias": bias}
        inputs = [y, *(nodes.tensor(f"{at}.{part}", values[None]) for part, values in parts.items())]
        made = nodes.node("LSTM", inputs, f"{at}.made", hidden_size=size)  # (T, 1, B, C)
        y = nodes.node("Squeeze", [made, nodes.constant([1])], at)
    y = nodes.node("Transpose", [y], f"{name}.made", perm=[1, 2, 0])
    return nodes.node("Add", [y, x], f"{name}.added")


def _gates(values: NDArray[Any]) -> NDArray[Any]:
    """Rows of the gates i, f, g, o in the order i, o, f, g."""
    first, forget, cell, out = np.split(values, 4)
    return np.concatenate([first, out, forget, cell])


def _kernel(nodes: Nodes, weight: Float, name: str) -> str:
    """A weight (out, in, k); one that sees a step alone is stored as a matrix is."""
    if weight.shape[2] > 1:
        return nodes.tensor(f"{name}.weight", weight)
    matrix = nodes.matrix(f"{name}.matrix", weight[:, :, 0])
    return nodes.node("Unsqueeze", [matrix, nodes.constant([2])], f"{name}.weight")


def _bias(nodes: Nodes, bias: Float | None, name: str) -> list[str]:
    return [] if bias is None else [nodes.tensor(f"{name}.bias", bias.reshape(-1))]
