"""Weights in fewer bits: what is kept of a matrix (outputs, inputs), and the numbers that stand for it.

float16  half the bytes; arithmetic stays float32
int8     whole numbers -127 to 127 with a scale for each 32 inputs of an output
int4     whole numbers 0 to 15 with a scale and a zero point for each 32 inputs

onnxruntime rounds what is multiplied by int8 and int4 in the same blocks. Most of what int8 loses is lost so,
and not by the weights, and a good part of it where layers widen; there, and at the heads, a block has 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiogen_core.ops import Float
from audiogen_onnx.products import above_zero, half

BLOCK = 32
"""Weights that share a scale, along the inputs."""

FINE = 16
"""The same where rounding matters most."""

BITS = {"int8": 8, "int4": 4}


class Blocks(NamedTuple):
    """A matrix in blocks, as onnxruntime's MatMulNBits takes it.

    whole  uint8 (outputs, blocks, size), not packed yet
    scale  float32 (outputs, blocks)
    zero   uint8 (outputs, blocks), the whole number that stands for 0
    """

    whole: NDArray[np.uint8]
    scale: Float
    zero: NDArray[np.uint8]


def blocks(weight: Float, bits: int, size: int) -> Blocks:
    """A matrix (outputs, inputs) in blocks of so many inputs; the last is filled up with zeros."""
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -inputs % size))).reshape(outputs, -1, size)
    if bits == 8:
        scale = above_zero(np.abs(padded).max(axis=2) / np.float32(127))
        zero = np.full(scale.shape, 128, np.uint8)
    else:
        low, high = np.minimum(padded.min(axis=2), 0), np.maximum(padded.max(axis=2), 0)
        scale = above_zero((high - low) / np.float32(15))
        zero = np.clip(np.rint(-low / scale), 0, 15).astype(np.uint8)
    whole = np.rint(padded / scale[..., None]) + zero[..., None]
    return Blocks(np.clip(whole, 0, (1 << bits) - 1).astype(np.uint8), scale, zero)


def whole_rows(weight: Float) -> tuple[NDArray[np.int8], Float] | None:
    """int8 (outputs, inputs) and a scale (outputs,) whose product is exactly the matrix; None for all others.

    Small models are stored so (`audiogen_core.weights.Int8Rows`).
    """
    widest = np.abs(weight).max(axis=1)
    near = above_zero(widest / np.float32(127))
    for scale in (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))):
        exact = (np.rint(weight / scale[:, None]) * scale[:, None] == weight).all(axis=1)
        near = np.where(exact, scale, near)
    whole = np.rint(weight / near[:, None])
    if not (whole * near[:, None] == weight).all():
        return None
    return whole.astype(np.int8), near


def packed(whole: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Whole numbers along the last axis, two to a byte where they have 4 bits, the first in the low half."""
    if bits == 8:
        return whole
    whole = np.pad(whole, [(0, 0)] * (whole.ndim - 1) + [(0, whole.shape[-1] % 2)])
    return np.ascontiguousarray(whole[..., 0::2] | whole[..., 1::2] << 4)


def stored(weight: Float, dtype: str, size: int = BLOCK) -> Float:
    """What is left of a matrix, as float32; `size` of the blocks, where there are."""
    if dtype == "float16":
        return half(weight, "a matrix").astype(np.float32)
    if dtype not in BITS:
        return weight
    made = blocks(weight, BITS[dtype], size)
    values = (made.whole.astype(np.float32) - made.zero[..., None]) * made.scale[..., None]
    return np.ascontiguousarray(values.reshape(len(weight), -1)[:, : weight.shape[1]])
