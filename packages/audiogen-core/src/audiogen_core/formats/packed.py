"""Quantised matrices as mlx packs them: numbers of a few bits in words of 32, scales and offsets for 64 each.

A number q stands for q * scale + offset; the first of a word are its lowest bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64
"""Numbers of a row that share a scale and an offset."""

ENDINGS = ("", ".scales", ".offsets")
"""What is put behind the name of a matrix for its words, its scales and its offsets."""

Floats = NDArray[np.float32]


def unpacked(words: NDArray[np.uint32], scales: NDArray[Any], offsets: NDArray[Any], bits: int) -> Floats:
    """uint32 (rows, columns * bits / 32) and (rows, columns / 64) twice -> (rows, columns)."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    numbers = (words[:, :, None] >> shifts & np.uint32(2**bits - 1)).reshape(len(words), -1, GROUP)
    floats = numbers.astype(np.float32) * scales.astype(np.float32)[:, :, None]
    whole: Floats = (floats + offsets.astype(np.float32)[:, :, None]).reshape(len(words), -1)
    return whole


def packed(matrix: Floats, bits: int) -> tuple[NDArray[np.uint32], Floats, Floats]:
    """The inverse, as near as so many bits allow: each group from its least to its greatest number."""
    groups = matrix.reshape(len(matrix), -1, GROUP)
    offsets = groups.min(axis=2)
    scales = np.maximum((groups.max(axis=2) - offsets) / np.float32(2**bits - 1), np.finfo(np.float32).tiny)
    numbers = np.rint((groups - offsets[:, :, None]) / scales[:, :, None]).astype(np.uint32)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    words = np.bitwise_or.reduce(numbers.reshape(len(matrix), -1, 32 // bits) << shifts, axis=2)
    return words, scales, offsets
