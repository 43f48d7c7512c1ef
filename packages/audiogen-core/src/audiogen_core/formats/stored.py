"""Arrays that lie in a file and are read when asked for."""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from audiogen_core.errors import WeightsError

Array = NDArray[Any]

ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    "bool": 1,
}  # fmt: skip
"""Bytes of one element, for every dtype that is read."""

MAX_DIMENSIONS = 32
MAX_ELEMENTS = 1 << 48


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: its shape and dtype are known, its values are read by `read`.

    dtype is the name as stored. bfloat16 has no numpy type and reads as float32, exactly.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]

    @classmethod
    def of(cls, array: Array) -> StoredArray:
        """An array in memory, to be written as it is."""
        return cls(array.shape, array.dtype.name, lambda: array)

    def read(self) -> Array:
        """The values, in memory of their own. Raises WeightsError when the file fails."""
        return self.load()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self.read(), dtype=dtype)


class FileBytes:
    """Parts of a regular file. A file that changes after it was opened is refused, not read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            found = self.path.stat()
        except OSError as error:
            raise WeightsError(f"{self.path}: cannot be opened ({error.strerror})") from error
        if not stat.S_ISREG(found.st_mode):
            raise WeightsError(f"{self.path}: not a regular file")
        self.size = found.st_size
        self._identity = _identity(found)

    def read(self, offset: int, count: int) -> bytes:
        """Bytes [offset, offset + count). Raises WeightsError when the file does not hold them."""
        self._check(offset, count)
        return self.array(offset, count, "uint8").tobytes()

    def array(self, offset: int, count: int, dtype: str) -> Array:
        """`count` elements from byte `offset`, as stored (bfloat16 as uint16, bool as uint8)."""
        kind = np.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(dtype, dtype)).newbyteorder("<")
        self._check(offset, count * kind.itemsize)
        try:
            with self.path.open("rb", buffering=0) as file:
                if _identity(os.fstat(file.fileno())) != self._identity:
                    raise WeightsError(
                        f"{self.path}: the file changed while it was being read; load it again"
                    )
                values = np.fromfile(file, kind, count, offset=offset)
        except OSError as error:
            raise WeightsError(f"{self.path}: cannot be read ({error})") from error
        if values.size != count:
            raise WeightsError(f"{self.path}: the file ends early; fetch it again")
        return values

    def checksum(self, offset: int, count: int) -> int:
        """CRC-32 of a part, read in pieces of 4 MiB."""
        crc = 0
        for start in range(offset, offset + count, 1 << 22):
            crc = zlib.crc32(self.array(start, min(1 << 22, offset + count - start), "uint8").data, crc)
        return crc

    def _check(self, offset: int, count: int) -> None:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise WeightsError(f"{self.path}: the file ends early ({self.size} bytes); fetch it again")


def decode(values: Array, dtype: str) -> Array:
    """Stored elements as numbers: bfloat16 bits become float32, bytes become bool."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "bool":
        return np.not_equal(values, 0).astype(np.bool_)
    return values


def encode(values: Array, dtype: str) -> Array:
    """Numbers as they are stored, the inverse of `decode`; little-endian and without gaps.

    Raises WeightsError when float32 values to be stored as bfloat16 are not bfloat16 numbers.
    """
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        if (bits & 0xFFFF).any():
            raise WeightsError("these numbers are no bfloat16: round them first")
        return (bits >> np.uint32(16)).astype("<u2")
    return np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))


def checked_shape(shape: object, what: str, *, product: bool = True) -> tuple[int, ...]:
    """A list or tuple of sizes as a tuple. Raises WeightsError unless sizes are sane integers.

    `product` False checks each number alone, as strides need.
    """
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise WeightsError(f"{what}: a damaged shape")
    if any(type(size) is not int or not 0 <= size <= MAX_ELEMENTS for size in shape):
        raise WeightsError(f"{what}: a damaged shape")
    if product and math.prod(shape) > MAX_ELEMENTS:
        raise WeightsError(f"{what}: a shape of {len(shape)} dimensions that is too large")
    return tuple(shape)


def shorten(name: object, limit: int = 120) -> str:
    """A name from a file, safe and short enough for a message."""
    text = repr(name[:limit] if isinstance(name, str) else type(name).__name__)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino
