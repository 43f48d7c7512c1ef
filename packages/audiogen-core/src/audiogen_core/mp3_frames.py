"""The frames of an MP3 file, counted one by one, so that no sound is missed and none is made up.

A header that counts the frames (Xing, Info, VBRI) is optional, and true only for the part of the file that
it was written with: files put in a row have one each. libsndfile reads as many frames as the first such
header says, or as it guesses from the size. So the file is taken apart here, and each part is given a header
that is true.

Sources: ISO/IEC 11172-3 and 13818-3 (frames), the ID3v2.3 and APEv2 descriptions, Xing's and Fraunhofer's
notes on their headers, the description of LAME's extension.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import BinaryIO

from audiogen_core.errors import AudioError

Piece = bytes | tuple[int, int]
"""What a part is put together from: bytes of ours, or a stretch (from, to) of the file."""

_KBPS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LONGEST_FRAME = 1441  # bytes: 160 kbit/s at 8 kHz, 576 samples
_CHAIN = 4  # frames in a row that make a sync believed
_SEARCH = 1 << 16  # bytes in which the first frame must begin, after zeros
_READ = 1 << 20
_COUNTING = (b"Xing", b"Info", b"VBRI")  # names in frames that count the others
_MOST_PARTS = 1000
_DELAY = 529  # samples that every decoder of layer III is late, which libmpg123 takes off beside LAME's own


@dataclass(frozen=True)
class Frame:
    """What the four bytes of a frame's header say: its size in bytes, and what must not change on the way."""

    size: int
    rate: int
    channels: int
    version: int  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5

    @property
    def side(self) -> int:
        """Bytes of side information; a Xing header lies behind them."""
        return (17, 32)[self.channels - 1] if self.version == 3 else (9, 17)[self.channels - 1]


@dataclass
class Part:
    """Frames that belong together: those that one encoder wrote.

    frames   how many there are, without the one that counts them
    stated   how many that one says there are; 0 when there is none
    runs     stretches of the file that hold them, without the one that counts
    counter  the stretch that holds that one, where libmpg123 knows its kind
    """

    head: Frame
    frames: int = 0
    stated: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)
    counter: tuple[int, int] | None = None
    continued: bool = False  # frames follow those that were counted, and lean on them

    @property
    def counted(self) -> bool:
        """Whether what it says of its length is true."""
        return self.counter is not None and self.stated == self.frames and not self.continued

    @property
    def is_plain(self) -> bool:
        """Whether it is one stretch of the file, and counts itself rightly."""
        whole = self.counter is not None and [self.counter[1]] == [start for start, _ in self.runs]
        return whole and self.counted

    def pieces(self, first: bytes) -> list[Piece]:
        """What libsndfile shall be given. `first` is the header of the first frame."""
        if self.counted and self.counter is not None:
            return [self.counter, *self.runs]
        return [_counting(self.head, first, self.frames + 1), _silent(self.head, first), *self.runs]


@lru_cache(maxsize=4096)
def header(four: bytes) -> Frame | None:
    """The header of a frame of layer III, or None. Frames of free format, which state no size, are none."""
    if len(four) < 4 or four[0] != 0xFF or four[1] & 0xE6 != 0xE2:
        return None
    version, bits, rate = four[1] >> 3 & 3, four[2] >> 4, four[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3 or four[3] & 3 == 2:
        return None
    hertz = _RATES[version][rate]
    kbps = _KBPS[version == 3][bits]
    size = (144_000 if version == 3 else 72_000) * kbps // hertz + (four[2] >> 1 & 1)
    return Frame(size, hertz, 1 if four[3] >> 6 == 3 else 2, version)


def after_id3(file: BinaryIO) -> int:
    """Where the ID3v2 tags at the start end; 0 when there are none, or one is longer than the file."""
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
    return position if position < file.seek(0, 2) else 0


def find_start(file: BinaryIO, start: int) -> int | None:
    """Where the first frame begins behind `start`, zeros and the rest of a frame skipped; None if nowhere."""
    position = _behind_zeros(file, start)
    file.seek(position)
    data = file.read(_SEARCH + _CHAIN * _LONGEST_FRAME)
    if data[:1] == b"\xff" and header(data[:4]) is not None and _chained(data, 0, 1):
        return position
    at = data.find(b"\xff")
    while 0 <= at < _SEARCH:
        if header(data[at : at + 4]) is not None and _chained(data, at, _CHAIN):
            return position + at
        at = data.find(b"\xff", at + 1)
    return None


def parts(file: BinaryIO, name: str) -> tuple[list[list[Piece]], int]:
    """What each part of an MP3 file is put together from; empty when the file is one part that counts itself.

    With them the number of bytes between frames that are neither tags nor zeros. Raises AudioError when there
    are fewer frames than a header says, and when rate or channels change on the way.
    """
    tags = after_id3(file)
    start = find_start(file, tags)
    end = _before_tags(file)
    if start is None or start >= end:
        raise AudioError(f"{name}: an MP3 file without frames; it was cut off")
    found, lost, whole = _walk(file, start, end, name)
    lost += max(0, start - _behind_zeros(file, tags) - _LONGEST_FRAME)
    for part in found:
        if part.stated == part.frames + 1 and whole:
            part.stated = 0  # some encoders count the frame that counts
        if part.stated > part.frames:
            raise AudioError(f"{name}: cut off: {part.frames} frames of MP3 instead of {part.stated}")
    if start == tags and lost == 0 and len(found) == 1 and found[0].is_plain:
        return [], 0
    made = []
    for part in found:
        if part.frames:
            file.seek(part.runs[0][0])
            made.append(part.pieces(file.read(4)))
    if not made:
        raise AudioError(f"{name}: holds no samples")
    if tags:
        made[0].insert(0, (0, tags))  # it may hold the comment
    return made, lost


@dataclass(frozen=True)
class _Run:
    """Frames of one kind that follow each other. Of `data`, they begin at index `at`."""

    start: int
    end: int
    count: int
    frame: Frame
    data: bytes
    at: int

    def split(self, count: int) -> list[_Run]:
        """The first so many frames, and the rest."""
        at = self.at
        for _ in range(count):
            frame = header(self.data[at : at + 4])
            assert frame is not None
            at += frame.size
        middle = self.start + at - self.at
        return [
            replace(self, end=middle, count=count),
            replace(self, start=middle, count=self.count - count, at=at),
        ]


def _walk(file: BinaryIO, start: int, end: int, name: str) -> tuple[list[Part], int, bool]:
    """The parts from `start` on, how many bytes were no frames and no tags, and whether the last is whole."""
    found: list[Part] = []
    first: Frame | None = None
    lost, seconds = 0, 0.0
    part: Part | None = None
    for run in _runs(file, start, end):
        if isinstance(run, int):
            lost += run
            continue
        if run.end > end:  # it is the last, and one frame alone
            return found, lost, False
        frame = run.frame
        if first is None:
            first = frame
        elif (frame.rate, frame.channels) != (first.rate, first.channels):
            raise AudioError(
                f"{name}: changes from {first.rate} Hz, {first.channels} channels to {frame.rate} Hz, "
                f"{frame.channels} channels after {seconds:.1f} s; convert it first, or cut it there"
            )
        left = part.stated - part.frames if part is not None else 0
        for stretch in run.split(left) if 0 < left < run.count else [run]:
            stated = _stated(frame, stretch.data, stretch.at)
            if part is None or stated is not None or _begins_anew(part, stretch):
                part = Part(frame)
                found.append(part)
                if len(found) > _MOST_PARTS:
                    raise AudioError(f"{name}: more than {_MOST_PARTS} MP3 files in a row; cut it")
            if stated is not None:
                part.stated = stated
                if stretch.data[stretch.at + 36 : stretch.at + 40] != b"VBRI":
                    part.counter = stretch.start, stretch.end
                continue
            part.continued |= 0 < part.stated == part.frames
            part.frames += stretch.count
            seconds += stretch.count * (1152 if frame.version == 3 else 576) / frame.rate
            if part.runs and part.runs[-1][1] == stretch.start:
                part.runs[-1] = (part.runs[-1][0], stretch.end)
            else:
                part.runs.append((stretch.start, stretch.end))
    return found, lost, True


def _runs(file: BinaryIO, start: int, end: int) -> Iterator[_Run | int]:
    """Frames, many at once but for those that count others; and between them how many bytes are unknown."""
    position, base, data = start, start, b""
    last: Frame | None = None
    sizes: dict[bytes, int] = {}  # of frames that are alike, by their headers
    marks: dict[bytes, int] = {}  # where in the data each name of a counting frame is next
    while position + 4 <= end:
        at = position - base
        if not 0 <= at < len(data) - _CHAIN * _LONGEST_FRAME and base + len(data) < end:
            file.seek(position)
            base, data, at = position, file.read(min(_READ, end - position)), 0
            if len(data) < 4:
                return
            marks = _marks(data, 0, {})
        frame = header(data[at : at + 4])
        if frame is not None and (last is None or _alike(frame, last) or _chained(data, at, _CHAIN)):
            if last is None or not _alike(frame, last):
                sizes = {}
            last = frame
            sizes[data[at : at + 4]] = frame.size
            count, to = 1, at + frame.size
            marks = _marks(data, to, marks)
            fence = min(*marks.values(), len(data)) - _LONGEST_FRAME
            if _stated(frame, data, at) is None:
                while to < fence and (size := sizes.get(data[to : to + 4])):
                    to += size
                    count += 1
            yield _Run(position, base + to, count, frame, data, at)
            position = base + to
            continue
        known = _tag(data, at)
        if known and position + known <= end:
            position += known
            continue
        step = _next_sync(data, at)
        yield len(data[at : at + step].strip(b"\0"))
        position += step


def _marks(data: bytes, at: int, known: dict[bytes, int]) -> dict[bytes, int]:
    """Where each name of a frame that counts others is next, at or behind an index.

    known  the same for an index before; only what lies before `at` is looked for again
    """
    if known and min(known.values()) >= at:
        return known
    places = {name: known.get(name, -1) for name in _COUNTING}
    for name, place in places.items():
        if place < at:
            found = data.find(name, at)
            places[name] = found if found >= 0 else len(data) + _LONGEST_FRAME
    return places


def _alike(frame: Frame, last: Frame) -> bool:
    return (frame.rate, frame.channels, frame.version) == (last.rate, last.channels, last.version)


def _chained(data: bytes, at: int, count: int) -> bool:
    """Whether `count` frames of one kind follow each other, or fewer to the end of the data."""
    first = header(data[at : at + 4])
    for _ in range(count):
        frame = header(data[at : at + 4])
        if frame is None or first is None or not _alike(frame, first):
            return False
        at += frame.size
        if at + 4 > len(data):
            return at <= len(data)
    return True


def _next_sync(data: bytes, at: int) -> int:
    """How far it is from `at` to the next frames in a row, or to where the data must be read anew."""
    begin = at
    limit = max(at + 1, len(data) - _CHAIN * _LONGEST_FRAME)
    at = data.find(b"\xff", at + 1)
    while at >= 0:
        if header(data[at : at + 4]) is not None and _chained(data, at, _CHAIN):
            return at - begin
        at = data.find(b"\xff", at + 1)
        if at >= limit and limit - begin > 1:
            return limit - begin
    return max(1, len(data) - begin)


def _tag(data: bytes, at: int) -> int:
    """The length of the tag that stands here: ID3v2, ID3v1, APEv2; 0 when none does."""
    if data.startswith(b"ID3", at) and at + 10 <= len(data):
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        return 10 + size + (10 if data[at + 5] & 0x10 else 0)
    if data.startswith(b"TAG", at):
        return 128
    if data.startswith(b"APETAGEX", at) and at + 32 <= len(data):
        return int.from_bytes(data[at + 12 : at + 16], "little") + (32 if data[at + 23] & 0x20 else 0)
    return 0


def _before_tags(file: BinaryIO) -> int:
    """Where the tags at the end of the file begin."""
    end = file.seek(0, 2)
    for _ in range(4):
        file.seek(max(0, end - 128))
        tail = file.read(min(128, end))
        if len(tail) == 128 and tail[:3] == b"TAG":
            end -= 128
        elif tail[-32:-24] == b"APETAGEX":
            size = int.from_bytes(tail[-20:-16], "little") + (32 if tail[-9] & 0x80 else 0)
            end = max(0, end - size) if size >= 32 else end
        else:
            break
    return end


def _behind_zeros(file: BinaryIO, start: int) -> int:
    position = start
    file.seek(position)
    while data := file.read(_READ):
        rest = data.lstrip(b"\0")
        if rest:
            return position + len(data) - len(rest)
        position += len(data)
    return position


def _stated(frame: Frame, data: bytes, at: int) -> int | None:
    """How many frames follow, where this one counts them; 0 when it does not say; None where it is sound."""
    mark = data[at + 4 + frame.side : at + 16 + frame.side]
    if mark[:4] in _COUNTING[:2]:
        return int.from_bytes(mark[8:12], "big") if mark[7:8] and mark[7] & 1 else 0
    if data[at + 36 : at + 40] == b"VBRI":
        return int.from_bytes(data[at + 50 : at + 54], "big")
    return None


def _begins_anew(part: Part, run: _Run) -> bool:
    """Whether frames behind those that were counted begin anew: the first needs no data of those before."""
    if not 0 < part.stated == part.frames:
        return False
    back = (
        run.at + 4 + (0 if run.data[run.at + 1] & 1 else 2)
    )  # how far back its data begin, behind a checksum
    bits = int.from_bytes(run.data[back : back + 2], "big")
    return bits >> (7 if run.frame.version == 3 else 8) == 0


def _like(frame: Frame, first: bytes, kbps: int) -> tuple[bytes, int]:
    """The header of a frame that fits to another one, without a checksum, and its size."""
    bits = _KBPS[frame.version == 3].index(kbps)
    head = bytes([0xFF, first[1] | 1, bits << 4 | first[2] & 0x0C, first[3]])
    made = header(head)
    assert made is not None
    return head, made.size


def _silent(frame: Frame, first: bytes) -> bytes:
    """A frame of silence. It is in front of the others to be taken off in place of their first samples."""
    head, size = _like(frame, first, 32)
    return head + bytes(size - 4)


def _counting(frame: Frame, first: bytes, frames: int) -> bytes:
    """A frame that says how many follow, and that the first of them is to be taken off, exactly."""
    head, size = _like(frame, first, 128)
    samples = 1152 if frame.version == 3 else 576
    lame = b"LAME3.100" + bytes(12) + ((samples - _DELAY) << 12 | _DELAY).to_bytes(3, "big")
    body = head + bytes(frame.side) + b"Xing" + struct.pack(">II", 1, frames) + lame
    return body + bytes(size - len(body))
