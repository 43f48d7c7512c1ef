"""Reading audio files block by block through libsndfile. Blocks are float32 (samples, channels) here."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import containers
from audiogen_core.errors import AudioError

Floats = NDArray[np.float32]

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are accepted, Hz."""

MAX_CHANNELS = 32

_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_READABLE = {
    "WAV": ("PCM_U8", *_PCM),
    "WAVEX": ("PCM_U8", *_PCM),
    "AIFF": ("PCM_S8", "PCM_U8", *_PCM),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
_UNKNOWN_LENGTH = 1 << 62  # libsndfile says the largest integer


class NotFinite(AudioError):
    """A file with samples that are NaN or infinite."""


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself.

    format, subtype  container and how samples are stored, in libsndfile's words
    sample_rate      Hz
    channels
    frames           samples per channel; 0 when it is not known before decoding
    comment          the text of the comment tag, or ""
    counted          whether `frames` is stated in the file, not guessed from its size
    """

    format: str
    subtype: str
    sample_rate: int
    channels: int
    frames: int
    comment: str
    counted: bool = True


class Reader:
    """An open audio file, its header checked."""

    def __init__(self, sound: Any, path: Path, info: FileInfo) -> None:
        self._sound = sound
        self.path = path
        self.info = info

    def blocks(self, size: int) -> Iterator[Floats]:
        """Blocks (n, channels) of at most `size` samples, all finite.

        Raises AudioError when decoding fails, ends early, or gives NaN or infinity.
        """
        import soundfile

        name, got = name_of(self.path), 0
        while True:
            block = np.empty((size, self.info.channels), np.float32)
            try:
                count = self._sound.buffer_read_into(block, "float32")
            except (soundfile.SoundFileError, OSError) as error:
                raise AudioError(f"{name}: damaged or cut off ({reason(error)})") from error
            if count == 0:
                break
            got += count
            if not np.isfinite(block[:count]).all():
                raise NotFinite(f"{name}: holds NaN or infinite samples")
            yield block[:count]
        if got < self.info.frames and self.info.counted:
            raise AudioError(f"{name}: cut off: {got} samples instead of {self.info.frames}")


@contextmanager
def open_sound(path: str | Path) -> Iterator[Reader]:
    """Open an audio file for reading. Raises AudioError, one sentence with the path in it."""
    import soundfile

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
        comment = containers.wav_comment(file) if kind == "WAV" else None
        counted = kind != "MP3" or containers.mp3_tells_length(file)
        file.seek(0)
        try:
            # The descriptor, so that the file that was checked is the one that is decoded.
            source = str(path) if sys.platform == "win32" else file.fileno()
            sound = sequential()(source, closefd=False)
        except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
            raise AudioError(f"{name}: not readable as audio ({reason(error)})") from error
        with sound:
            yield Reader(sound, path, _check(sound, name, comment, counted))


def _check(sound: Any, name: str, comment: str | None, counted: bool) -> FileInfo:
    if sound.subtype not in _READABLE.get(sound.format, ()):
        raise AudioError(f"{name}: {sound.format} {sound.subtype} is not read; {containers.KNOWN} are")
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise AudioError(f"{name}: {sound.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz are accepted")
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {sound.channels} channels; 1 to {MAX_CHANNELS} are accepted")
    frames = 0 if sound.frames >= _UNKNOWN_LENGTH else sound.frames
    if comment is None:
        comment = sound.comment
    return FileInfo(sound.format, sound.subtype, sound.samplerate, sound.channels, frames, comment, counted)


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
