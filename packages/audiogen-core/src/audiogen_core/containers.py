"""What kind of audio file this is, read from its first bytes before any decoder sees it.

Only formats whose decoders are widely used and tested are let through: WAV and AIFF with plain PCM or
float samples, FLAC, Ogg (Vorbis, Opus) and MP3; and, for FFmpeg, the kinds in `FOREIGN`. A file whose header
promises more than the file holds is refused. Nothing is allocated from a size that a header states.

Sources: Apple's AIFF-C draft of 1991 and Core Audio Format Specification 1.0, RFC 3533 (Ogg), RFC 9639
(FLAC), the ID3v2.3 description.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from audiogen_core import mp3_frames
from audiogen_core.errors import AudioError

KNOWN = "WAV, AIFF, FLAC, Ogg Vorbis, Ogg Opus and MP3"

FOREIGN = {
    "mov": "MP4, M4A or QuickTime",
    "matroska": "WebM or Matroska",
    "asf": "WMA",
    "aac": "AAC",
    "ogg": "Ogg with another codec than Vorbis and Opus",
    "flv": "FLV",
    "avi": "AVI",
    "amr": "AMR",
    "ac3": "AC-3",
    "wv": "WavPack",
    "ape": "Monkey's Audio",
    "tta": "TTA",
    "caf": "CAF",
    "au": "AU",
}
"""Kinds that FFmpeg reads, by the name of its demuxer."""

MAX_CHUNKS = 10_000
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
OGG_CODECS = (b"\x01vorbis", b"OpusHead")
_W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
_MAGICS = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (b"FLV\x01", "flv"),
    (b"#!AMR", "amr"),
    (b"\x0bw", "ac3"),
    (b"wvpk", "wv"),
    (b"MAC ", "ape"),
    (b"TTA1", "tta"),
    (b"caff\0\1", "caf"),
    (b".snd", "au"),
)


class UnknownFormat(AudioError):
    """A file of no kind that is read."""


class WantsFfmpeg(UnknownFormat):
    """A file that FFmpeg would read, which is not installed."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a RIFF or FORM file: its name, where its body starts, how long it says it is."""

    name: bytes
    start: int
    size: int


def chunks(file: BinaryIO, *, order: str, start: int = 12, end: int | None = None) -> Iterator[Chunk]:
    """The chunks of a RIFF (`order` "<") or FORM (">") file from `start` to `end`, as their sizes say."""
    position = start
    for _ in range(MAX_CHUNKS):
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
    """The container of an open file: "WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3", or one of FOREIGN.

    Raises AudioError, with `name` in front, for anything else, for coded AIFF, and for an AIFF file that ends
    before its header says, and a CAF file likewise.
    """
    size = file.seek(0, 2)
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    file.seek(0)
    head = file.read(40)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "RF64"
    if head[:16] == _W64_RIFF and head[24:28] == b"wave":
        return "W64"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        _check_aiff(file, size, name, coded=head[8:12] == b"AIFC")
        return "AIFF"
    if head[:4] == b"OggS":
        return _ogg(file)
    start = mp3_frames.after_id3(file)
    file.seek(start)
    head = file.read(40)
    if head[:4] == b"fLaC":
        return "FLAC"
    if foreign := _foreign(head):
        if foreign == "caf":
            _check_caf(file, size, name)
        return foreign
    if mp3_frames.find_start(file, start) is not None:
        return "MP3"
    raise UnknownFormat(
        f"{name}: not an audio file of a known format; {KNOWN} can be read, "
        "and others converted with: ffmpeg -i IN OUT.flac"
    )


def _foreign(head: bytes) -> str | None:
    """Which of FOREIGN a file is whose first bytes are these."""
    if head[4:8] == b"ftyp" or (head[4:8] in (b"moov", b"mdat", b"wide") and head[:2] == b"\0\0"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if len(head) > 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13:
        return "aac"  # ADTS: a sync of 12 bits, layer 0, one of 13 rates
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), None)


def _ogg(file: BinaryIO) -> str:
    """ "OGG" for Vorbis and Opus, "ogg" where FFmpeg is needed."""
    file.seek(0)
    head = file.read(27 + 255 + 8)
    body = 27 + head[26] if len(head) > 26 else len(head)
    return "OGG" if head[body:].startswith(OGG_CODECS) else "ogg"


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


def _check_caf(file: BinaryIO, size: int, name: str) -> None:
    """Refuse a CAF file that ends before its sound does, which FFmpeg reads without a word."""
    position = 8
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(12)
        if len(header) < 12:
            break
        chunk, length = struct.unpack(">4sq", header)
        if chunk == b"data":
            # A recorder that never came back to its header leaves -1: the sound goes to the end of the file.
            _check_fits(Chunk(chunk, position + 12, length), size, name)
            return
        if length < 0:
            break
        position += 12 + length
    raise AudioError(f"{name}: a CAF file without samples; it was cut off or never finished")


def _check_fits(chunk: Chunk, end: int, name: str) -> None:
    there = end - chunk.start
    if chunk.size > there:
        raise AudioError(
            f"{name}: the header promises {chunk.size} bytes of sound, {there} are there; it was cut off"
        )
