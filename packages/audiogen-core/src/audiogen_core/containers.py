"""What kind of audio file this is, read from its first bytes before any decoder sees it.

Only formats whose decoders are widely used and tested are let through: WAV and AIFF with plain PCM or
float samples, FLAC, Ogg (Vorbis, Opus) and MP3. A file whose header promises more than the file holds is
refused here. Nothing is allocated from a size that a header states.

Sources: Microsoft's multimedia data standards (RIFF, WAVE), Apple's AIFF-C draft of 1991, RFC 3533 (Ogg),
RFC 9639 (FLAC), the ID3v2.3 description.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from audiogen_core.errors import AudioError

KNOWN = "WAV, AIFF, FLAC, Ogg Vorbis, Ogg Opus and MP3"

_MAX_CHUNKS = 10_000
_UNKNOWN_SIZE = 0xFFFFFFFF  # what programs write that stream a WAV into a pipe
_WAV_TAGS = {1: "PCM", 3: "float"}
_AIFC_TYPES = {b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64", b"raw "}


@dataclass(frozen=True)
class Chunk:
    """One chunk of a RIFF or FORM file: its name, where its body starts, how long it says it is."""

    name: bytes
    start: int
    size: int


def chunks(file: BinaryIO, *, order: str) -> Iterator[Chunk]:
    """The chunks of a RIFF (`order` "<") or FORM (">") file, from byte 12, as far as they are whole."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", header)
        yield Chunk(name, position + 8, size)
        position += 8 + size + size % 2


def sniff(file: BinaryIO, name: str) -> str:
    """The container of an open file: "WAV", "AIFF", "FLAC", "OGG" or "MP3".

    Raises AudioError, with `name` in front, for anything else, for coded WAV and AIFF, and for a file
    that ends before its header says.
    """
    size = file.seek(0, 2)
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    start = _after_id3(file)
    file.seek(start)
    head = file.read(12)
    if start == 0 and head[:4] == b"RIFF" and head[8:] == b"WAVE":
        _check_wav(file, size, name)
        return "WAV"
    if start == 0 and head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        _check_aiff(file, size, name, head[8:] == b"AIFC")
        return "AIFF"
    if head[:4] == b"fLaC":
        return "FLAC"
    if start == 0 and head[:4] == b"OggS":
        _check_ogg(file, size, name)
        return "OGG"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # frame sync, layer III
        return "MP3"
    raise AudioError(f"{name}: not an audio file of a known format; {KNOWN} can be read")


def _after_id3(file: BinaryIO) -> int:
    """Where the ID3v2 tags at the start end (0 when there are none)."""
    position = 0
    for _ in range(8):
        file.seek(position)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        size = 0
        for byte in tag[6:]:
            size = size << 7 | byte & 0x7F
        position += 10 + size + (10 if tag[5] & 0x10 else 0)
    return position


def _check_wav(file: BinaryIO, size: int, name: str) -> None:
    seen = False
    for chunk in chunks(file, order="<"):
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            body = file.read(min(chunk.size, 40))
            if len(body) < 16:
                raise AudioError(f"{name}: truncated inside the WAV header")
            tag = int.from_bytes(body[:2], "little")
            if tag == 0xFFFE and len(body) >= 26:
                tag = int.from_bytes(body[24:26], "little")
            if tag not in _WAV_TAGS:
                raise AudioError(
                    f"{name}: a WAV file with coding {tag:#06x}; only PCM and float are read, "
                    "so convert it with another program"
                )
            seen = True
        elif chunk.name == b"data":
            if not seen:
                raise AudioError(f"{name}: a WAV file without a description of its samples")
            if chunk.size != _UNKNOWN_SIZE:
                _check_fits(chunk, size, name)
            return
    raise AudioError(f"{name}: a WAV file without samples; it was cut off or never finished")


def _check_aiff(file: BinaryIO, size: int, name: str, coded: bool) -> None:
    promised = None
    for chunk in chunks(file, order=">"):
        if chunk.name == b"COMM":
            file.seek(chunk.start)
            body = file.read(min(chunk.size, 22))
            if len(body) < (22 if coded else 18):
                raise AudioError(f"{name}: truncated inside the AIFF header")
            channels, frames, bits = struct.unpack(">hIh", body[:8])
            if coded and body[18:22] not in _AIFC_TYPES:
                raise AudioError(
                    f"{name}: an AIFF file with coding {body[18:22]!r}; only PCM and float are read, "
                    "so convert it with another program"
                )
            promised = channels * frames * ((bits + 7) // 8)
        elif chunk.name == b"SSND":
            if promised is None:
                raise AudioError(f"{name}: an AIFF file without a description of its samples")
            _check_fits(chunk, size, name)
            if promised > chunk.size:
                raise AudioError(
                    f"{name}: the header promises {promised} bytes of sound, {chunk.size} are there"
                )
            return
    raise AudioError(f"{name}: an AIFF file without samples; it was cut off or never finished")


def _check_fits(chunk: Chunk, size: int, name: str) -> None:
    there = size - chunk.start
    if chunk.size > there:
        raise AudioError(
            f"{name}: the header promises {chunk.size} bytes of sound, {there} are there; it was cut off"
        )


def _check_ogg(file: BinaryIO, size: int, name: str) -> None:
    """The last page of an Ogg stream is marked; without the mark the file was cut off."""
    file.seek(max(0, size - 2 * 65_307))  # the largest page
    tail = file.read()
    last = tail.rfind(b"OggS")
    if last < 0 or len(tail) < last + 27 or not tail[last + 5] & 4 or not _page_whole(tail[last:]):
        raise AudioError(f"{name}: the Ogg stream has no end; the file was cut off")


def _page_whole(page: bytes) -> bool:
    segments = page[26]
    return len(page) >= 27 + segments + sum(page[27 : 27 + segments])
