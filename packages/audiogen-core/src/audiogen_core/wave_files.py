"""WAV files and their kin above 4 GB (RF64, BW64, Wave64): where the samples lie, and the samples.

All of them hold the same plain PCM or float samples and differ in their headers alone. Headers of pipes and
of recorders that died state no size, or one that cannot be; then the samples are read to the end of the file,
which a warning tells.

Sources: Microsoft's and IBM's multimedia data standards (RIFF, WAVE), EBU Tech 3306 (RF64), ITU-R BS.2088
(BW64), Sony's description of Wave64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiogen_core.containers import MAX_CHUNKS, Chunk, are_chunks, chunks, counted, wave_form
from audiogen_core.errors import AudioError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_IN_DS64 = 0xFFFFFFFF  # a size of 32 bits that stands in the ds64 chunk; in a plain WAV it was never known
_MAX_COMMENT = 1 << 20  # bytes
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the names of all chunks but the first
_SUBTYPES = {
    (_PCM, 1): "PCM_U8",
    (_PCM, 2): "PCM_16",
    (_PCM, 3): "PCM_24",
    (_PCM, 4): "PCM_32",
    (_FLOAT, 4): "FLOAT",
    (_FLOAT, 8): "DOUBLE",
}


@dataclass(frozen=True)
class WaveSound:
    """The samples of a file.

    start, size  of them in bytes
    form         WAV, WAVEX (which can name speakers), RF64 or W64
    subtype      how they are stored, in libsndfile's words
    width        bytes of one sample
    speakers     which speaker each channel is for: the mask of WAVEFORMATEXTENSIBLE, 0 where it is not said
    comment      of the first of several in a row: the text of its comment tag (LIST/INFO/ICMT), or ""
    doubt        what is wrong with the header, or ""
    """

    start: int
    size: int
    sample_rate: int
    channels: int
    form: str
    subtype: str
    width: int
    speakers: int = 0
    comment: str = ""
    doubt: str = ""

    @property
    def frames(self) -> int:
        return self.size // (self.width * self.channels)

    def blocks(self, file: BinaryIO, size: int) -> Iterator[NDArray[np.float32]]:
        """float32 blocks (n, channels) of at most `size` samples; fewer in all when the file ends early."""
        row = self.width * self.channels
        position, end = self.start, self.start + self.frames * row
        while position < end:
            file.seek(position)
            data = file.read(min(size * row, end - position))
            data = data[: len(data) // row * row]
            if not data:
                return
            position += len(data)
            yield _floats(data, self.subtype).reshape(-1, self.channels)


def open_wave(file: BinaryIO, name: str) -> list[WaveSound]:
    """The sound of a file that starts as a WAV, RF64 or W64 does: one, or several put in a row.

    Raises AudioError for coded samples, and for a file that ends before its header says.
    """
    size = file.seek(0, 2)
    sounds: list[WaveSound] = []
    start, walked = 0, iter(range(MAX_CHUNKS))
    while not sounds or _form_at(file, start):
        form = _form_at(file, start)
        file.seek(start + (16 if form == "W64" else 4))
        stated = int.from_bytes(file.read(8 if form == "W64" else 4), "little")
        listed = chunks(file, order="<", start=start + 12)
        if form == "W64":
            listed = _w64_chunks(file, start, size)
            end = size if stated == 0 or _never_known_in_64_bits(stated) else start + stated + -stated % 8
        else:
            if form == "RF64":
                file.seek(start + 12)
                head = file.read(16)
                stated = int.from_bytes(head[8:], "little") if head[:4] == b"ds64" else 0
                listed = _in_64_bits(file, listed)
            never = _never_known_in_64_bits(stated) if form == "RF64" else _never_known(stated)
            end = size if stated < 4 or never else start + 8 + stated + stated % 2
        end, listed = min(size, end), counted(listed, walked, name)
        sound = _described(file, name, listed, stated if form == "WAV" else None, end)
        sounds.append(sound if form == "WAV" else replace(sound, form=form))
        start = max(end, sound.start + sound.size + sound.size % 2)
    return [replace(sounds[0], comment=_comment(file)), *sounds[1:]]


def _never_known(size: int) -> bool:
    """Whether writers into a pipe state this: sox 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF."""
    return 0x7FFF0000 <= size <= 0x80010000 or size >= 0xFFFF0000


def _never_known_in_64_bits(size: int) -> bool:
    """The same of Wave64 and RF64: the largest numbers."""
    return (1 << 63) - (1 << 16) <= size < 1 << 63 or size >= (1 << 64) - (1 << 16)


def _form_at(file: BinaryIO, start: int) -> str:
    file.seek(start)
    return wave_form(file.read(40))


def _described(file: BinaryIO, name: str, listed: Iterator[Chunk], stated: int | None, end: int) -> WaveSound:
    """The sound of one header.

    stated  size of the whole as a header of 32 bits states it
    end     where that ends, at most where the file does
    """
    form: WaveSound | None = None
    for chunk in listed:
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            form = _form(file.read(min(chunk.size, 40)), name)
        elif chunk.name == b"data":
            if form is None:
                raise AudioError(f"{name}: a WAV file without a description of its samples")
            length, doubt = _length(file, name, chunk, stated, end)
            return replace(form, start=chunk.start, size=length, doubt=doubt)
    raise AudioError(f"{name}: a WAV file without samples; it was cut off or never finished")


def _form(body: bytes, name: str) -> WaveSound:
    if len(body) < 16:
        raise AudioError(f"{name}: a WAV file that ends inside its header")
    coding, channels, rate, _, block, bits = struct.unpack("<HHIIHH", body[:16])
    speakers, form = 0, "WAV"
    if coding == _EXTENSIBLE and len(body) >= 26:
        form = "WAVEX"
        speakers, coding = struct.unpack("<IH", body[20:26])
    if coding not in (_PCM, _FLOAT):
        raise AudioError(
            f"{name}: a WAV file with coding {coding:#06x}; only PCM and float are read: convert it first"
        )
    width = block // channels if channels and block % channels == 0 and 8 * block >= channels * bits else 0
    subtype = _SUBTYPES.get((coding, width or -(-bits // 8)))
    if subtype is None or channels == 0 or bits == 0:
        raise AudioError(f"{name}: a WAV file of {bits} bits in blocks of {block} bytes; convert it first")
    return WaveSound(0, 0, rate, channels, form, subtype, width or -(-bits // 8), speakers)


def _length(file: BinaryIO, name: str, chunk: Chunk, stated: int | None, end: int) -> tuple[int, str]:
    """How many bytes of sound there are, and what is wrong with what the header says of it."""
    size = file.seek(0, 2)
    there = size - chunk.start
    if chunk.size > there:
        # 0x80000000 alone may be a damaged size; beside another such size it is a pipe's
        alone = chunk.size <= 0x7FFFFFFF or chunk.size >= 0xFFFF0000
        of_a_pipe = _never_known(chunk.size) and (alone or stated == 0 or _never_known(stated or 0))
        if _never_known_in_64_bits(chunk.size) if stated is None else of_a_pipe:
            return there, "the header does not say how much sound there is"
        raise AudioError(
            f"{name}: the header promises {chunk.size} bytes of sound, {there} are there; it was cut off"
        )
    behind = chunk.start + chunk.size + chunk.size % 2
    if (
        behind >= size
        or _form_at(file, max(end, behind))
        or are_chunks(file, order="<", start=behind, end=size)
    ):
        return chunk.size, ""
    if chunk.size == 0:
        return there, "the header was never finished and says that there is no sound"
    if stated is not None and there > _IN_DS64:
        return there, f"the header says {chunk.size} bytes of sound, since it cannot say more than 4 GiB"
    file.seek(behind)
    if end > behind or not file.read(1 << 16).strip(b"\0"):
        return chunk.size, ""
    return chunk.size, f"{size - behind} bytes behind the sound are left out: the header does not count them"


def _in_64_bits(file: BinaryIO, listed: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks of an RF64 or BW64 file, with the size of the sound that the ds64 chunk states."""
    large = None
    for chunk in listed:
        if chunk.name == b"ds64" and chunk.size >= 24:
            file.seek(chunk.start + 8)
            large = int.from_bytes(file.read(8), "little")
        unsized = chunk.name == b"data" and chunk.size == _IN_DS64 and large is not None
        yield Chunk(chunk.name, chunk.start, large) if unsized and large is not None else chunk


def _w64_chunks(file: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
    """The chunks of a Wave64 file: names of 16 bytes, sizes of 64 bits that count the names too."""
    position = start + 40
    for _ in range(MAX_CHUNKS):
        if position + 24 > end:  # a size of 64 bits may lead further than a file can be
            return
        file.seek(position)
        head = file.read(24)
        size = int.from_bytes(head[16:], "little") - 24
        if head[:4] == b"data" and size == -24:
            size = 0  # never written
        if size < 0:
            return
        if head[4:16] == _W64_TAIL:
            yield Chunk(head[:4], position + 24, size)
        position += 24 + size + -size % 8


def _comment(file: BinaryIO) -> str:
    """libsndfile writes long comments but reads only those below 2 kB."""
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


def _floats(data: bytes, subtype: str) -> NDArray[np.float32]:
    """Samples as floats, full scale 1."""
    if subtype == "PCM_U8":
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(1 << 7)
    if subtype == "PCM_16":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(1 << 15)
    if subtype == "PCM_24":
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), np.uint8)
        wide[:, 1:] = parts
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)
    if subtype == "PCM_32":
        return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(1 << 31)
    if subtype == "FLOAT":
        return np.frombuffer(data, "<f4").astype(np.float32)
    with np.errstate(over="ignore"):
        return np.frombuffer(data, "<f8").astype(np.float32)
