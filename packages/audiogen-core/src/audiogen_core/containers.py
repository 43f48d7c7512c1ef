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


def counted(listed: Iterator[Chunk], walked: Iterator[int], name: str) -> Iterator[Chunk]:
    """The same chunks, as long as `walked`, which files in a row share, counts on; else AudioError."""
    for chunk in listed:
        if next(walked, None) is None:
            raise AudioError(f"{name}: more than {MAX_CHUNKS} chunks; convert it first, or cut it")
        yield chunk


def are_chunks(file: BinaryIO, *, order: str, start: int, end: int) -> bool:
    """Whether what follows is chunks, to the end of the file, or a tag that a player put there."""
    file.seek(start)
    head = file.read(8)
    if head[:3] in (b"ID3", b"TAG") or head == b"APETAGEX":
        return True
    reached = start
    for chunk in chunks(file, order=order, start=start):
        reached = chunk.start + chunk.size
        if reached > end or not all(32 <= byte < 127 for byte in chunk.name):
            return False
    return end - reached < 8


def sniff(file: BinaryIO, name: str) -> str:
    """The container of an open file: "WAV", "RF64", "W64", "AIFF", "FLAC", "OGG", "MP3", or one of FOREIGN.

    Raises AudioError, with `name` in front, for anything else, and for a CAF file that ends before its header
    says.
    """
    size = file.seek(0, 2)
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    file.seek(0)
    head = file.read(40)
    if form := wave_form(head):
        return form
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
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


def wave_form(head: bytes) -> str:
    """ "WAV", "RF64" or "W64", where such a file begins with these 40 bytes; else ""."""
    if head[8:12] == b"WAVE":
        return {b"RIFF": "WAV", b"RF64": "RF64", b"BW64": "RF64"}.get(head[:4], "")
    return "W64" if head[:16] == _W64_RIFF and head[24:28] == b"wave" else ""


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


def _check_caf(file: BinaryIO, size: int, name: str) -> None:
    """Refuse a CAF file that ends before its sound does, which FFmpeg reads without a word."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 12 > size:  # a length of 64 bits may lead further than a file can be
            break
        file.seek(position)
        chunk, length = struct.unpack(">4sq", file.read(12))
        if chunk == b"data":
            # A recorder that never came back to its header leaves -1: the sound goes to the end of the file.
            check_fits(Chunk(chunk, position + 12, length), size, name)
            return
        if length < 0:
            break
        position += 12 + length
    raise AudioError(f"{name}: a CAF file without samples; it was cut off or never finished")


def check_fits(chunk: Chunk, end: int, name: str) -> None:
    """Raise AudioError for a chunk of sound that goes on behind `end`."""
    there = end - chunk.start
    if chunk.size > there:
        raise AudioError(
            f"{name}: the header promises {chunk.size} bytes of sound, {there} are there; it was cut off"
        )
