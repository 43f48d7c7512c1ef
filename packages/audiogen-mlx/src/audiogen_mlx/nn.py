"""What the networks of this package share: modules of `mlx.nn`, filled strictly from a checkpoint.

A network is a module whose constructor knows its configuration alone. Its parameters say which tensors a
checkpoint must hold and of which shapes; `load_strict` takes exactly those, one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers import base, linear
from mlx.nn.layers.convolution import Conv1d
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.nn.layers.quantized import quantize as quantize_layers
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from audiogen_core.weights import Weights
from audiogen_mlx import forks

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}

GROUP = 64
"""Inputs of a quantised linear layer that share a scale and an offset."""

QUANTIZED = {"weight": "", "scales": ".scales", "biases": ".offsets"}
"""The parts of a quantised matrix: how mlx's layer calls them, and how they end in a file. A file keeps
"biases" for what is added to a product."""

Pieces = Mapping[str, Sequence[str]]
"""Name of a parameter -> the tensors in a checkpoint that it is made of, put below one another along the
first axis. A parameter that is not here is one tensor of its own name."""


class Module(base.Module):
    """A module of mlx; the one place where its untyped constructor is called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


class Linear(linear.Linear):
    """x @ weight.T + bias.

    The weight is (outputs, inputs) and lies in memory column by column, and the bias is added to the whole
    product, where mlx's own layer begins with it. Either changes how a small product is rounded, and clips
    that were made this way must come out the same again.
    """

    def __call__(self, x: mx.array) -> mx.array:
        y = x @ self.weight.T
        return y + self.bias if "bias" in self else y


def attend(query: mx.array, key: mx.array, value: mx.array, heads: int) -> mx.array:
    """Attention of all to all: three (B, F, width) -> (B, F, width)."""
    batch, frames, width = query.shape
    query, key, value = (
        part.reshape(batch, frames, heads, width // heads).transpose(0, 2, 1, 3)  # (B, H, F, D)
        for part in (query, key, value)
    )
    y = mx.fast.scaled_dot_product_attention(query, key, value, scale=(width // heads) ** -0.5)
    return y.transpose(0, 2, 1, 3).reshape(batch, frames, width)


@partial(mx.compile, shapeless=True)
def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x times the normal distribution up to x."""
    return 0.5 * x * (1 + mx.erf(x * 0.7071067811865476))


def mean_over_time(x: mx.array) -> mx.array:
    """The mean of (B, T, C) over time: (B, 1, C).

    Summed in about sqrt(T) blocks of as many steps: one sum from end to end, as mlx makes it on a CPU, has
    lost three digits of float32 after a second of sound.
    """
    batch, length, channels = x.shape
    block = math.isqrt(length)
    whole = length // block * block
    total = x[:, :whole].reshape(batch, -1, block, channels).sum(axis=2).sum(axis=1, keepdims=True)
    if whole < length:
        total = total + x[:, whole:].sum(axis=1, keepdims=True)
    return total / length


def quantize(module: base.Module, bits: int, *, biased: bool = False) -> None:
    """Turn the linear layers without a bias of a module that holds no weights yet into quantised ones.

    biased  those with a bias too, and of all of them those whose inputs are whole groups
    """

    def chosen(path: str, layer: base.Module) -> bool:
        if not isinstance(layer, linear.Linear):
            return False
        return layer.weight.shape[-1] % GROUP == 0 if biased else "bias" not in layer

    quantize_layers(module, GROUP, bits, class_predicate=chosen)


def load_strict(
    module: base.Module,
    weights: Weights,
    *,
    pieces: Pieces | None = None,
    dtype: mx.Dtype = mx.float32,
    keep: Callable[[str], bool] | None = None,
    squeezed: Collection[str] = (),
    stored_quantized: bool = False,
    ignore: Iterable[str] = (),
) -> None:
    """Fill every parameter of a module from a checkpoint, of which nothing may be left.

    ignore  regular expressions of the names in the checkpoint that are not for this module

    The others are those of `tensors`. Memory holds the module and one tensor. Raises WeightsError, which
    lists what is missing, misshapen or left over.
    """
    values = tensors(
        module,
        weights,
        pieces=pieces,
        dtype=dtype,
        keep=keep,
        squeezed=squeezed,
        stored_quantized=stored_quantized,
    )
    module.load_weights(list(values))
    weights.finish(ignore)


def tensors(
    module: base.Module,
    weights: Weights,
    *,
    pieces: Pieces | None = None,
    dtype: mx.Dtype = mx.float32,
    keep: Callable[[str], bool] | None = None,
    squeezed: Collection[str] = (),
    stored_quantized: bool = False,
) -> Iterator[tuple[str, mx.array]]:
    """Every parameter of a module by name, in the module's order, each read when it is asked for.

    dtype             of the parameters
    keep              which of them, by name, are float32 in any case
    squeezed          tensors of the checkpoint that may have one axis more, the last, of size one: a
                      convolution of one tap is a matrix here
    stored_quantized  quantised layers are stored as such; otherwise their matrices are quantised one by one

    Raises WeightsError at the first when tensors are missing or misshapen, at one that is not finite.
    """
    forks.check()
    # The layers drew numbers to begin with, which nobody asks for; what the next draw begins from would hold
    # on to how all before were drawn, 4 kB a layer, for as long as the process lives.
    mx.eval(mx.random.state)
    wanted = list(parameters(module, pieces, stored_quantized=stored_quantized))
    shapes = {name: one.piece_shape for one in wanted for name in one.pieces}
    for name in squeezed:
        if name in weights and weights.shape(name) == (*shapes[name], 1):
            shapes[name] = (*shapes[name], 1)
    weights.check(shapes)
    for one in wanted:
        kept = keep is not None and keep(one.name)
        yield from _read(one, weights, shapes, mx.float32 if kept else dtype)


def stored_shapes(module: base.Module, pieces: Pieces | None = None) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of floats must hold for a module."""
    return {name: one.piece_shape for one in parameters(module, pieces) for name in one.pieces}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a module, or the matrix that becomes the three of a quantised layer.

    name       in the module
    shape      of the whole, in torch's layout
    pieces     that it is stored in, of equal shapes
    layer      it belongs to
    packed     it is stored as words of several numbers each
    quantizes  it is stored in floats, and the layer is quantised
    """

    name: str
    shape: tuple[int, ...]
    pieces: tuple[str, ...]
    layer: Any
    packed: bool = False
    quantizes: bool = False

    @property
    def piece_shape(self) -> tuple[int, ...]:
        return (self.shape[0] // len(self.pieces), *self.shape[1:])

    def laid_out(self, whole: NDArray[Any], dtype: mx.Dtype) -> mx.array:
        """As the layer has it."""
        if self.packed:
            return mx.array(whole)
        if isinstance(self.layer, Conv1d) and whole.ndim == 3:
            whole = np.ascontiguousarray(whole.transpose(0, 2, 1))  # (out, in, k) -> (out, k, in)
        value = mx.array(whole).astype(dtype)
        by_columns = isinstance(self.layer, Linear) and whole.ndim == 2
        return mx.contiguous(value.T).T if by_columns else value


def parameters(
    module: base.Module, pieces: Pieces | None = None, *, stored_quantized: bool = False
) -> Iterator[Parameter]:
    """What a checkpoint holds for the parameters of a module, in its order."""
    pieces = pieces or {}
    layers = dict(module.named_modules())  # type: ignore[no-untyped-call]
    flat: Any = tree_flatten(module.parameters())  # type: ignore[no-untyped-call]
    for name, array in flat:
        path, _, leaf = name.rpartition(".")
        layer, shape = layers[path], array.shape
        if isinstance(layer, QuantizedLinear) and leaf in QUANTIZED:
            matrix = f"{path}.weight"
            stored = tuple(pieces.get(matrix, (matrix,)))
            if stored_quantized:
                names = tuple(one + QUANTIZED[leaf] for one in stored)
                yield Parameter(name, shape, names, layer, packed=leaf == "weight")
            elif leaf == "weight":  # the other two come of it
                rows, words = shape
                yield Parameter(name, (rows, words * 32 // layer.bits), stored, layer, quantizes=True)
            continue
        if isinstance(layer, Conv1d) and leaf == "weight":
            outputs, taps, inputs = shape
            shape = outputs, inputs, taps
        yield Parameter(name, shape, tuple(pieces.get(name, (name,))), layer)


def _read(
    one: Parameter, weights: Weights, shapes: Mapping[str, tuple[int, ...]], dtype: mx.Dtype
) -> list[tuple[str, mx.array]]:
    """A parameter, or the three parts of a quantised matrix, in memory: what they were read from is not."""
    value = one.laid_out(_joined(one, weights, shapes), dtype)
    mx.eval(value)
    if not one.quantizes:
        return [(one.name, value)]
    parts = mx.quantize(value, group_size=one.layer.group_size, bits=one.layer.bits)
    mx.eval(parts)
    stem = one.name.removesuffix("weight")
    return [(stem + part, array) for part, array in zip(QUANTIZED, parts, strict=True)]


def _joined(one: Parameter, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[Any]:
    """The pieces of a parameter below one another, of which one at a time is in memory."""
    dtype: Any = np.uint32 if one.packed else np.float32
    if len(one.pieces) == 1:
        return weights.take(one.pieces[0], shapes[one.pieces[0]], dtype).reshape(one.shape)
    whole, rows = np.empty(one.shape, dtype), one.piece_shape[0]
    for index, name in enumerate(one.pieces):
        piece = weights.take(name, shapes[name], dtype)
        whole[index * rows : (index + 1) * rows] = piece.reshape(one.piece_shape)
    return whole
