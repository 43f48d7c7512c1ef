"""What lies inside an ONNX file, as far as trust needs it: is it whole, and which other files does it name.

An ONNX file is a protocol buffer: fields of (number, kind, value), nested. Only the fields on the way to
tensors are walked, so no onnx package is needed and weights inside the file are passed over.
Source: onnx.proto of the ONNX project, and the encoding of protocol buffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ManifestError

_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Message -> number of a field -> the message in it."""

_DEEPEST = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ExternalData:
    """A file that holds tensors of a graph: its name as written, and how many bytes it must have."""

    name: str
    size: int


def external_data(path: Path) -> list[ExternalData]:
    """The files beside a graph in which its tensors lie.

    Raises ManifestError when the graph is no regular file, is cut off, or is not an ONNX file.
    """
    check_regular(path)
    if path.stat().st_size == 0:
        raise ManifestError(f"{path}: the graph is empty; export it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _collect(data)
        except _Damaged as error:
            raise ManifestError(
                f"{path}: not a whole ONNX graph ({error}); copy or export it again"
            ) from error


def check_regular(path: Path) -> None:
    """Raise ManifestError unless `path` is a file itself, not a link to one."""
    if path.is_symlink():
        raise ManifestError(f"{path}: is a link; the files of an exported folder must lie in it themselves")
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; export the folder again")


def check_name(name: str, where: Path) -> None:
    """Raise ManifestError unless `name` is the plain name of a file in the folder of `where`."""
    if not name or name in (".", "..") or any(char in name for char in '/\\:\0\n"'):
        raise ManifestError(f"{where}: names the file {name!r}, which does not lie in the same folder")


def check_external_data(path: Path) -> None:
    """Raise ManifestError unless every file a graph names lies beside it, whole and without links."""
    for data in external_data(path):
        check_name(data.name, path)
        beside = path.parent / data.name
        check_regular(beside)
        size = beside.stat().st_size
        if size < data.size:
            raise ManifestError(
                f"{beside}: has {size} bytes, but {path.name} needs {data.size}; it is cut off, "
                "copy or export it again"
            )


class _Damaged(ValueError):
    """The bytes are no protocol buffer of this kind."""


def _collect(data: mmap.mmap) -> list[ExternalData]:
    sizes: dict[str, int] = {}
    if not any(number == 7 for number, _, _ in _fields(data, 0, len(data))):
        raise _Damaged("it holds no graph")
    for start, end in _tensors(data, "model", 0, len(data), 0):
        entries = dict(_entry(data, *span) for number, *span in _fields(data, start, end) if number == 13)
        if not entries:
            continue
        name = entries.get("location", "")
        offset, length = _count(entries.get("offset", "0")), _count(entries.get("length", "0"))
        sizes[name] = max(sizes.get(name, 0), offset + length)
    return [ExternalData(name, size) for name, size in sizes.items()]


def _tensors(data: mmap.mmap, kind: str, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
    """(start, end) of every tensor within a message."""
    if depth > _DEEPEST:
        raise _Damaged("graphs lie in graphs without end")
    if kind == "tensor":
        yield start, end
        return
    inside = _INSIDE[kind]
    for number, begin, stop in _fields(data, start, end):
        if number in inside:
            yield from _tensors(data, inside[number], begin, stop, depth + 1)


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    """A key and its value."""
    parts = {1: "", 2: ""}
    for number, begin, stop in _fields(data, start, end):
        try:
            parts[number] = data[begin:stop].decode()
        except UnicodeDecodeError as error:
            raise _Damaged("a name is not text") from error
    return parts[1], parts[2]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _Damaged(f"{text!r} is no number of bytes")
    return int(text)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field with bytes in it; other fields are passed over."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise _Damaged(f"{size} bytes are announced at byte {at}, {end - at} are there")
            yield tag >> 3, at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _Damaged(f"unknown kind of field at byte {at}")
    if at != end:
        raise _Damaged(f"a field ends beyond byte {end}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Damaged(f"a number does not end before byte {at}")
