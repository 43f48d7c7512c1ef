"""The beginning of a numpy file, where its array is described; the array follows as it lies in memory.

Format: numpy/lib/format.py, versions 1 to 3. numpy's own reader unpickles objects when it is let, and takes
any description that Python can evaluate.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from audiogen_core.errors import AudiogenError

MAX_HEAD = 10_000
"""Bytes before an array; numpy writes 128."""

_WIDTHS = {1: 2, 2: 4, 3: 4}  # version -> bytes that say how long the description is


@dataclass(frozen=True)
class Described:
    """An array in a file: its bytes begin at `start`, in C's order of axes or Fortran's."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    start: int


def read_head(data: bytes, name: str, error: type[AudiogenError]) -> Described:
    """What the first bytes of a file say, of which `data` are MAX_HEAD or all. Raises `error`."""
    width = _WIDTHS.get(data[6] if len(data) > 8 else 0)
    if data[:6] != b"\x93NUMPY" or width is None:
        raise error(f"{name}: not an NPY file, or of a version that is not known")
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > len(data):
        raise error(f"{name}: a damaged NPY file: its description is cut, or too long")
    try:
        facts = ast.literal_eval(data[8 + width : start].decode("utf-8"))
        shape, dtype, fortran = facts["shape"], np.dtype(str(facts["descr"])), facts["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as reason:
        raise error(f"{name}: a damaged NPY file: its description cannot be read") from reason
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise error(f"{name}: a damaged NPY file: its shape is {str(shape)[:40]}")
    return Described(shape, "F" if fortran else "C", dtype, start)
