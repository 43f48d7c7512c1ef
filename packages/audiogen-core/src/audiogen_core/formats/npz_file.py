"""Archives of numpy.savez, read without numpy.load: no pickles, and each array when it is asked for."""

from __future__ import annotations

import math
from pathlib import Path

from audiogen_core.errors import WeightsError
from audiogen_core.formats.npy import MAX_HEAD, read_head
from audiogen_core.formats.stored import (
    ITEM_SIZES,
    Array,
    FileBytes,
    StoredArray,
    checked_shape,
    decode,
    shorten,
)
from audiogen_core.formats.stored_zip import Entry, StoredZip


def read_npz(path: str | Path) -> dict[str, StoredArray]:
    """The arrays of an archive by their names. Texts of bytes are arrays of them.

    Raises WeightsError when it is damaged, compressed, or holds anything but plain numbers.
    """
    archive = StoredZip(FileBytes(path), "an npz archive", "numpy.savez")
    arrays: dict[str, StoredArray] = {}
    for name in archive:
        own = name.removesuffix(".npy")
        if own in arrays:
            raise archive.bad(f"two arrays are named {shorten(own)}")
        arrays[own] = _array(archive, archive.entry(name))
    return arrays


def _array(archive: StoredZip, entry: Entry) -> StoredArray:
    what = f"{archive.file.path}: {shorten(entry.name)}"
    head = read_head(archive.file.read(entry.start, min(entry.size, MAX_HEAD)), what, WeightsError)
    shape, kind = head.shape, head.dtype.name
    if head.dtype.kind == "S":
        shape, kind = (*shape, head.dtype.itemsize), "uint8"
    if kind not in ITEM_SIZES or head.dtype.byteorder == ">":
        raise WeightsError(f"{what}: an array of {head.dtype}, which is not read; numbers are expected")
    shape = checked_shape(shape, what)
    count = math.prod(shape)
    if entry.size - head.start != count * ITEM_SIZES[kind]:
        raise WeightsError(f"{what}: a damaged array: it holds more or less than its shape {shape} says")

    def load() -> Array:
        return decode(archive.array(entry, head.start, count, kind), kind).reshape(shape, order=head.order)

    return StoredArray(shape, kind, load)
