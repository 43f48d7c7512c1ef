"""Reading audio files block by block. Blocks are float32 (samples, channels) here.

WAV and its kin are read by `wave_files`; AIFF, FLAC, Ogg and MP3 by libsndfile, part by part where a file
holds several; the rest by FFmpeg, where it is installed.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiogen_core import aiff_files, channels, containers, ffmpeg_reader, mp3_frames, ogg_pages, wave_files
from audiogen_core.c_stderr import silenced
from audiogen_core.errors import AudioError, SoundWarning
from audiogen_core.mp3_frames import Piece

Floats = NDArray[np.float32]

MIN_RATE, MAX_RATE = 100, 768_000
"""Sample rates that are accepted, Hz."""

MAX_CHANNELS = 32

_READABLE = {
    "AIFF": ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
_UNKNOWN_LENGTH = 1 << 62  # libsndfile says the largest integer
_TOO_LOUD = 10.0  # of full scale: 20 dB above it, which no clip of floats reaches by being loud
_FLAC_FIRST = (
    b"\0\0\0\x22",
    b"\x80\0\0\x22",
)  # behind the mark of a stream: its first block, perhaps its last
_FEW_PARTS = 1000


class NotFinite(AudioError):
    """A file with samples that are NaN or infinite."""


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself.

    format, subtype  container and how samples are stored, in libsndfile's words or FFmpeg's
    sample_rate      Hz
    channels
    frames           samples per channel; 0 when it is not known before decoding
    comment          the text of the comment tag, or ""
    counted          whether `frames` is stated in the file, not guessed from its size
    speakers         which speaker each channel is for: the mask of WAVEFORMATEXTENSIBLE, 0 when not said
    """

    format: str
    subtype: str
    sample_rate: int
    channels: int
    frames: int
    comment: str
    counted: bool = True
    speakers: int = 0


class Reader:
    """An open audio file, its header checked.

    decode  gives the samples in blocks of at most so many
    """

    def __init__(self, path: Path, info: FileInfo, decode: Callable[[int], Iterator[Floats]]) -> None:
        self.path = path
        self.info = info
        self._decode = decode

    def blocks(self, size: int) -> Iterator[Floats]:
        """Blocks (n, channels) of at most `size` samples, all finite.

        Raises AudioError when decoding fails, ends early, or gives NaN or infinity.
        """
        name, got = name_of(self.path), 0
        floats = self.info.subtype in ("FLOAT", "DOUBLE") or self.info.subtype.startswith("pcm_f")
        for block in self._decode(size):
            got += len(block)
            if not np.isfinite(block).all():
                raise NotFinite(f"{name}: holds NaN or infinite samples")
            if floats and (peak := max(float(block.max()), -float(block.min()))) > _TOO_LOUD:
                floats = False  # told once
                _warn(
                    f"{name}: samples reach {peak:g} where full scale is 1; if they are 16-bit numbers "
                    "stored as floats, divide them by 32768"
                )
            yield block
        if got < self.info.frames and self.info.counted:
            raise AudioError(f"{name}: cut off: {got} samples instead of {self.info.frames}")


@contextmanager
def open_sound(path: str | Path) -> Iterator[Reader]:
    """Open an audio file for reading. Raises AudioError, one sentence with the path in it."""
    path = Path(path)
    name = name_of(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AudioError(
                f"{name}: {'a folder' if path.is_dir() else 'no regular file'}; name an audio file"
            )
        file = path.open("rb", buffering=0)  # without a buffer: libsndfile shares the descriptor
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened ({reason(error)})") from error
    with file:
        kind = containers.sniff(file, name)
        if kind in containers.FOREIGN:
            with ffmpeg_reader.open_foreign(file, name, kind) as (info, decode):
                yield Reader(path, _check(FileInfo(**info), name), decode)
        elif kind in ("WAV", "RF64", "W64"):
            yield _wave(file, path, name)
        else:
            yield _sndfile(file, path, name, kind)


def _wave(file: BinaryIO, path: Path, name: str) -> Reader:
    sounds = wave_files.open_wave(file, name)
    infos = [
        FileInfo(
            each.form, each.subtype, each.sample_rate, each.channels, each.frames, each.comment,
            speakers=each.speakers,
        )
        for each in sounds
    ]  # fmt: skip
    info = _joined(infos, name)
    for each in sounds:
        if each.doubt:
            _warn(f"{name}: {each.doubt}" + ("" if "left out" in each.doubt else "; it was read to its end"))

    def decode(size: int) -> Iterator[Floats]:
        for each in sounds:
            yield from each.blocks(file, size)

    return Reader(path, info, decode)


def _sndfile(file: BinaryIO, path: Path, name: str, kind: str) -> Reader:
    """A file that libsndfile reads, or several in a row."""
    parts: Sequence[list[Piece]] = []
    if kind == "MP3":
        parts, lost = mp3_frames.parts(file, name)
        if lost:
            _warn(f"{name}: {lost} bytes between the frames of MP3 are damaged and were left out")
    elif kind == "OGG" and len(links := ogg_pages.links(file, name)) > 1:
        parts = [[link] for link in links]
    elif kind == "FLAC" and len(streams := _flac_streams(file)) > 1:
        parts = [[stream] for stream in streams]
    elif kind == "AIFF":
        parts, doubts = aiff_files.parts(file, name)
        for doubt in doubts:
            _warn(f"{name}: {doubt}")
    if len(parts) > _FEW_PARTS:
        raise AudioError(f"{name}: more than {_FEW_PARTS} files in a row; cut it")
    pieces: list[list[Piece] | None] = [*parts] or [None]
    infos, order = [], list[int]()
    for each in pieces:
        with _opened(file, path, name, each) as sound:
            infos.append(_check(_described(sound), name))
            order = list(_order(file, sound, each))
    info = _joined(infos, name)

    def decode(size: int) -> Iterator[Floats]:
        for each, part in zip(pieces, infos, strict=True):
            got = 0
            with _opened(file, path, name, each) as sound:
                for block in _blocks(sound, size, part.channels, name):
                    got += len(block)
                    yield block if order == sorted(order) else np.ascontiguousarray(block[:, order])
            if got < part.frames:
                raise AudioError(f"{name}: cut off: {got} samples instead of {part.frames}")

    return Reader(path, info, decode)


@contextmanager
def _opened(file: BinaryIO, path: Path, name: str, pieces: list[Piece] | None) -> Iterator[Any]:
    """libsndfile on the file, or on what it is given in place of it."""
    import soundfile

    spliced = None if pieces is None else Spliced(file, pieces)
    file.seek(0)
    try:
        # The descriptor, so that the file that was checked is the one that is decoded.
        source = spliced or (str(path) if sys.platform == "win32" else file.fileno())
        with silenced():
            sound = sequential()(source, closefd=False)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise AudioError(f"{name}: not readable as audio ({reason(error)})") from error
    finally:
        if spliced is not None:
            spliced.reraise(name)
    with sound:
        yield sound
        if spliced is not None:
            spliced.reraise(name)


def _blocks(sound: Any, size: int, count: int, name: str) -> Iterator[Floats]:
    import soundfile

    while True:
        block = np.empty((size, count), np.float32)
        try:
            with silenced():
                got = sound.buffer_read_into(block, "float32")
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(f"{name}: damaged or cut off ({reason(error)})") from error
        if got == 0:
            return
        yield block[:got]


def _described(sound: Any) -> FileInfo:
    frames = 0 if sound.frames >= _UNKNOWN_LENGTH else sound.frames
    return FileInfo(sound.format, sound.subtype, sound.samplerate, sound.channels, frames, sound.comment)


def _check(info: FileInfo, name: str) -> FileInfo:
    if info.format in _READABLE and info.subtype not in _READABLE[info.format]:
        raise AudioError(f"{name}: {info.format} {info.subtype} is not read; {containers.KNOWN} are")
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(f"{name}: {info.sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are accepted")
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {info.channels} channels; 1 to {MAX_CHANNELS} are accepted")
    return info


def _joined(infos: Sequence[FileInfo], name: str) -> FileInfo:
    """What parts that follow each other are as one. Raises AudioError when rate or channels change."""
    first, frames = _check(infos[0], name), 0
    for each in infos:
        if (each.sample_rate, each.channels) != (first.sample_rate, first.channels):
            raise AudioError(
                f"{name}: changes from {first.sample_rate} Hz, {first.channels} channels to "
                f"{each.sample_rate} Hz, {each.channels} channels after {frames / first.sample_rate:.1f} s; "
                "convert it first, or cut it there"
            )
        frames += each.frames
    counted = all(each.frames for each in infos)
    return replace(first, frames=frames if counted else 0)


def _order(file: BinaryIO, sound: Any, pieces: list[Piece] | None) -> tuple[int, ...]:
    """Where the channels of the usual order are. Ogg has another, but for Opus that says it has none."""
    if sound.format == "OGG":
        piece = pieces[0] if pieces else (0, 0)
        file.seek(piece[0] if isinstance(piece, tuple) else 0)
        head = file.read(27 + 255 + 19)
        body = 27 + head[26]
        if not (head.startswith(b"OpusHead", body) and head[body + 18] == 255):
            return channels.from_vorbis(sound.channels)
    return tuple(range(sound.channels))


def _flac_streams(file: BinaryIO) -> list[tuple[int, int]]:
    """Where each of the first FLAC streams of a file begins and ends. libsndfile reads one alone."""
    size = file.seek(0, 2)
    starts: list[int] = []
    base, held = 0, b""
    file.seek(0)
    while len(starts) <= _FEW_PARTS and (data := file.read(1 << 20)):
        held += data
        at = held.find(b"fLaC")
        while at >= 0:
            if held[at + 4 : at + 8] in _FLAC_FIRST:
                starts.append(base + at)
            at = held.find(b"fLaC", at + 1)
        base, held = base + len(held) - 7, held[-7:]  # a mark may lie across two reads
    return list(pairwise([*starts, size]))


class Spliced(io.RawIOBase):
    """A file for reading, put together from stretches of another and from bytes of ours.

    It is read by C code, which no exception can cross: one is kept until `reraise`, and the file seems to
    end.
    """

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = pieces
        self._ends: list[int] = []
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._ends.append((self._ends[-1] if self._ends else 0) + length)
        self._at = 0
        self._index = 0  # of the piece that was read last
        self._error: BaseException | None = None

    def reraise(self, name: str) -> None:
        error, self._error = self._error, None
        if isinstance(error, OSError):
            raise AudioError(f"{name}: cannot be read ({reason(error)})") from error
        if error is not None:
            raise error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view, got = memoryview(buffer).cast("B"), 0
        try:
            while got < len(view) and self._at < self._ends[-1] and self._error is None:
                data = self._some(len(view) - got)
                if not data:
                    break
                view[got : got + len(data)] = data
                got += len(data)
                self._at += len(data)
        except BaseException as error:  # noqa: BLE001 - C code is in between: see above
            self._error = error
        return got

    def _some(self, count: int) -> bytes:
        """At most so many of the bytes that come next, of one piece."""
        while self._index and self._at < self._ends[self._index - 1]:
            self._index -= 1
        while self._at >= self._ends[self._index]:
            self._index += 1
        piece = self._pieces[self._index]
        count = min(count, self._ends[self._index] - self._at)
        start = self._at - (self._ends[self._index - 1] if self._index else 0)
        if isinstance(piece, bytes):
            return piece[start : start + count]
        self._file.seek(piece[0] + start)
        return self._file.read(count)


@cache
def sequential() -> Any:
    """soundfile's class without the seek it makes after each block, which puts Opus off by some samples."""
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return Sequential


def name_of(path: str | Path) -> str:
    """A path in a form that fits on one line and prints anywhere."""
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in str(path))


def reason(error: Exception) -> str:
    """The cause that an error of libsndfile or the system states."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".")


def _warn(text: str) -> None:
    warnings.warn(text, SoundWarning, stacklevel=3)
