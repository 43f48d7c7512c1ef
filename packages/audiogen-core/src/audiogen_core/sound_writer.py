"""Writing audio files block by block through libsndfile, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.channels import from_vorbis
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.recipe import Recipe
from audiogen_core.sound_reader import MAX_CHANNELS, MAX_RATE, MIN_RATE, name_of, reason, sequential
from audiogen_core.stable_bytes import settle
from audiogen_core.values import closed

_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
WRITABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    ".wav": ("WAV", _PCM),
    ".flac": ("FLAC", ("PCM_16", "PCM_24")),
    ".ogg": ("OGG", ("VORBIS", "OPUS")),
    ".opus": ("OGG", ("OPUS",)),
    ".mp3": ("MP3", ("MPEG_LAYER_III",)),
    ".aiff": ("AIFF", _PCM),
    ".aif": ("AIFF", _PCM),
}
"""Suffix -> format, and how its samples may be stored; the first is the default."""

LOSSY = (".ogg", ".opus", ".mp3")
"""Suffixes of formats that keep no sample as it is."""

SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
"""How samples may be stored, as options and as libsndfile name it."""

_RATES = {
    "OPUS": (8_000, 12_000, 16_000, 24_000, 48_000),
    "MPEG_LAYER_III": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}
_FASTEST = {"VORBIS": 200_000, "FLAC": 655_350}
"""Hz, by subtype or format; beyond it libsndfile fails, with Vorbis by a crash of the process."""

_MOST_CHANNELS = {"MP3": 2, "FLAC": 8, "OGG": 8}
_MOST_COMMENT = {"AIFF": 8_000}  # bytes; more, and libsndfile cannot open the file again
_COMMENT = 50_000  # bytes, elsewhere
_ENCODED = 40_000  # bytes a second of a lossy file, at most
_WIDTH = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_BLOCK = 1 << 16  # samples given to the encoder at once
_LARGEST = (4 << 30) - (1 << 20)  # a WAV or AIFF file states its size in 32 bits


class ClippingWarning(UserWarning):
    """Samples beyond full scale were clipped when a file was written."""


class AudioWriter:
    """Writes a long clip block by block; the file appears, whole, when the `with` block ends.

    path         the suffix chooses the format: .wav .flac .ogg .opus .mp3 .aiff
    sample_rate  Hz
    channels     of every block
    recipe       goes into the comment tag: 50 kB of it at most, in AIFF 8 kB
    subtype      how samples are stored, in libsndfile's words: PCM_16 (what WAV, AIFF and FLAC have unless
                 asked otherwise), PCM_24, PCM_32, FLOAT, DOUBLE; in .ogg VORBIS or OPUS

    Samples beyond [-1, 1] are clipped, except in FLOAT and DOUBLE files; `clipped` counts them, and a
    ClippingWarning tells of them at the end. `samples` counts what was given, per channel. When the body
    raises, an old file stays as it was. The same samples give the same bytes, however they are cut.

    Raises AudioError for an unknown suffix, for what the format cannot hold, and when the disk fails.
    """

    @closed(AudioError)
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
        most = _MOST_COMMENT.get(self._format, _COMMENT)
        if len(self._comment.encode()) > most:
            raise AudioError(
                f"{self._name}: the recipe has {len(self._comment.encode())} bytes, "
                f"{self.path.suffix} carries {most} at most; shorten its settings or use another format"
            )
        self._session: AbstractContextManager[None] = self._write_whole()
        self._sound: Any = None
        self._buffer = np.empty((_BLOCK, channels), np.float32)
        self._held = 0

    def __enter__(self) -> AudioWriter:
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._session.__exit__(kind, error, trace)

    def write(self, block: NDArray[Any]) -> None:
        """Append float samples (channels, n)."""
        if np.ndim(block) != 2 or np.shape(block)[0] != self.channels:
            raise AudioError(f"{self._name}: blocks are ({self.channels}, samples), got {np.shape(block)}")
        self.samples += block.shape[1]
        size = self.samples * self.channels * _WIDTH.get(self._subtype, 0)
        if self._format in ("WAV", "AIFF") and size > _LARGEST:
            raise AudioError(f"{self._name}: {self.path.suffix} holds at most 4 GiB; write .flac")
        # Encoders look at what they are given at once: blocks of one size make them forget how it came.
        start = 0
        while start < block.shape[1]:
            part = block[:, start : start + _BLOCK - self._held]
            self._buffer[self._held : self._held + part.shape[1]] = part.T
            self._held += part.shape[1]
            start += part.shape[1]
            if self._held == _BLOCK:
                self._flush()

    def _flush(self) -> None:
        import soundfile

        samples = self._checked(self._buffer[: self._held])
        if self._format == "OGG" and self.channels > 2:
            samples = np.ascontiguousarray(samples[:, np.argsort(from_vorbis(self.channels))])
        self._held = 0
        try:
            self._sound.write(samples)
        except (soundfile.SoundFileError, OSError, AssertionError) as error:  # it asserts on a short write
            raise self._failed(error) from error

    @contextmanager
    def _write_whole(self) -> Iterator[None]:
        if self.path.is_dir():
            raise AudioError(f"{self._name}: a folder; name a file to write")
        if not self.path.parent.is_dir():
            raise AudioError(f"{self._name}: the folder {name_of(self.path.parent)} does not exist")
        theirs: BaseException | None = None
        try:
            with atomic_path(self.path) as temporary:
                self._sound = self._open(temporary)
                try:
                    yield
                except BaseException as error:
                    theirs = error
                    self._abandon()
                    raise
                self._close()
                settle(temporary, self._format)
        except OSError as error:
            if error is theirs:
                raise
            raise self._failed(error) from error
        if self.clipped:
            warnings.warn(
                f"{self._name}: {self.clipped} samples beyond full scale were clipped (peak {self.peak:.2f})",
                ClippingWarning,
                stacklevel=4,  # the `with` statement
            )

    def _open(self, temporary: Path) -> Any:
        import soundfile

        target = str(temporary) if sys.platform == "win32" else os.fsencode(temporary)
        try:
            sound = sequential()(
                target, "w", self.sample_rate, self.channels, self._subtype, format=self._format
            )
            if self._comment:
                sound.comment = self._comment
        except (soundfile.SoundFileError, OSError) as error:
            raise self._failed(error) from error
        return sound

    def _close(self) -> None:
        import soundfile

        if self._held:
            self._flush()
        if self.samples == 0:
            self._abandon()
            raise AudioError(f"{self._name}: nothing to write, the clip has no samples")
        try:
            self._sound.close()
        except (soundfile.SoundFileError, OSError) as error:
            raise self._failed(error) from error

    def _abandon(self) -> None:
        import soundfile

        with suppress(soundfile.SoundFileError, OSError):
            self._sound.close()

    def _checked(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        """The samples (n, channels) as libsndfile shall store them, clipped and counted."""
        if not np.isfinite(samples).all():
            raise AudioError(f"{self._name}: NaN or infinite samples cannot be written")
        self.peak = max(self.peak, float(samples.max()), -float(samples.min()))
        if self._subtype in ("FLOAT", "DOUBLE"):
            return samples
        self.clipped += int(np.count_nonzero(np.abs(samples) > 1))
        if self._subtype in _WIDTH:
            return _integers(samples, 8 * _WIDTH[self._subtype])
        return samples.clip(-1, 1)

    def _failed(self, error: Exception) -> AudioError:
        cause = reason(error) or "not all was written"
        try:
            cause += f"; {shutil.disk_usage(self.path.parent).free / 1e6:.0f} MB are free there"
        except OSError:
            cause += "; the folder is gone"
        return AudioError(f"{self._name}: could not be written ({cause})")


def _integers(samples: NDArray[np.float32], bits: int) -> NDArray[np.int32]:
    """Samples rounded to `bits`, in the upper bits of int32.

    Reading divides by 2**(bits - 1), so what was read is written back unchanged. (libsndfile's own
    conversion rounds down where it clips.)
    """
    scale = 2.0 ** (bits - 1)
    values = np.rint(samples * np.float64(scale)).clip(-scale, scale - 1)
    return values.astype(np.int32) << (32 - bits)


def check_suffix(path: Path) -> tuple[str, tuple[str, ...]]:
    """The format that a file's suffix names, and how its samples may be stored. Raises AudioError."""
    suffix = name_of(path.suffix.lower())
    if suffix not in WRITABLE:
        raise AudioError(
            f"{name_of(path)}: cannot write {suffix or 'without a suffix'}; known: {', '.join(WRITABLE)}"
        )
    return WRITABLE[suffix]


def _choose(
    path: Path, sample_rate: int | None, channels: int | None, subtype: str | None
) -> tuple[str, str]:
    """The format and subtype to write, or AudioError; None is not checked."""
    name, suffix = name_of(path), name_of(path.suffix.lower())
    kind, subtypes = check_suffix(path)
    chosen = subtypes[0] if subtype is None else subtype.upper()
    if chosen not in subtypes:
        raise AudioError(f"{name}: {suffix} is not stored as {subtype}; known: {', '.join(subtypes)}")
    if sample_rate is not None:
        _check_rate(name, suffix, kind, chosen, sample_rate)
    most = _MOST_CHANNELS.get(kind, MAX_CHANNELS)
    if channels is not None and not 1 <= channels <= most:
        raise AudioError(f"{name}: {suffix} holds 1 to {most} channels, not {channels}; mix first")
    return kind, chosen


def _check_rate(name: str, suffix: str, kind: str, subtype: str, rate: int) -> None:
    known, fastest = _RATES.get(subtype), _FASTEST.get(subtype, _FASTEST.get(kind, MAX_RATE))
    holds = ", ".join(map(str, known)) if known else f"{MIN_RATE} to {fastest}"
    fits = rate in known if known else MIN_RATE <= rate <= fastest
    if kind == "FLAC" and rate > 65_535:
        holds, fits = f"{holds} (above 65535 in steps of 10)", fits and rate % 10 == 0
    if not fits:
        raise AudioError(
            f"{name}: {suffix} holds {holds} Hz, not {rate}; resample to one of these, or take another suffix"
        )


def stored_as(path: Path, asked: str | None, of_clip: str | None = None) -> str | None:
    """How a file stores its samples, in libsndfile's words; None: as it does by default.

    asked    "16", "24" or "float"
    of_clip  how the file stores its samples whose sound comes first: they are to stay as they are

    Raises OptionError when the file does not store them so, AudioError for a suffix that is not known.
    """
    _, subtypes = check_suffix(path)
    if asked is not None:
        names = [name for name, subtype in SUBTYPES.items() if subtype in subtypes]
        if asked not in names:
            known = f"is stored as {' or '.join(names)}" if names else "has a way of its own"
            raise OptionError(f"{name_of(path)}: {path.suffix} is not stored as {asked}: it {known}")
        return SUBTYPES[asked]
    if of_clip in subtypes or "PCM_24" not in subtypes:
        return of_clip if of_clip in subtypes else None
    return "PCM_24" if of_clip in ("PCM_32", "FLOAT", "DOUBLE") else None


def fitting_rate(path: Path, rate: int) -> int:
    """The rate, Hz, or the nearest that a file of that name holds, higher where there is one."""
    kind, subtypes = check_suffix(path)
    known = _RATES.get(subtypes[0])
    if known is not None:
        return min((each for each in known if each >= rate), default=known[-1])
    fastest = _FASTEST.get(subtypes[0], _FASTEST.get(kind, MAX_RATE))
    if kind == "FLAC" and rate > 65_535:
        rate = -(-rate // 10) * 10
    return min(rate, fastest)


def check_sound(
    path: Path,
    sample_rate: int | None,
    channels: int | None,
    seconds: float | None,
    count: int = 1,
    subtype: str | None = None,
    *,
    twice: bool = False,
) -> None:
    """Refuse a sound that could not be written, before it is made: `count` of such files; None: not known.

    twice  it is kept beside the file, as floats, until it is whole

    Raises AudioError for a suffix that is not known and for what its format does not hold, OptionError when
    the folder cannot be written to or the disk is too full.
    """
    kind, subtype = _choose(path, sample_rate, channels, subtype)
    size = (seconds or 0.0) * (sample_rate or MIN_RATE) * (channels or 1) * _WIDTH.get(subtype, 0)
    if kind in ("WAV", "AIFF") and size > _LARGEST:
        raise AudioError(f"{name_of(path)}: {path.suffix} holds at most 4 GiB; write .flac")
    kept = 4.0 * (seconds or 0.0) * (sample_rate or MIN_RATE) * (channels or 1) if twice else 0.0
    require_room(path, kept + count * (size or (seconds or 0.0) * _ENCODED))
