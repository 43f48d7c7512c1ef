"""Taking out of written audio files what differs from run to run, so that equal sound gives equal bytes.

libsndfile stamps the time into the PEAK chunk of float WAV and AIFF files, and draws the serial number of
an Ogg stream from the clock. Sources: RFC 3533 (Ogg pages and their checksum).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from audiogen_core.containers import chunks

_SERIAL = 1
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def settle(path: Path, kind: str) -> None:
    """Change a file of format `kind`, just written, in place."""
    with path.open("r+b") as file:
        if kind in ("WAV", "AIFF"):
            _zero_time(file, order="<" if kind == "WAV" else ">")
        elif kind == "OGG":
            _number_pages(file)


def _zero_time(file: BinaryIO, *, order: str) -> None:
    for chunk in chunks(file, order=order):
        if chunk.name == b"PEAK":
            file.seek(chunk.start + 4)  # behind the version
            file.write(bytes(4))
            return


def _number_pages(file: BinaryIO) -> None:
    """Give all pages one serial number, and their checksums anew."""
    position = 0
    while len(head := _at(file, position, 27)) == 27 and head[:4] == b"OggS":
        segments = _at(file, position + 27, head[26])
        body = file.read(sum(segments))
        head = head[:14] + struct.pack("<I", _SERIAL) + head[18:22] + bytes(4) + head[26:]
        checksum = _ogg_checksum(head + segments + body)
        file.seek(position)
        file.write(head[:22] + struct.pack("<I", checksum) + head[26:])
        position += 27 + len(segments) + len(body)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the most significant bit first, starting from 0: zlib's, of bits in reverse."""
    reverse = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2)
