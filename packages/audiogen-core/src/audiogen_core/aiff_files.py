"""AIFF files: what libsndfile is to read of them, so that it is all that is there.

Sources: Apple's AIFF-C draft of 1991.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from audiogen_core.containers import MAX_CHUNKS, Chunk, are_chunks, check_fits, chunks, counted
from audiogen_core.errors import AudioError
from audiogen_core.mp3_frames import Piece

_SSND = 8  # bytes of an SSND chunk before the sound
_CODINGS = {
    b"NONE": None,
    b"twos": None,
    b"sowt": None,
    b"raw ": None,
    b"in24": 3,
    b"42n1": 3,
    b"in32": 4,
    b"23ni": 4,
    b"fl32": 4,
    b"FL32": 4,
    b"fl64": 8,
    b"FL64": 8,
}
"""How AIFF-C may store samples, and their bytes; None: as many as its header says."""


def parts(file: BinaryIO, name: str) -> tuple[list[list[Piece]], list[str]]:
    """What libsndfile is to read of a file that starts as AIFF does, of each of several in a row; and what is
    wrong with their headers.

    Headers of pipes and of recorders that died state no size of the sound, or one that cannot be. It goes to
    the end of the file then, and the pieces have a header that says so.

    Raises AudioError for coded samples, and for a file that ends before its header says.
    """
    size = file.seek(0, 2)
    found: list[list[Piece]] = []
    doubts: list[str] = []
    start, walked = 0, iter(range(MAX_CHUNKS))
    while not found or _is_aiff(file, start):
        file.seek(start + 4)
        stated = int.from_bytes(file.read(4), "big")
        end = min(size, start + 8 + stated + stated % 2)
        listed = counted(chunks(file, order=">", start=start + 12), walked, name)
        pieces, doubt = _part(file, name, listed, start, end)
        found.append(pieces)
        doubts += [doubt] if doubt else []
        start = pieces[-1][1] if isinstance(pieces[-1], tuple) else size
    return found, doubts


def _is_aiff(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    head = file.read(12)
    return head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC")


def _part(
    file: BinaryIO, name: str, listed: Iterator[Chunk], start: int, end: int
) -> tuple[list[Piece], str]:
    """One FORM that says it ends at `end`: what is to be read of it, and what is wrong with it."""
    size = file.seek(0, 2)
    file.seek(start)
    coded = file.read(12)[8:] == b"AIFC"
    common: Chunk | None = None
    frames = row = 0
    for chunk in listed:
        if chunk.name == b"COMM":
            file.seek(chunk.start)
            frames, row = _frames(file.read(min(chunk.size, 22)), name, coded=coded)
            common = chunk
        elif chunk.name == b"SSND":
            break
    else:
        raise AudioError(f"{name}: an AIFF file without samples; it was cut off or never finished")
    if common is None:
        raise AudioError(f"{name}: an AIFF file without a description of its samples")
    there, behind = size - chunk.start, chunk.start + chunk.size + chunk.size % 2
    followed = behind >= size or _is_aiff(file, end) or are_chunks(file, order=">", start=behind, end=size)
    if chunk.size > there:
        if not _of_a_pipe(chunk.size, row) or 0 < frames * row <= there - _SSND:
            check_fits(chunk, size, name)
        doubt = "the header does not say how much sound there is; it was read to its end"
    elif chunk.size <= _SSND < there and not (chunk.size == _SSND and followed):
        doubt = "the header was never finished and says that there is no sound; it was read to its end"
    elif there > 0xFFFFFFFF and not followed:
        doubt = ""
    else:
        check_fits(Chunk(chunk.name, chunk.start + _SSND, frames * row), chunk.start + chunk.size, name)
        file.seek(chunk.start)
        aligned = any(file.read(_SSND))
        samples = (chunk.size - _SSND) // row if row else 0
        file.seek(behind)
        if frames < samples and not aligned:
            doubt = f"the header says {frames} samples, {samples} are there; it was read to its end"
        elif followed or end > behind or not file.read(1 << 16).strip(b"\0"):
            doubt = ""
        else:
            doubt = f"{size - behind} bytes behind the sound are left out: the header does not count them"
        return [(start, end if chunk.start + chunk.size <= end else size)], doubt
    if there > 0xFFFFFFFF:
        raise AudioError(f"{name}: an AIFF file cannot say how much more than 4 GiB are; convert it first")
    whole, sound = struct.pack(">I", size - start - 8), struct.pack(">I", there)
    counts = struct.pack(">I", (there - _SSND) // row if row else 0)
    at = common.start + 2
    head: list[Piece] = [(start, start + 4), whole, (start + 8, at), counts, (at + 4, chunk.start - 4), sound]
    return [*head, (chunk.start, size)], doubt


def _frames(body: bytes, name: str, *, coded: bool) -> tuple[int, int]:
    """How many samples per channel a COMM chunk promises, and the bytes of one of all channels."""
    if len(body) < (22 if coded else 18):
        raise AudioError(f"{name}: an AIFF file that ends inside its header")
    channels, frames, bits = struct.unpack(">HIH", body[:8])
    if coded and body[18:22] not in _CODINGS:
        raise AudioError(
            f"{name}: an AIFF file with coding {body[18:22]!r}; only PCM and float are read: convert it first"
        )
    width = (_CODINGS[body[18:22]] if coded else None) or (bits + 7) // 8
    return frames, channels * width


def _of_a_pipe(size: int, row: int) -> bool:
    """Whether writers into a pipe state this: sox 0x7F000000 in whole rows, others the largest numbers."""
    of_sox = 0x7F000000 - row < size - _SSND <= 0x7F000000
    return of_sox or 0x7FFF0000 <= size <= 0x80010000 or size >= 0xFFFF0000
