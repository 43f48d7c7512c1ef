"""One clip of sound: `Audio`; and long ones block by block: `stream`, `AudioWriter`."""

from __future__ import annotations

import builtins
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.channels import Mixer
from audiogen_core.errors import AudioError, AudioMismatch, OptionError, SoundWarning
from audiogen_core.files import require_new_file
from audiogen_core.recipe import Recipe
from audiogen_core.sound_reader import (
    MAX_CHANNELS,
    MAX_RATE,
    MIN_RATE,
    FileInfo,
    Floats,
    Reader,
    name_of,
    open_sound,
)
from audiogen_core.sound_writer import AudioWriter, ClippingWarning
from audiogen_core.values import admitted, close_fields, closed, shown

__all__ = ["Audio", "AudioWriter", "ClippingWarning", "FileInfo", "SoundWarning", "probe", "stream"]

MAX_SECONDS = 3600.0
"""How long a clip may be, unless asked otherwise."""

MAX_BYTES = 4 << 30
"""Bytes of samples that one clip may have. Reading takes a quarter more, and where the rate changes up to
twice as much."""

_BLOCK_BYTES = 64 << 20  # the largest block read at once

SILENCE = 1e-4
"""A clip whose samples all stay below this magnitude (-80 dB) is called silent."""

QUALITY = "HQ"
"""soxr's name for a resampler with 20 bits of precision."""


@dataclass(frozen=True, eq=False)
class Audio:
    """One clip of sound.

    samples      float32 (channels, time), nominal [-1, 1]; read-only, copied when it could change
    sample_rate  Hz
    speakers     which speaker each channel is for, the mask of WAVEFORMATEXTENSIBLE; 0 where channels come as
                 usual: 5.1 is front left, front right, centre, low effects, back left, back right
    recipe       what made it, which `save` writes into the file; clips that are made of it have none

    In a notebook a clip shows its waveform and a player. `a + b` is one behind the other, `clip[1.0:2.5]` a
    part by seconds, `numpy.asarray(clip)` its samples.

    Raises AudioError when samples are not 2-D, empty, or not finite, when there are more than 32 channels,
    or when the rate is outside 1,000 to 768,000 Hz.
    """

    samples: Floats
    sample_rate: int
    speakers: int = 0
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_rate", check_rate(self.sample_rate))
        close_fields(self, AudioError)
        samples = self.samples
        if samples.ndim != 2:
            raise AudioError(f"samples must be (channels, time), got shape {samples.shape}")
        if samples.dtype.kind != "f":
            raise AudioError(f"samples must be floats in [-1, 1], got {samples.dtype}")
        if not 1 <= samples.shape[0] <= MAX_CHANNELS:
            raise AudioError(f"1 to {MAX_CHANNELS} channels are accepted, got shape {samples.shape}")
        if samples.shape[1] == 0:
            raise AudioError("the clip is empty: it has no samples")
        if not np.isfinite([samples.min(), samples.max()]).all():  # NaN goes through both
            raise AudioError("samples must be finite, got NaN or infinity")
        if samples.dtype != np.float32 or _may_change(samples) or not samples.flags.c_contiguous:
            samples = np.array(samples, dtype=np.float32, order="C")
            samples.setflags(write=False)
        object.__setattr__(self, "samples", samples)

    @classmethod
    @closed(AudioError)
    def from_array(cls, array: ArrayLike, sample_rate: int, *, channels_last: bool = False) -> Audio:
        """A clip of samples as other libraries have them.

        array          (time,) or (channels, time): floats in [-1, 1], or integers, whose full range is that
        channels_last  it is (time, channels), as soundfile, scipy and PyAV give it

        Raises AudioError as `Audio` does.
        """
        samples = np.asarray(array)
        if samples.dtype.kind == "u":  # 8-bit WAV: the middle is silence
            samples = samples.astype(np.float64) / (np.iinfo(samples.dtype).max / 2 + 0.5) - 1.0
        elif samples.dtype.kind == "i":
            samples = samples / -float(np.iinfo(samples.dtype).min)
        if samples.ndim == 1:
            samples = samples[None]
        return cls(samples.T if channels_last and np.ndim(array) == 2 else samples, sample_rate)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.samples, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Audio({self.summary})"

    def _repr_html_(self) -> str:
        from audiogen_core import player

        return player.html(self)

    @property
    def channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def summary(self) -> str:
        """Its length, channels, rate and peak (dB of full scale), in words."""
        peak = f"peak {20 * math.log10(self.peak):.1f} dB" if self.peak else "silent"
        return f"{self.duration:.2f} s, {self.channels} ch, {self.sample_rate / 1000:g} kHz, {peak}"

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.shape[1] / self.sample_rate)

    @property
    def peak(self) -> float:
        """The largest magnitude of any sample."""
        return float(max(self.samples.max(), -self.samples.min()))

    @property
    def rms(self) -> float:
        """Root mean square over all samples of all channels."""
        total = sum(float(np.dot(row, row)) for row in self.samples.astype(np.float64))
        return math.sqrt(total / self.samples.size)

    @classmethod
    @closed(AudioError)
    def load(
        cls,
        path: str | Path,
        *,
        sample_rate: int | None = None,
        channels: int | None = None,
        channel: str | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> Audio:
        """Read a WAV, RF64, W64, AIFF, FLAC, Ogg (Vorbis, Opus) or MP3 file, converted where asked.

        sample_rate  resample to this, Hz; None keeps the file's
        channels     mix to this many, as `mix` does; None keeps the file's, or is 1 beside `channel`
        channel      take this out of it: "left", "right", "mid" or "side"; see `mix`
        max_seconds  a longer file is refused

        M4A, WMA, WebM and more are read where the extra `ffmpeg` is installed. All of a file is read: streams
        and files that were put in a row, too. A SoundWarning tells when a header cannot be true, when samples
        are far beyond full scale, and when left and right take each other out in mono.

        Raises AudioError when the file is missing, not audio, damaged, truncated, empty, too long or not
        finite, or changes its rate or channels on the way; AudioMismatch when its channels cannot be mixed
        as asked.
        """
        with open_sound(path) as reader:
            samples = _joined(_convert(reader, sample_rate, channels, channel, 10.0, max_seconds, MAX_BYTES))
            speakers = reader.info.speakers if len(samples) == reader.info.channels else 0
            return cls(samples, sample_rate or reader.info.sample_rate, speakers)

    @closed(AudioError)
    def save(
        self,
        path: str | Path,
        *,
        recipe: Recipe | None = None,
        subtype: str | None = None,
        force: bool = False,
    ) -> Path:
        """Write the clip; the suffix chooses the format (.wav .flac .ogg .opus .mp3 .aiff). Returns the path.

        recipe   goes into the comment tag of the file; None: the clip's own
        subtype  how samples are stored; see AudioWriter. 16-bit PCM for WAV, AIFF and FLAC
        force    write over a file that is there

        The file appears whole or not at all. Samples beyond [-1, 1] are clipped, which a ClippingWarning
        tells. Raises OptionError when the file is there already, AudioError as AudioWriter does.
        """
        require_new_file(path, force)
        recipe = recipe or self.recipe
        with AudioWriter(path, self.sample_rate, self.channels, recipe=recipe, subtype=subtype) as writer:
            writer.write(self.samples)
        return Path(path)

    def resample(self, rate: int) -> Audio:
        """The same clip at another sample rate, Hz. Raises AudioError when nothing would be left."""
        if check_rate(rate) == self.sample_rate:
            return self
        samples = _joined(resampled([self.samples], self.sample_rate, rate, self.channels))
        if samples.shape[1] == 0:
            raise AudioError(
                f"too short to resample: {self.samples.shape[1]} samples at {self.sample_rate} Hz"
            )
        return Audio(samples, rate, self.speakers)

    @closed(AudioError)
    def mix(self, channels: int, *, channel: str | None = None) -> Audio:
        """The clip with this many channels.

        channel  take this out of it: "left", "right", "mid" (half of left and right) or "side" (half their
                 difference); `channels` are copies of it

        Surround (5.1, 7.1, and others whose speakers are known) becomes stereo with the centre and the
        surrounds at -3 dB and without the channel of low effects, as ITU-R BS.775 has it, and mono from that.
        Mono is the mean of stereo, and of channels whose speakers are not known; several channels are copies
        of one. A SoundWarning tells when the mono of stereo is 20 dB below the difference of its sides.

        Raises AudioMismatch for other changes.
        """
        if channels == self.channels and channel is None:
            return self
        check_channels(channels, "the clip")
        mixer = Mixer(self.channels, channels, "the clip", self.speakers, channel)
        samples = mixer.up(mixer.down(self.samples.T)).T
        mixer.tell()
        return Audio(samples, self.sample_rate)

    @closed(AudioError)
    def trim(self, seconds: float) -> Audio:
        """The first `seconds` of the clip; the clip itself when it is shorter. At least one sample stays."""
        return self.slice(0.0, seconds)

    @closed(AudioError)
    def slice(self, start: float, end: float | None = None) -> Audio:
        """From `start` to `end` seconds (None: to its end). Raises AudioError when that is empty."""
        if not (math.isfinite(start) and start >= 0 and (end is None or end > start)):
            raise OptionError(f"cannot cut from {start} to {end} seconds")
        last = self.samples.shape[1]
        first = round(min(start, self.duration) * self.sample_rate)
        if end is not None and end < self.duration:
            last = max(first + 1, round(end * self.sample_rate))
        if first >= self.samples.shape[1]:
            raise AudioError(f"cannot cut from {start} s on: the clip has {self.duration:.3f} s")
        return Audio(self.samples[:, first:last], self.sample_rate, self.speakers)

    def __getitem__(self, part: builtins.slice) -> Audio:
        """`clip[1.0:2.5]`: from second 1 to second 2.5; negative seconds count from the end.

        Raises OptionError when it is no part by seconds, AudioError when that is empty.
        """
        if not isinstance(part, builtins.slice) or part.step is not None:
            raise OptionError(f"a part of a clip is clip[start:end] in seconds, got [{part}]")
        given = [admitted("an end of a part", float | None, each) for each in (part.start, part.stop)]
        ends = [
            second if second is None or second >= 0 else max(0.0, self.duration + second) for second in given
        ]
        return self.slice(ends[0] or 0.0, ends[1])

    def __add__(self, other: Audio) -> Audio:
        """The other clip behind this one. Raises AudioMismatch unless rate and channels are the same."""
        if not isinstance(other, Audio):
            return NotImplemented
        if (self.sample_rate, self.channels) != (other.sample_rate, other.channels):
            raise AudioMismatch(
                f"cannot join {self!r} and {other!r}: bring one to the other by resample() and mix()"
            )
        return self._of(np.concatenate([self.samples, other.samples], axis=1))

    @closed()
    def fade(self, start: float = 0.02, end: float = 0.25) -> Audio:
        """The clip rising from silence in its first and falling to it in its last seconds, by half a cosine.

        Raises OptionError when a length is negative or no number.
        """
        weights = np.ones(self.samples.shape[1])
        for seconds, side in ((start, weights), (end, weights[::-1])):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise OptionError(f"a fade takes 0 seconds or more, got {seconds}")
            count = min(round(seconds * self.sample_rate), len(side))
            side[:count] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))
        return self._of(self.samples * weights)

    @closed()
    def normalize(self, peak: float = -1.0) -> Audio:
        """The clip by one gain, so that its loudest sample is at `peak` dB of full scale; silence stays it.

        Raises OptionError when that is above 0 or no number.
        """
        if not (math.isfinite(peak) and peak <= 0):
            raise OptionError(f"the peak is 0 dB of full scale or less, got {peak}")
        return self._of(self.samples * (10 ** (peak / 20) / self.peak)) if self.peak else self

    @closed()
    def loop(self, times: int) -> Audio:
        """The clip so many times in a row. Raises OptionError below 1, or when that is above an hour."""
        if times < 1 or times * self.duration > MAX_SECONDS:
            raise OptionError(
                f"a loop is 1 time or more and {MAX_SECONDS / 60:g} minutes at most, got {times}"
            )
        return self._of(np.tile(self.samples, (1, times)))

    def play(self) -> None:
        """Play the clip to its end (extra `play`). Raises MissingDependency, OptionError without a device."""
        from audiogen_core import playback

        playback.play(self)

    @closed()
    def plot(self, path: str | Path | None = None) -> Any:
        """Waveform and spectrogram (extra `plot`): written as PNG where a path is given, else a figure of
        matplotlib, which notebooks show. Raises MissingDependency.
        """
        from audiogen_core import plot

        return plot.figure(self) if path is None else plot.overview(self, path)

    def _of(self, samples: NDArray[Any]) -> Audio:
        """A clip of other samples, of the same kind; no recipe tells how to make it."""
        return replace(self, samples=samples, recipe=None)


def _joined(blocks: Iterable[Floats]) -> Floats:
    """Blocks (channels, n) behind one another, read-only. Each is let go as soon as it is copied."""
    waiting = deque(blocks)
    samples = np.empty((len(waiting[0]), sum(block.shape[1] for block in waiting)), np.float32)
    at = 0
    while waiting:
        block = waiting.popleft()
        samples[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    samples.setflags(write=False)
    return samples


def _may_change(samples: NDArray[Any]) -> bool:
    """Whether somebody may still write to the array, or to the one it is a view of."""
    owner = samples if samples.base is None else samples.base
    return bool(samples.flags.writeable or getattr(getattr(owner, "flags", None), "writeable", True))


@closed(AudioError)
def probe(path: str | Path) -> FileInfo:
    """What the header of an audio file says, without decoding it. Raises AudioError."""
    with open_sound(path) as reader:
        return reader.info


def seconds_of(clip: Audio | str | Path) -> float:
    """How long a clip or a file is, as far as its header says. Raises AudioError."""
    if isinstance(clip, Audio):
        return clip.duration
    info = probe(clip)
    return info.frames / info.sample_rate


@closed(AudioError)
def stream(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    channel: str | None = None,
    block_seconds: float = 10.0,
    max_seconds: float | None = None,
) -> Iterator[Floats]:
    """A file as float32 blocks (channels, n), in bounded memory; joined they are what `Audio.load` gives.

    block_seconds  of the file per block; blocks vary a little in length where the rate changes
    max_seconds    a longer file is refused; None: any length

    Raises as Audio.load does, at the latest when the bad place is reached.
    """
    with open_sound(path) as reader:
        yield from _convert(reader, sample_rate, channels, channel, block_seconds, max_seconds, None)


def resampled(blocks: Iterable[Floats], old: int, new: int, channels: int) -> Iterator[Floats]:
    """Blocks (channels, n) at another rate; however they are cut, the result is that of the whole."""
    if old == new:
        yield from blocks
        return
    import soxr

    def turned(frames: NDArray[Any]) -> Floats:
        return np.ascontiguousarray(np.asarray(frames, np.float32).reshape(-1, channels).T)

    resampler = soxr.ResampleStream(old, new, channels, dtype="float32", quality=QUALITY)
    for block in blocks:
        yield turned(resampler.resample_chunk(np.ascontiguousarray(block.T)))
    yield turned(resampler.resample_chunk(np.empty((0, channels), np.float32), last=True))


def pieces(blocks: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Blocks (channels, n) cut anew: all of `size` samples but the last, which may be shorter."""
    held: list[NDArray[Any]] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        if count >= size:
            joined = np.concatenate(held, axis=1)
            whole = count // size * size
            for start in range(0, whole, size):
                yield joined[:, start : start + size]
            held, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)


def check_rate(rate: Any) -> int:
    """The rate as an int, or AudioError when it is none that is accepted."""
    is_number = isinstance(rate, Real) and not isinstance(rate, bool)
    if not is_number or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
        raise AudioError(
            f"sample rates are whole numbers from {MIN_RATE} to {MAX_RATE} Hz, got {shown(rate)}"
        )
    return int(rate)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise OptionError(f"{name} must be positive, got {value}")


def _convert(
    reader: Reader,
    sample_rate: int | None,
    channels: int | None,
    channel: str | None,
    block_seconds: float,
    max_seconds: float | None,
    max_bytes: int | None,
) -> Iterator[Floats]:
    """Blocks (channels, n) of an open file: mixed down, resampled, mixed up."""
    _check_positive("block_seconds", block_seconds)
    _check_positive("max_seconds", math.inf if max_seconds is None else max_seconds)
    info, name = reader.info, name_of(reader.path)
    rate = check_rate(info.sample_rate if sample_rate is None else sample_rate)
    target = (info.channels if channel is None else 1) if channels is None else channels
    check_channels(target, name)
    mixer = Mixer(info.channels, target, name, info.speakers, channel)
    size = max(1, round(min(block_seconds * info.sample_rate, _BLOCK_BYTES / (4 * info.channels))))
    blocks: Iterable[Floats] = map(mixer.down, _bounded(reader, size, max_seconds))
    if rate != info.sample_rate:
        turned = (block.T for block in blocks)
        blocks = (block.T for block in resampled(turned, info.sample_rate, rate, mixer.fewest))
    total = 0
    for block in blocks:
        total += block.shape[0] * target * 4
        if max_bytes is not None and total > max_bytes:
            raise AudioError(f"{name}: more than {max_bytes >> 30} GiB of sound; read it with stream()")
        if block.shape[0]:
            yield np.ascontiguousarray(mixer.up(block).T)
    if total == 0:
        raise AudioError(f"{name}: holds no samples")
    mixer.tell()


def _bounded(reader: Reader, size: int, max_seconds: float | None) -> Iterator[Floats]:
    """The blocks of a file, refused when they come to more than allowed: by the header, then counted."""
    limit = math.inf if max_seconds is None else max_seconds
    _check_seconds(reader, reader.info.frames, limit)
    count = 0
    for block in reader.blocks(size):
        count += block.shape[0]
        _check_seconds(reader, count, limit)
        yield block


def _check_seconds(reader: Reader, count: int, limit: float) -> None:
    seconds = count / reader.info.sample_rate
    if seconds > limit:
        raise AudioError(
            f"{name_of(reader.path)}: {seconds:.1f} s of sound or more, {limit:g} s are allowed; "
            "cut it, or raise max_seconds"
        )


def check_channels(channels: int, name: str) -> None:
    """Raise AudioError when a clip cannot have so many channels."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: cannot be mixed to {channels} channels; 1 to {MAX_CHANNELS} are accepted")
