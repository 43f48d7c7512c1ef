"""PNG pictures as brightness, read and written with zlib and numpy alone.

Source: W3C, Portable Network Graphics (third edition): chunks, filters, colour types. Read are all colour
types and depths without interlacing; checksums are verified, and sizes are bounded before anything is
unpacked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError
from audiogen_core.files import atomic_path
from audiogen_core.sound_reader import name_of

Bytes = NDArray[np.uint8]

MAX_BYTES = 1 << 22
"""Of a picture, unpacked; also pixels: a mask of ten minutes with 14 codebooks has half a million."""

_START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_LUMA = np.array([0.2126, 0.7152, 0.0722])  # of red, green, blue: ITU-R BT.709


class _NotReadable(Exception):
    """Why a picture cannot be read, without its name."""


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int

    @property
    def row(self) -> int:
        """Bytes of a row without its filter."""
        return -(-self.width * self.depth * _CHANNELS[self.colour] // 8)

    @property
    def pixel(self) -> int:
        """Bytes between a byte and the one it is predicted from."""
        return max(1, self.depth * _CHANNELS[self.colour] // 8)


def read_png(path: str | Path) -> NDArray[np.float64]:
    """Brightness (height, width) from 0, black or transparent, to 1, white.

    Raises CodesError when the file is not a PNG, damaged, interlaced, or larger than 4 MiB unpacked.
    """
    name = name_of(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(2 * MAX_BYTES + 1)
    except OSError as error:
        raise CodesError(f"{name}: cannot be read: {error.strerror}") from error
    if not data.startswith(_START):
        raise CodesError(f"{name}: not a PNG picture")
    if len(data) > 2 * MAX_BYTES:
        raise CodesError(f"{name}: larger than {2 * MAX_BYTES >> 20} MiB, which a mask never is")
    try:
        return _decoded(list(_chunks(data)))
    except (struct.error, zlib.error, IndexError, ValueError) as error:
        raise CodesError(f"{name}: a damaged PNG picture") from error
    except _NotReadable as error:
        raise CodesError(f"{name}: {error}") from error


def write_png(path: str | Path, grey: Bytes) -> Path:
    """A picture of grey values (height, width), 0 black, 255 white. Returns the path."""
    height, width = grey.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), np.asarray(grey, np.uint8)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_START)
        for kind, body in chunks:
            file.write(struct.pack(">I", len(body)) + kind + body)
            file.write(struct.pack(">I", zlib.crc32(kind + body)))
    return Path(path)


def _decoded(chunks: list[tuple[bytes, bytes]]) -> NDArray[np.float64]:
    header = _header(chunks)
    packed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    rows = _unfiltered(_unpacked(packed, header), header)
    values = _values(rows, header)
    levels = values / (2**header.depth - 1) if header.colour != 3 else _colours(dict(chunks))[values[..., 0]]
    grey = levels[..., :3] @ _LUMA if levels.shape[-1] > 2 else levels[..., 0]
    return np.asarray(grey * levels[..., -1] if levels.shape[-1] in (2, 4) else grey)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_START)
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        (check,) = struct.unpack_from(">I", data, at + 8 + length)
        if check != zlib.crc32(kind + body):
            raise _NotReadable("a damaged PNG picture: a checksum is wrong")
        if kind == b"IEND":
            return
        yield kind, body
        at += 12 + length


def _header(chunks: list[tuple[bytes, bytes]]) -> _Header:
    if not chunks or chunks[0][0] != b"IHDR":
        raise _NotReadable("a damaged PNG picture: it does not begin with its size")
    width, height, depth, colour, packing, filters, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth not in _DEPTHS.get(colour, ()) or packing or filters:
        raise _NotReadable("a PNG picture of a kind that the standard does not know")
    if interlaced:
        raise _NotReadable("an interlaced PNG picture; save it without interlacing")
    header = _Header(width, height, depth, colour)
    size = height * max(width, header.row + 1)
    if not (width and height and size <= MAX_BYTES):
        raise _NotReadable(f"a picture of {width} x {height} is empty, or too large for a mask")
    return header


def _unpacked(packed: bytes, header: _Header) -> Bytes:
    """Rows (height, 1 + bytes), each led by its filter."""
    size = header.height * (header.row + 1)
    unpacked = zlib.decompressobj().decompress(packed, size + 1)
    if len(unpacked) != size:
        raise _NotReadable("a damaged PNG picture: it holds more or less than its size says")
    return np.frombuffer(unpacked, np.uint8).reshape(header.height, header.row + 1)


def _unfiltered(rows: Bytes, header: _Header) -> Bytes:
    out = np.zeros((header.height, header.row), np.uint8)
    above = np.zeros(header.row, np.uint8)
    for index, row in enumerate(rows):
        above = out[index] = _unfiltered_row(int(row[0]), row[1:], above, header.pixel)
    return out


def _unfiltered_row(kind: int, row: Bytes, above: Bytes, pixel: int) -> Bytes:
    """A row with what its filter took away: a prediction from the left, from above, or both."""
    if kind == 0:
        return row
    if kind == 2:
        return row + above
    if kind == 1:  # left
        return np.cumsum(row.reshape(-1, pixel), axis=0, dtype=np.uint8).ravel()
    if kind not in (3, 4):
        raise _NotReadable("a damaged PNG picture: an unknown filter")
    predict = _mean if kind == 3 else _paeth
    made: list[int] = [0] * pixel  # left of the first pixel
    corner = made + above.tolist()
    for at, value in enumerate(row.tolist()):
        made.append((value + predict(made[at], corner[at + pixel], corner[at])) & 255)
    return np.array(made[pixel:], np.uint8)


def _mean(left: int, up: int, corner: int) -> int:
    return (left + up) >> 1


def _paeth(left: int, up: int, corner: int) -> int:
    """The neighbour nearest to left + up - corner; ties go to the left, then up."""
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


def _values(rows: Bytes, header: _Header) -> NDArray[Any]:
    """Whole numbers (height, width, channels)."""
    if header.depth < 8:
        bits = np.unpackbits(rows, axis=1).reshape(len(rows), -1, header.depth)
        return np.asarray(bits @ (1 << np.arange(header.depth)[::-1]))[:, : header.width, None]
    return rows.view(">u2" if header.depth == 16 else "u1").reshape(len(rows), header.width, -1)


def _colours(chunks: dict[bytes, bytes]) -> NDArray[np.float64]:
    """The palette: red, green, blue, alpha (entries, 4)."""
    if b"PLTE" not in chunks:
        raise _NotReadable("a damaged PNG picture: its palette is missing")
    colours = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    alpha = np.full(len(colours), 255, np.uint8)
    given = np.frombuffer(chunks.get(b"tRNS", b""), np.uint8)[: len(colours)]
    alpha[: len(given)] = given
    return np.concatenate([colours, alpha[:, None]], axis=1) / 255
