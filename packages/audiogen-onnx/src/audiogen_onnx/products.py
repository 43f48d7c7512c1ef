"""The matrices of products in the numbers that an exported graph keeps them in, and back as float32.

| tensors of the matrix NAME, (inputs, outputs) | numbers |
| --- | --- |
| NAME.weight | float32 |
| NAME.weight.half | float16 |
| NAME.weight.int8, NAME.weight.scale | whole numbers of 7 bits, a scale for each output |
| NAME.weight.int4, NAME.weight.scale, NAME.weight.zero | of 4 bits, a scale and a zero point for each block |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ManifestError, WeightsError

BLOCK = 32
"""Weights that share a scale in int4, along the inputs."""

WIDEST = 64
"""Of an int8 weight: two products with activations of 8 bits, 2 * 255 * 64, fit into 16 bits."""

Float = NDArray[np.float32]
Stored = Mapping[str, NDArray[Any]]
"""Tensors by name; reading one may take a while."""

_FORMS = ("", ".half", ".int8", ".int4")


def holds(stored: Stored, name: str) -> bool:
    """Whether there is a matrix of that name."""
    return any(f"{name}.weight{form}" in stored for form in _FORMS)


def form_of(stored: Stored, name: str) -> str:
    """What the name of a matrix ends in where it is stored: "", ".half", ".int8" or ".int4".

    Raises ManifestError when there is none.
    """
    for form in _FORMS:
        if f"{name}.weight{form}" in stored:
            return form
    raise ManifestError(f"the graph holds no {name}.weight, so it is no network of VampNet")


def read(stored: Stored, name: str) -> Float:
    """A matrix (inputs, outputs) as float32. Raises ManifestError when there is none."""
    form, stem = form_of(stored, name), f"{name}.weight"
    values = stored[stem + form].astype(np.float32)
    if form == ".int8":
        values *= stored[f"{stem}.scale"]
    elif form == ".int4":
        scale, zero = stored[f"{stem}.scale"], stored[f"{stem}.zero"].astype(np.float32)
        blocks = values.reshape(-1, BLOCK, values.shape[1])
        values = ((blocks - zero[:, None]) * scale[:, None]).reshape(values.shape)
    return values


def written(matrix: Float, name: str, form: str) -> dict[str, NDArray[Any]]:
    """The tensors of a matrix (inputs, outputs) in a form. Raises WeightsError for numbers too large."""
    stem = f"{name}.weight"
    if form == ".half":
        return {f"{stem}.half": half(matrix, stem)}
    if form == ".int8":
        return dict(zip((f"{stem}.int8", f"{stem}.scale"), int8(matrix), strict=True))
    if form == ".int4":
        return dict(zip((f"{stem}.int4", f"{stem}.scale", f"{stem}.zero"), int4(matrix), strict=True))
    return {stem: matrix}


def half(values: Float, name: str) -> NDArray[np.float16]:
    """Numbers as float16. Raises WeightsError for such as are too large for it."""
    with np.errstate(over="ignore"):
        small = values.astype(np.float16)
    if not np.isfinite(small).all():
        raise WeightsError(f"{name} holds numbers too large for float16; use int8 or float32")
    return small


def int8(matrix: Float) -> tuple[NDArray[np.int8], Float]:
    """Whole numbers (inputs, outputs), and the scale of each output."""
    scale = above_zero(np.abs(matrix).max(axis=0) / np.float32(WIDEST))
    return np.clip(np.rint(matrix / scale), -WIDEST, WIDEST).astype(np.int8), scale


def int4(matrix: Float) -> tuple[NDArray[np.uint8], Float, NDArray[np.uint8]]:
    """Whole numbers 0..15 (inputs, outputs); scales and zero points (inputs / 32, outputs)."""
    blocks = matrix.reshape(-1, BLOCK, matrix.shape[1])
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    scale = above_zero((high - low) / np.float32(15))
    zero = np.clip(np.rint(-low / scale), 0, 15)
    whole = np.clip(np.rint(blocks / scale[:, None]) + zero[:, None], 0, 15).reshape(matrix.shape)
    return whole.astype(np.uint8), scale, zero.astype(np.uint8)


def above_zero(scale: Float) -> Float:
    """Scales that can be divided by: all-zero weights get 1."""
    return np.where(scale > 0, scale, 1).astype(np.float32)
