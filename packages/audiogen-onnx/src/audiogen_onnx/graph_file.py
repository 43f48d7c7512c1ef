"""What lies inside an ONNX file, as far as trust needs it: is it whole, and which other files does it name.

An ONNX file is a protocol buffer: fields of (number, kind, value), nested. Only the fields on the way to
tensors are walked, so no onnx package is needed and weights inside the file are passed over.

Readers of protocol buffers differ where the bytes are not as a writer makes them: numbers written in more
bytes than they need are cut to 32 bits by some, and a field that may stand once is merged or replaced when it
stands twice. Such bytes are refused, so that onnxruntime cannot find in them what was not seen here.
Source: onnx.proto of the ONNX project, and the encoding of protocol buffers.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiogen_core.errors import ManifestError

_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
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

_ONCE: dict[str, frozenset[int]] = {
    "model": frozenset((1, 2, 3, 4, 5, 6, 7)),
    "training": frozenset((1, 2)),
    "function": frozenset((1, 2, 8, 10, 13)),
    "graph": frozenset((2, 10)),
    "node": frozenset((3, 4, 7, 6, 8)),
    "attribute": frozenset((1, 2, 3, 4, 5, 6, 13, 14, 20, 21, 22)),
    "sparse tensor": frozenset((1, 2)),
    "tensor": frozenset((2, 3, 8, 9, 12, 14)),
    "entry": frozenset((1, 2)),
}
"""Message -> fields that stand in it once or never."""

_KEYS = ("location", "offset", "length", "checksum")
"""What is said of a tensor in another file."""

_GRAPH, _INITIALISER = 7, 5  # of a model, and of its graph
_DIMS, _KIND, _NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13  # of a tensor
_OP_TYPE = 4  # of a node
_FOREIGN = "EPContext"
"""The operator whose program an execution provider loads from another file."""

_DEEPEST = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FORMS = {_DIMS: _VARINT, _KIND: _VARINT, _NAME: _BYTES, _RAW: _BYTES}


@dataclass(frozen=True)
class ExternalData:
    """A file that holds tensors of a graph: its name as written, and how many bytes it must have."""

    name: str
    size: int


def external_data(path: Path) -> list[ExternalData]:
    """The files beside a graph in which its tensors lie.

    Raises ManifestError when the graph is no regular file, is cut off, or is not an ONNX file.
    """
    return _external_data(path, read_graph(path))


def read_graph(path: Path) -> bytes:
    """The bytes of a graph. Raises ManifestError when it is no regular file, or empty."""
    check_regular(path)
    with path.open("rb") as file:
        data = file.read()
    if not data:
        raise ManifestError(f"{path}: the graph is empty; export it again")
    return data


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
    check_beside(path, read_graph(path))


def check_beside(path: Path, data: bytes) -> dict[Path, tuple[int, ...]]:
    """As `check_external_data`, of a graph's bytes. Returns the `identity` of each file beside it."""
    beside = {}
    for named in _external_data(path, data):
        check_name(named.name, path)
        other = path.parent / named.name
        beside[other] = identity(other)
        size = other.stat().st_size
        if size < named.size:
            raise ManifestError(
                f"{other}: has {size} bytes, but {path.name} needs {named.size}; it is cut off, "
                "copy or export it again"
            )
    return beside


def identity(path: Path) -> tuple[int, ...]:
    """Device, inode, size and times of a regular file. Raises ManifestError when it is none, or a link.

    The time of the inode changes too when a file is written to and dated back, or moved away and back again.
    """
    check_regular(path)
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise ManifestError(f"{path}: was replaced while it was read")
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph, and where its numbers lie: bytes [start, stop) of `file`, or of the graph itself.

    kind  number of its type in onnx's TensorProto
    file  beside the graph; "" for the graph
    """

    kind: int
    shape: tuple[int, ...]
    file: str
    start: int
    stop: int


def tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    """The initialisers of a graph by name, but those that are kept in fields of their own types.

    Raises as `external_data`.
    """
    try:
        return dict(_initialisers(data))
    except _Damaged as error:
        raise _not_whole(path, error) from error


class _Damaged(ValueError):
    """The bytes are no protocol buffer of this kind."""


def _external_data(path: Path, data: bytes) -> list[ExternalData]:
    try:
        return _collect(data)
    except _Damaged as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: _Damaged) -> ManifestError:
    return ManifestError(f"{path}: not a whole ONNX graph ({error}); copy or export it again")


def _collect(data: bytes) -> list[ExternalData]:
    sizes: dict[str, int] = {}
    if not any(number == _GRAPH for number, _, _ in _fields(data, 0, len(data), "model")):
        raise _Damaged("it holds no graph")
    for start, end in _tensors(data, "model", 0, len(data), 0):
        entries = [span for number, *span in _fields(data, start, end, "tensor") if number == _EXTERNAL]
        outside = _outside(data, entries)
        if outside is not None:
            name, _, stop = outside
            sizes[name] = max(sizes.get(name, 0), stop)
    return [ExternalData(name, size) for name, size in sizes.items()]


def _outside(data: bytes, spans: Iterable[Sequence[int]]) -> tuple[str, int, int] | None:
    """The file of a tensor and where it begins and ends there, as its entries say; None without any."""
    entries: dict[str, str] = {}
    for start, end in spans:
        key, value = _entry(data, start, end)
        if key not in _KEYS or key in entries:
            raise _Damaged(f"a tensor in another file has {key!r}, unknown or twice")
        entries[key] = value
    if not entries:
        return None
    offset, length = _count(entries.get("offset", "0")), _count(entries.get("length", "0"))
    return entries.get("location", ""), offset, offset + length


def _initialisers(data: bytes) -> Iterator[tuple[str, Tensor]]:
    for outer, *graph in _fields(data, 0, len(data), "model"):
        if outer == _GRAPH:
            for inner, start, end in _fields(data, graph[0], graph[1], "graph"):
                if inner == _INITIALISER:
                    yield from _initialiser(data, start, end)


def _initialiser(data: bytes, start: int, end: int) -> Iterator[tuple[str, Tensor]]:
    shape, found, entries = list[int](), dict[int, tuple[int, int]](), list[tuple[int, int]]()
    for number, form, begin, stop in _every(data, start, end, "tensor"):
        if number in _FORMS and form != _FORMS[number]:
            raise _Damaged(f"field {number} of a tensor is of another kind")
        if number == _DIMS:
            shape.append(_varint(data, begin, stop)[0])
        elif number == _EXTERNAL:
            entries.append((begin, stop))
        else:
            found[number] = begin, stop
    place = _outside(data, entries) or (("", *found[_RAW]) if _RAW in found else None)
    if place is not None and _NAME in found and _KIND in found:
        name = data[slice(*found[_NAME])].decode(errors="replace")
        yield name, Tensor(_varint(data, *found[_KIND])[0], tuple(shape), *place)


def _tensors(data: bytes, kind: str, start: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
    """(start, end) of every tensor within a message."""
    if depth > _DEEPEST:
        raise _Damaged("graphs lie in graphs without end")
    if kind == "tensor":
        yield start, end
        return
    inside = _INSIDE[kind]
    for number, begin, stop in _fields(data, start, end, kind):
        if kind == "node" and number == _OP_TYPE and data[begin:stop] == _FOREIGN.encode():
            raise _Damaged(f"it has the operator {_FOREIGN}, whose program lies in another file")
        if number in inside:
            yield from _tensors(data, inside[number], begin, stop, depth + 1)


def _entry(data: bytes, start: int, end: int) -> tuple[str, str]:
    """A key and its value."""
    parts = {1: "", 2: ""}
    for number, begin, stop in _fields(data, start, end, "entry"):
        try:
            parts[number] = data[begin:stop].decode()
        except UnicodeDecodeError as error:
            raise _Damaged("a name is not text") from error
    return parts[1], parts[2]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _Damaged(f"{text!r} is no number of bytes")
    return int(text)


def _fields(data: bytes, start: int, end: int, kind: str) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field with bytes in it; other fields are passed over."""
    for number, form, begin, stop in _every(data, start, end, kind):
        if form == _BYTES:
            yield number, begin, stop


def _every(data: bytes, start: int, end: int, kind: str) -> Iterator[tuple[int, int, int, int]]:
    """(number, form, start, end) of each field and what is in it.

    Raises _Damaged for what readers may take in different ways.
    """
    once, walked, seen = _ONCE[kind], _INSIDE.get(kind, {}), set()
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, form = tag >> 3, tag & 7
        if tag >= 1 << 32 or number == 0:
            raise _Damaged(f"a field without a number before byte {at}")
        if number in once:
            if number in seen:
                raise _Damaged(f"field {number} of a {kind} stands there twice")
            seen.add(number)
        if number in walked and form != _BYTES:
            raise _Damaged(f"field {number} of a {kind} is of another kind")
        if form == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise _Damaged(f"{size} bytes are announced at byte {at}, {end - at} are there")
        elif form == _VARINT:
            size = _varint(data, at, end)[1] - at
        elif form in (_FIXED64, _FIXED32):
            size = 8 if form == _FIXED64 else 4
        else:
            raise _Damaged(f"unknown kind of field at byte {at}")
        yield number, form, at, at + size
        at += size
    if at != end:
        raise _Damaged(f"a field ends beyond byte {end}")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A whole number of at most 64 bits in groups of seven, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if (byte == 0 and shift > 0) or value >= 1 << 64:
                raise _Damaged(f"a number before byte {at} is not written in the shortest way")
            return value, at
    raise _Damaged(f"a number does not end before byte {at}")
