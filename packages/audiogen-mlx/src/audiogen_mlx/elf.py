"""Giving symbols of a shared library their plain names, for libraries that prefix all of them.

A library's dynamic symbols point at their names in a table of strings. A prefix is dropped by pointing
past it; what has to be made anew is the hash table in which the loader finds names. The System V form
of it takes no more room than the GNU form that is there, so it replaces that one in place, and nothing
else in the file moves. Format: System V gABI, chapters 4 and 5; GNU hash: binutils' documentation of
`--hash-style`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Image: TypeAlias = bytes | bytearray | memoryview
Edit: TypeAlias = tuple[int, bytes]  # offset in the file, what to write there

_LOAD, _DYNAMIC = 1, 2
_HASH, _STRINGS, _SYMBOLS, _GNU_HASH = 4, 5, 6, 0x6FFFFEF5
_SYMBOL_SIZE = 24


class ElfError(Exception):
    """Not a file this module can edit; the message says why."""


def drop_prefix(image: Image, prefix: str, names: frozenset[str]) -> list[Edit]:
    """The edits after which `names` are found in a library that holds each of them behind `prefix`.

    image  a shared library: 64 bits, little-endian, with a GNU hash table

    Raises ElfError when the file is of another kind, damaged, or lacks one of the names.
    """
    try:
        return _Library(image).drop_prefix(prefix.encode(), {name.encode() for name in names})
    except (struct.error, IndexError, ValueError) as error:
        raise ElfError(f"a damaged library ({error})") from error


@dataclass(frozen=True)
class _Entry:
    """One entry of the dynamic section: where it stands in the file, and its value."""

    place: int
    value: int


class _Library:
    def __init__(self, image: Image) -> None:
        self.image = memoryview(image)
        if bytes(self.image[:6]) != b"\x7fELF\x02\x01":
            raise ElfError("not an ELF library of 64 bits, little-endian")
        table, size, count = *struct.unpack_from("<Q", self.image, 32), *struct.unpack_from("<HH", image, 54)
        headers = [struct.unpack_from("<II6Q", self.image, table + i * size) for i in range(count)]
        self.loaded = [(h[3], h[3] + h[5], h[2]) for h in headers if h[0] == _LOAD]  # from, to, file offset
        self.dynamic: dict[int, _Entry] = {}
        for header in headers:
            if header[0] == _DYNAMIC:
                self.dynamic = dict(self._entries(header[2], header[5]))
        missing = {_STRINGS, _SYMBOLS, _GNU_HASH} - set(self.dynamic)
        if missing:
            raise ElfError("a library without a GNU hash table of its symbols")
        self.strings = self._offset(self.dynamic[_STRINGS].value)
        self.symbols = self._offset(self.dynamic[_SYMBOLS].value)
        self.hash = self._offset(self.dynamic[_GNU_HASH].value)

    def drop_prefix(self, prefix: bytes, wanted: set[bytes]) -> list[Edit]:
        count, room = self._gnu_extent()
        names = [self._name(i) for i in range(count)]
        edits: list[Edit] = []
        for i, name in enumerate(names):
            if name.startswith(prefix) and name[len(prefix) :] in wanted:
                place = self.symbols + i * _SYMBOL_SIZE
                (start,) = struct.unpack_from("<I", self.image, place)
                edits.append((place, struct.pack("<I", start + len(prefix))))
                names[i] = name[len(prefix) :]
        left = wanted - set(names)
        if left:
            raise ElfError(f"the library lacks {prefix.decode()}{min(left).decode()}")
        table = _hash_table(names, room)
        address = self.dynamic[_GNU_HASH].value
        places = [entry.place for tag, entry in self.dynamic.items() if tag in (_HASH, _GNU_HASH)]
        return [
            *edits,
            (self.hash, table),
            *((place, struct.pack("<QQ", _HASH, address)) for place in places),
        ]

    def _entries(self, start: int, size: int) -> Iterator[tuple[int, _Entry]]:
        for place in range(start, start + size, 16):
            tag, value = struct.unpack_from("<QQ", self.image, place)
            if tag == 0:
                return
            yield tag, _Entry(place, value)

    def _offset(self, address: int) -> int:
        for start, stop, offset in self.loaded:
            if start <= address < stop:
                return int(address - start + offset)
        raise ElfError("a table of the library lies outside of it")

    def _gnu_extent(self) -> tuple[int, int]:
        """How many symbols there are, and the bytes of the table: its last chain tells."""
        buckets, first, bloom, _ = struct.unpack_from("<4I", self.image, self.hash)
        start = self.hash + 16 + 8 * bloom
        heads = struct.unpack_from(f"<{buckets}I", self.image, start)
        chains = start + 4 * buckets
        last = max(heads, default=0)
        if last < first:
            raise ElfError("a library without symbols")
        while not struct.unpack_from("<I", self.image, chains + 4 * (last - first))[0] & 1:
            last += 1
        return last + 1, chains + 4 * (last + 1 - first) - self.hash

    def _name(self, index: int) -> bytes:
        (start,) = struct.unpack_from("<I", self.image, self.symbols + index * _SYMBOL_SIZE)
        begin = self.strings + start
        length = 64
        while (piece := bytes(self.image[begin : begin + length])).find(0) < 0:
            if begin + length > len(self.image):
                raise ElfError("a symbol's name does not end")
            length *= 2
        return piece[: piece.index(0)]


def _hash_table(names: list[bytes], room: int) -> bytes:
    """A System V hash table of all symbols but the first, in at most `room` bytes."""
    buckets = min(room // 4 - 2 - len(names), len(names))
    if buckets < 1:
        raise ElfError("no room for a hash table")
    heads, chains = [0] * buckets, [0] * len(names)
    for i, name in enumerate(names[1:], start=1):
        bucket = _hash(name) % buckets
        chains[i], heads[bucket] = heads[bucket], i
    return struct.pack(f"<{2 + buckets + len(names)}I", buckets, len(names), *heads, *chains)


def _hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value >> 24 & 0xF0)) & 0xFFFFFFF
    return value
