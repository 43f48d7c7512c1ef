"""The streams that an Ogg file holds one after the other: players of radio, and `cat`, put them in a row.

Each is given to libsndfile alone, which reads only the first of several. Source: RFC 3533 (pages, chaining).
"""

from __future__ import annotations

from typing import BinaryIO

from audiogen_core.containers import OGG_CODECS
from audiogen_core.errors import AudioError

_BEGINS, _ENDS = 2, 4  # flags of a page
_READ = 1 << 20
_LONGEST_PAGE = 65_307  # bytes
_MOST_LINKS = 1000


def links(file: BinaryIO, name: str) -> list[tuple[int, int]]:
    """Where each stream begins and ends.

    Raises AudioError when one is neither Vorbis nor Opus, when several run beside each other, and when the
    last page of the file does not end a stream.
    """
    found: list[tuple[int, int]] = []
    size = file.seek(0, 2)
    position, base, data = 0, 0, b""
    sounds, heading, ended = 0, False, False
    while position + 27 <= size:
        at = position - base
        if at > len(data) - _LONGEST_PAGE and base + len(data) < size:
            file.seek(position)
            base, data, at = position, file.read(_READ), 0
        length = _length(data, at)
        if length == 0:  # no page, or the beginning of one: on to the next
            following = data.find(b"OggS", at + 1)
            ended = ended and data[at : at + 4] != b"OggS"
            position = following + base if following > 0 else base + max(at + 1, len(data) - 3)
            continue
        begins, ends = data[at + 5] & _BEGINS, data[at + 5] & _ENDS
        if begins:
            body = at + 27 + data[at + 26]
            if not heading:
                found.append((position, size))
                if len(found) > 1:
                    found[-2] = (found[-2][0], position)
                if len(found) > _MOST_LINKS:
                    raise AudioError(f"{name}: more than {_MOST_LINKS} Ogg streams in a row; cut it")
                if not data.startswith(OGG_CODECS, body):
                    raise AudioError(f"{name}: a stream that is neither Vorbis nor Opus; convert it first")
                sounds = 0
            sounds += data.startswith(OGG_CODECS, body)
            if sounds > 1:
                raise AudioError(f"{name}: holds several sounds beside each other; take one out of it first")
        heading = bool(begins)
        ended = bool(ends)
        position += length
    if not ended:
        raise AudioError(f"{name}: the Ogg stream has no end; the file was cut off")
    return found


def _length(data: bytes, at: int) -> int:
    """The length of the page that begins here, 0 when none does or it is not whole."""
    if data[at : at + 4] != b"OggS" or len(data) < at + 27:
        return 0
    count = data[at + 26]
    length = 27 + count + sum(data[at + 27 : at + 27 + count])
    return length if len(data) >= at + length else 0
