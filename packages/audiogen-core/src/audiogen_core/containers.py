"""What kind of audio file this is, read from its first bytes before any decoder sees it.

Only formats whose decoders are widely used and tested are let through: WAV and AIFF with plain PCM or
float samples, FLAC, Ogg (Vorbis, Opus) and MP3. A file whose header promises more than the file holds is
refused here. Nothing is allocated from a size that a header states.

Sources: Microsoft's and IBM's multimedia data standards (RIFF, WAVE), Apple's AIFF-C draft of 1991,
RFC 3533 (Ogg), RFC 9639 (FLAC), the ID3v2.3 description.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from audiogen_core.errors import AudioError

KNOWN = "WAV, AIFF, FLAC, Ogg Vorbis, Ogg Opus and MP3"

_MAX_CHUNKS = 10_000
_FIRST_FRAME = 64  # bytes of a frame of MP3 in which the header that counts frames begins
_MAX_COMMENT = 1 << 20  # bytes
_MAX_PAGE = 65_307  # bytes of an Ogg page
_UNKNOWN_SIZE = 0xFFFFFFFF  # what programs write that stream a WAV into a pipe
_WAV_CODINGS = {1, 3}  # PCM, float
_WAV_EXTENSIBLE = 0xFFFE
_AIFC_CODINGS = {
    b"NONE",
    b"twos",
    b"sowt",
    b"in24",
    b"in32",
    b"42n1",
    b"23ni",
    b"fl32",
    b"FL32",
    b"fl64",
    b"FL64",
    b"raw ",
}
_OGG_CODECS = (b"\x01vorbis", b"OpusHead")


class UnknownFormat(AudioError):
    """A file of no kind that is read."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a RIFF or FORM file: its name, where its body starts, how long it says it is."""

    name: bytes
    start: int
    size: int


def chunks(file: BinaryIO, *, order: str, start: int = 12, end: int | None = None) -> Iterator[Chunk]:
    """The chunks of a RIFF (`order` "<") or FORM (">") file from `start` to `end`, as their sizes say."""
    position = start
    for _ in range(_MAX_CHUNKS):
        if end is not None and position + 8 > end:
            return
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
        _check_aiff(file, size, name, coded=head[8:] == b"AIFC")
        return "AIFF"
    if start == 0 and head[:4] == b"OggS":
        _check_ogg(file, size, name)
        return "OGG"
    if head[:4] == b"fLaC":
        return "FLAC"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # sync of a frame of layer III
        return "MP3"
    raise UnknownFormat(f"{name}: not an audio file of a known format; {KNOWN} can be read")


def mp3_tells_length(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 file counts the others (a Xing, Info or VBRI header).

    Without one its length is a guess from its size.
    """
    file.seek(_after_id3(file))
    frame = file.read(_FIRST_FRAME)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def wav_comment(file: BinaryIO) -> str:
    """The comment (LIST/INFO/ICMT) of a WAV file that passed `sniff`, or "".

    libsndfile writes long comments but reads only those below 2 kB.
    """
    for chunk in chunks(file, order="<"):
        file.seek(chunk.start)
        if chunk.name != b"LIST" or file.read(4) != b"INFO":
            continue
        for entry in chunks(file, order="<", start=chunk.start + 4, end=chunk.start + chunk.size):
            if entry.name == b"ICMT":
                file.seek(entry.start)
                text = file.read(min(entry.size, _MAX_COMMENT))
                return text.split(b"\0")[0].decode("utf-8", "replace")
    return ""


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
    described = False
    for chunk in chunks(file, order="<"):
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            _check_wav_coding(file.read(min(chunk.size, 40)), name)
            described = True
        elif chunk.name == b"data":
            if not described:
                raise AudioError(f"{name}: a WAV file without a description of its samples")
            if chunk.size != _UNKNOWN_SIZE:
                _check_fits(chunk, size, name)
            return
    raise AudioError(f"{name}: a WAV file without samples; it was cut off or never finished")


def _check_wav_coding(body: bytes, name: str) -> None:
    if len(body) < 16:
        raise AudioError(f"{name}: a WAV file that ends inside its header")
    coding = int.from_bytes(body[:2], "little")
    if coding == _WAV_EXTENSIBLE and len(body) >= 26:
        coding = int.from_bytes(body[24:26], "little")
    if coding not in _WAV_CODINGS:
        raise AudioError(
            f"{name}: a WAV file with coding {coding:#06x}; only PCM and float are read: convert it first"
        )


def _check_aiff(file: BinaryIO, size: int, name: str, *, coded: bool) -> None:
    promised = None
    for chunk in chunks(file, order=">"):
        if chunk.name == b"COMM":
            file.seek(chunk.start)
            promised = _aiff_bytes(file.read(min(chunk.size, 22)), name, coded=coded)
        elif chunk.name == b"SSND":
            if promised is None:
                raise AudioError(f"{name}: an AIFF file without a description of its samples")
            _check_fits(chunk, size, name)
            _check_fits(Chunk(chunk.name, chunk.start, promised), chunk.start + chunk.size, name)
            return
    raise AudioError(f"{name}: an AIFF file without samples; it was cut off or never finished")


def _aiff_bytes(body: bytes, name: str, *, coded: bool) -> int:
    """How many bytes of sound a COMM chunk promises."""
    if len(body) < (22 if coded else 18):
        raise AudioError(f"{name}: an AIFF file that ends inside its header")
    channels, frames, bits = struct.unpack(">HIH", body[:8])
    if coded and body[18:22] not in _AIFC_CODINGS:
        raise AudioError(
            f"{name}: an AIFF file with coding {body[18:22]!r}; only PCM and float are read: convert it first"
        )
    return int(channels * frames * ((bits + 7) // 8))


def _check_fits(chunk: Chunk, end: int, name: str) -> None:
    there = end - chunk.start
    if chunk.size > there:
        raise AudioError(
            f"{name}: the header promises {chunk.size} bytes of sound, {there} are there; it was cut off"
        )


def _check_ogg(file: BinaryIO, size: int, name: str) -> None:
    """Vorbis or Opus, and whole: the last page of a stream is marked."""
    file.seek(0)
    head = file.read(27 + 255 + 8)
    body = 27 + head[26] if len(head) > 26 else len(head)
    if not head[body:].startswith(_OGG_CODECS):
        raise AudioError(f"{name}: an Ogg file that is neither Vorbis nor Opus; convert it first")
    file.seek(max(0, size - 2 * _MAX_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not (whole and page[5] & 4):
        raise AudioError(f"{name}: the Ogg stream has no end; the file was cut off")
