"""Reading and writing audio files block by block: the only module that talks to libsndfile.

Blocks here are float32 (samples, channels), as libsndfile has them.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core import containers
from audiogen_core.errors import AudioError
from audiogen_core.files import atomic_path

if TYPE_CHECKING:
    from audiogen_core.recipe import Recipe

Floats = NDArray[np.float32]

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are accepted, Hz."""

MAX_CHANNELS = 32

MAX_BYTES = 4 << 30
"""Decoded bytes that one clip may have in memory."""

_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_READABLE = {
    "WAV": ("PCM_U8", *_PCM),
    "WAVEX": ("PCM_U8", *_PCM),
    "AIFF": ("PCM_S8", "PCM_U8", *_PCM),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
WRITABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    ".wav": ("WAV", _PCM),
    ".flac": ("FLAC", ("PCM_16", "PCM_24")),
    ".ogg": ("OGG", ("VORBIS", "OPUS")),
    ".opus": ("OGG", ("OPUS",)),
    ".mp3": ("MP3", ("MPEG_LAYER_III",)),
    ".aiff": ("AIFF", _PCM),
    ".aif": ("AIFF", _PCM),
}
"""Suffix -> format, and what its samples may be stored as; the first is the default."""

_RATES = {
    "OPUS": (8_000, 12_000, 16_000, 24_000, 48_000),
    "MPEG_LAYER_III": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}
_MOST_CHANNELS = {"MPEG_LAYER_III": 2, "PCM_16": MAX_CHANNELS}
_WAV_LIMIT = (4 << 30) - (1 << 20)  # a WAV or AIFF states its size in 32 bits


class ClippingWarning(UserWarning):
    """Samples beyond full scale were clipped when a file was written."""


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself: container, sample type, Hz, channels, samples per channel, comment."""

    format: str
    subtype: str
    sample_rate: int
    channels: int
    frames: int
    comment: str


class Reader:
    """An open audio file, checked before anything is decoded."""

    def __init__(self, sound: Any, path: Path, info: FileInfo) -> None:
        self._sound = sound
        self.path = path
        self.info = info

    def blocks(self, size: int) -> Iterator[Floats]:
        """Blocks (n, channels) of at most `size` samples each, all finite.

        Raises AudioError when decoding fails, ends early or gives NaN or infinity.
        """
        import soundfile

        got = 0
        while True:
            block = np.empty((size, self.info.channels), np.float32)
            try:
                count = self._sound.buffer_read_into(block, "float32")
            except (soundfile.SoundFileError, OSError) as error:
                raise AudioError(f"{name_of(self.path)}: damaged or truncated ({_reason(error)})") from error
            if count == 0:
                break
            got += count
            block = block[:count]
            if not np.isfinite(block).all():
                raise AudioError(f"{name_of(self.path)}: holds NaN or infinite samples")
            yield block
        if got < self.info.frames:
            raise AudioError(
                f"{name_of(self.path)}: truncated: "
                f"the header promises {self.info.frames} samples, {got} are there"
            )


def name_of(path: Path) -> str:
    """The path in a form that fits on one line and prints anywhere."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)


@contextmanager
def open_sound(path: str | Path) -> Iterator[Reader]:
    """Open an audio file for reading. Raises AudioError, one sentence with the path in it."""
    import soundfile

    path = Path(path)
    name = name_of(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AudioError(
                f"{name}: {'a folder' if path.is_dir() else 'not a regular file'}, not an audio file"
            )
        file = path.open("rb", buffering=0)  # the descriptor is shared, so no buffer
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened ({_reason(error)})") from error
    with file:
        containers.sniff(file, name)
        file.seek(0)
        try:
            sound = _sequential()(_opened(file, path), closefd=False)
        except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
            raise AudioError(f"{name}: not readable as audio ({_reason(error)})") from error
        with sound:
            yield Reader(sound, path, _check(sound, name))


@cache
def _sequential() -> Any:
    """soundfile's class without the seek it makes after each block, which puts Opus off by some samples."""
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return Sequential


def _opened(file: Any, path: Path) -> Any:
    """What soundfile is given: the descriptor, so that the checked file is the one read."""
    return str(path) if sys.platform == "win32" else file.fileno()


def _check(sound: Any, name: str) -> FileInfo:
    if sound.subtype not in _READABLE.get(sound.format, ()):
        raise AudioError(
            f"{name}: {sound.format} {sound.subtype} is not read; {containers.KNOWN} with plain samples are"
        )
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise AudioError(
            f"{name}: a sample rate of {sound.samplerate} Hz; {MIN_RATE} to {MAX_RATE} is accepted"
        )
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {sound.channels} channels; 1 to {MAX_CHANNELS} are accepted")
    frames = 0 if sound.frames >= 1 << 62 else sound.frames  # unknown until it is decoded
    return FileInfo(sound.format, sound.subtype, sound.samplerate, sound.channels, frames, sound.comment)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".")


class AudioWriter:
    """Writes a long clip block by block; the file appears, whole, when the `with` block ends.

    path         the suffix chooses the format: .wav .flac .ogg .opus .mp3 .aiff
    sample_rate  Hz
    channels     of every block
    recipe       goes into the comment tag
    subtype      how samples are stored, a name of libsndfile's: PCM_16 (WAV, AIFF and FLAC unless asked
                 otherwise), PCM_24, PCM_32, FLOAT, DOUBLE

    Samples beyond [-1, 1] are clipped, except in FLOAT and DOUBLE files; `clipped` counts them, and a
    ClippingWarning tells of them at the end. When the body raises, an old file stays as it was.
    Raises AudioError for an unknown suffix, what the format cannot hold, and a failing disk.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        *,
        recipe: Recipe | None = None,
        subtype: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        self.samples = 0
        self.clipped = 0
        self.peak = 0.0
        self._name = name_of(self.path)
        self._format, self._subtype = _choose(self.path, sample_rate, channels, subtype)
        self._comment = "" if recipe is None else recipe.to_json()
        self._place: AbstractContextManager[Path] | None = None
        self._sound: Any = None

    def __enter__(self) -> AudioWriter:
        if self.path.is_dir():
            raise AudioError(f"{self._name}: a folder; name a file to write")
        if not self.path.parent.is_dir():
            raise AudioError(f"{self._name}: the folder {name_of(self.path.parent)} does not exist")
        self._place = atomic_path(self.path)
        temporary = self._place.__enter__()
        try:
            self._sound = self._open(temporary)
        except BaseException as error:
            self._place.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self, temporary: Path) -> Any:
        import soundfile

        target = str(temporary) if sys.platform == "win32" else os.fsencode(temporary)
        try:
            sound = _sequential()(
                target, "w", self.sample_rate, self.channels, self._subtype, format=self._format
            )
            if self._comment:
                sound.comment = self._comment
        except (soundfile.SoundFileError, OSError) as error:
            raise self._failed(error) from error
        return sound

    def write(self, block: NDArray[Any]) -> None:
        """Append float samples (channels, n)."""
        block = np.asarray(block, np.float32)
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise AudioError(f"{self._name}: expected blocks ({self.channels}, samples), got {block.shape}")
        if not np.isfinite(block).all():
            raise AudioError(f"{self._name}: NaN or infinite samples cannot be written")
        if block.shape[1] == 0:
            return
        self.samples += block.shape[1]
        self._check_size()
        largest = float(np.abs(block).max())
        self.peak = max(self.peak, largest)
        if largest > 1 and self._subtype not in ("FLOAT", "DOUBLE"):
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            block = block.clip(-1, 1)
        import soundfile

        try:
            self._sound.write(np.ascontiguousarray(block.T))
        except (soundfile.SoundFileError, OSError, AssertionError) as error:  # a short write is asserted on
            raise self._failed(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._place is not None
        try:
            self._finish(kind is None)
        except BaseException as failure:
            self._place.__exit__(type(failure), failure, failure.__traceback__)
            raise
        try:
            self._place.__exit__(kind, error, trace)
        except OSError as failure:
            if failure is error:
                return
            raise self._failed(failure) from failure
        if kind is None and self.clipped:
            warnings.warn(
                f"{self._name}: {self.clipped} samples beyond full scale were clipped (peak {self.peak:.2f})",
                ClippingWarning,
                stacklevel=2,
            )

    def _finish(self, whole: bool) -> None:
        import soundfile

        try:
            self._sound.close()
        except (soundfile.SoundFileError, OSError) as error:
            if whole:
                raise self._failed(error) from error
        if whole and self.samples == 0:
            raise AudioError(f"{self._name}: nothing to write, the clip has no samples")

    def _check_size(self) -> None:
        width = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}.get(self._subtype, 0)
        if self._format in ("WAV", "AIFF") and self.samples * self.channels * width > _WAV_LIMIT:
            raise AudioError(f"{self._name}: a {self._format} file cannot hold more than 4 GiB; write .flac")

    def _failed(self, error: Exception) -> AudioError:
        free = shutil.disk_usage(self.path.parent).free
        reason = _reason(error) or "short write"
        return AudioError(
            f"{self._name}: could not be written ({reason}); {free / 1e6:.0f} MB are free there"
        )


def _choose(path: Path, sample_rate: int, channels: int, subtype: str | None) -> tuple[str, str]:
    """The format and subtype to write, or AudioError."""
    name = name_of(path)
    if path.suffix.lower() not in WRITABLE:
        raise AudioError(
            f"{name}: cannot write {path.suffix or 'a file without a suffix'}; known: {', '.join(WRITABLE)}"
        )
    kind, subtypes = WRITABLE[path.suffix.lower()]
    chosen = subtypes[0] if subtype is None else subtype.upper()
    if chosen not in subtypes:
        raise AudioError(f"{name}: {path.suffix} is not stored as {subtype}; known: {', '.join(subtypes)}")
    rates = _RATES.get(chosen)
    if rates and sample_rate not in rates:
        raise AudioError(
            f"{name}: {path.suffix} holds {', '.join(map(str, rates))} Hz, not {sample_rate}; resample first"
        )
    most = 2 if kind == "MP3" else 8 if kind in ("FLAC", "OGG") else MAX_CHANNELS
    if not 1 <= channels <= most:
        raise AudioError(f"{name}: {path.suffix} holds at most {most} channels, not {channels}; mix first")
    return kind, chosen
