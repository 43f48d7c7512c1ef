"""From an audio file to codes: mixed, resampled, levelled, silence shortened, in bounded memory."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import probe, stream
from audiogen_core.codec import Codec, CodecInfo
from audiogen_core.containers import UnknownFormat, WantsFfmpeg
from audiogen_core.dataset.folder import Skip
from audiogen_core.dataset.options import Preparation
from audiogen_core.dataset.plan import TAIL, Entry, size_of
from audiogen_core.dataset.shards import Frames, Part, Track, checksum
from audiogen_core.errors import AudioError, AudioMismatch
from audiogen_core.sound_reader import NotFinite, name_of

Floats = NDArray[np.float32]

SILENCE = 10 ** (-60 / 20)  # peak of a frame below which it counts as silent
_PEAK = 10 ** (-1 / 20)
_RMS = 10 ** (-20 / 20)

_REASONS = {  # the first that fits
    AudioMismatch: "channels",
    NotFinite: "non_finite",
    WantsFfmpeg: "format",
    UnknownFormat: "not_audio",
}


def encode_track(folder: Path, entry: Entry, codec: Codec, options: Preparation) -> list[Part]:
    """The tracks of one file with their codes, and a Skip for what could not be used.

    The same whichever engine calls it: a pure function of the file, the entry, the codec and the options.
    """
    if entry.duplicate is not None:
        return [Skip(entry.path, "duplicate", f"the same bytes as {entry.duplicate}")]
    if entry.reason:
        return [Skip(entry.path, entry.reason, entry.message)]
    path = folder / entry.path
    return _each_channel(
        path,
        entry,
        codec.info,
        options,
        lambda channel: _encode_channel(path, entry, codec, options, channel),
    )


def look(folder: Path, entry: Entry, info: CodecInfo, options: Preparation) -> Entry:
    """An entry with the seconds of sound in its file, which is read to its end, or why that is left out."""
    path = folder / entry.path
    seconds: list[float] = []

    def listen(channel: int | None) -> list[Part]:
        heard = _Heard()
        for _ in heard.through(_prepared(path, info, options, channel)[0]):
            pass
        heard.check(info, options)
        seconds.append(heard.samples / info.sample_rate)
        return []

    parts = _each_channel(path, entry, info, options, listen)
    for part in parts if not seconds else []:
        if isinstance(part, Skip):
            return replace(entry, seconds=0.0, reason=part.reason, message=part.message)
    return replace(entry, seconds=sum(seconds))


def _each_channel(
    path: Path,
    entry: Entry,
    info: CodecInfo,
    options: Preparation,
    function: Callable[[int | None], list[Part]],
) -> list[Part]:
    """What a function gives for each channel that is a track of its own; a Skip for what it cannot use."""
    try:
        channels: list[int | None] = [None]
        if options.stereo == "split" and info.channels == 1:
            channels = list(range(probe(path).channels))
        parts: list[Part] = []
        for channel in channels:
            try:
                parts += function(channel)
            except _Unfit as error:
                which = "" if channel is None else f"channel {channel}: "
                parts.append(Skip(entry.path, error.reason, f"{which}{error}"))
        return parts
    except AudioError as error:
        # Without the folder, so that the same audio gives the same bytes wherever it lies.
        message = str(error).removeprefix(f"{name_of(path)}: ")
        return [Skip(entry.path, _reason(path, error), message)]


class _Unfit(AudioError):
    """Audio that is sound but of no use."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _reason(path: Path, error: AudioError) -> str:
    """The reason code of a file that could not be used."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    size = size_of(path)
    if size < 0 or not os.access(path, os.R_OK):
        return "unreadable"
    if size == 0:
        return "empty"
    try:
        return "damaged" if probe(path).frames else "empty"
    except AudioError:
        return "damaged"


class _Heard:
    """Blocks on their way to the codec: their hash as 16-bit PCM, their length and their peak."""

    def __init__(self) -> None:
        self.samples = 0
        self.peak = 0.0
        self._digest = hashlib.sha1(usedforsecurity=False)

    @property
    def sha1(self) -> str:
        return self._digest.hexdigest()

    def through(self, blocks: Iterable[Floats]) -> Iterator[Floats]:
        for block in blocks:
            pcm = np.clip(np.rint(block.T * 32767), -32768, 32767).astype("<i2")
            self._digest.update(pcm.tobytes())
            self.samples += block.shape[1]
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            yield block

    def check(self, info: CodecInfo, options: Preparation) -> None:
        """Raise _Unfit when what was heard is too short, or silent."""
        if self.samples < _needed(info, options):
            seconds = self.samples / info.sample_rate
            raise _Unfit("too_short", f"{seconds:.2f} s of sound, {options.min_seconds} s are needed")
        if self.peak < SILENCE and options.longest_silence(info) is not None:
            raise _Unfit("silent", "never louder than -60 dBFS")


def _needed(info: CodecInfo, options: Preparation) -> float:
    """How many samples of sound a track has at least."""
    return max(1, options.min_seconds * info.sample_rate)


def _prepared(
    path: Path, info: CodecInfo, options: Preparation, channel: int | None
) -> tuple[Iterator[Floats], float]:
    """The sound of a file or one of its channels as it goes to the codec, and the gain that was applied."""

    def blocks() -> Iterator[Floats]:
        if channel is None:
            yield from stream(path, sample_rate=info.sample_rate, channels=info.channels)
        else:
            for block in stream(path, sample_rate=info.sample_rate):
                yield block[channel : channel + 1]

    gain = _gain(blocks, options.level)
    longest = options.longest_silence(info)
    return shorten_silence((block * gain for block in blocks()), info.hop_length, longest), gain


def _encode_channel(
    path: Path, entry: Entry, codec: Codec, options: Preparation, channel: int | None
) -> list[Part]:
    info, heard = codec.info, _Heard()
    sound, gain = _prepared(path, info, options, channel)
    prepared = heard.through(sound)
    held: list[Floats] = []
    while heard.samples < _needed(info, options) and (block := next(prepared, None)) is not None:
        held.append(block)
    if heard.samples < _needed(info, options):
        heard.check(info, options)
    codes = np.concatenate(list(codec.encode_blocks(chain(held, prepared), options.count(info))), axis=1)
    heard.check(info, options)
    frames = codes.T.astype(np.uint16)
    gain_db = round(20 * math.log10(gain), 3)

    def track(part: Frames, split: str) -> Part:
        return Track(entry.path, len(part), channel, split, gain_db, heard.sha1, checksum(part)), part

    if entry.split != TAIL:
        return [track(frames, entry.split)]
    cut = max(1, len(frames) * 9 // 10)
    parts = [(frames[:cut], "train"), (frames[cut:], "val")]
    return [track(part, split) for part, split in parts if len(part)]


def shorten_silence(blocks: Iterable[Floats], hop_length: int, longest: int | None) -> Iterator[Floats]:
    """Blocks (channels, n) without the frames that follow `longest` silent ones, until sound comes again.

    Whole frames are cut, so what remains keeps its place on the codec's grid.
    """
    if longest is None:
        yield from blocks
        return
    rest: Floats | None = None
    silent = 0
    for block in blocks:
        joined = block if rest is None else np.concatenate([rest, block], axis=1)
        frames = joined.shape[1] // hop_length
        body, rest = joined[:, : frames * hop_length], joined[:, frames * hop_length :]
        keep = np.ones(frames, bool)
        peaks = np.abs(body).reshape(len(body), frames, hop_length).max(axis=(0, 2))
        for index, quiet in enumerate(peaks < SILENCE):
            silent = silent + 1 if quiet else 0
            keep[index] = silent <= longest
        if keep.any():
            yield np.ascontiguousarray(body[:, np.repeat(keep, hop_length)])
    if rest is not None and rest.shape[1] and silent < longest:
        yield rest


def _gain(blocks: Callable[[], Iterator[Floats]], level: str) -> float:
    """The factor that brings a file to its level; needs a pass over it."""
    if level == "none":
        return 1.0
    peak, energy, count = 0.0, 0.0, 0
    for block in blocks():
        peak = max(peak, float(np.abs(block).max()))
        energy += float(np.square(block, dtype=np.float64).sum())
        count += block.size
    if peak < SILENCE or count == 0:
        return 1.0
    gain = _PEAK / peak
    return gain if level == "peak" else min(gain, _RMS / math.sqrt(energy / count))
