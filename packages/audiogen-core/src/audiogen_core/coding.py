"""Whole files through a codec, in bounded memory: what `encode` and `decode` of the command line do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import AudioWriter, probe, stream
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes
from audiogen_core.errors import CodesError
from audiogen_core.recipe import Recipe
from audiogen_core.sound_reader import FileInfo, Floats

OnStep = Callable[[float, float], None]

_BLOCK_SECONDS = 10.0


def conversion(info: FileInfo, codec: Codec) -> str:
    """What has to be changed in a file of this kind before the codec takes it: one line, or ""."""
    wanted = codec.info
    changes = []
    if info.sample_rate != wanted.sample_rate:
        changes.append(f"resampled from {info.sample_rate} Hz to {wanted.sample_rate} Hz")
    if info.channels != wanted.channels:
        changes.append(f"mixed from {_channels(info.channels)} to {_channels(wanted.channels)}")
    return f"{' and '.join(changes)} for {wanted.name}" if changes else ""


def encode_file(
    path: str | Path, codec: Codec, *, codebooks: int | None = None, on_step: OnStep | None = None
) -> Codes:
    """The codes of an audio file of any length, resampled and mixed as the codec needs it.

    on_step  called with (seconds done, seconds in all; 0 when not known)

    Raises AudioError when the file is not readable, AudioMismatch when its channels cannot be mixed,
    OptionError for an impossible number of codebooks.
    """
    info = codec.info
    header = probe(path)
    count = _Count(info.sample_rate, header.frames / header.sample_rate, on_step)
    blocks = stream(path, sample_rate=info.sample_rate, channels=info.channels, block_seconds=_BLOCK_SECONDS)
    values = np.concatenate(list(codec.encode_blocks(count.through(blocks), codebooks)), axis=1)
    return Codes(values, info.codebook_size, info.frame_rate, info.name, length=count.samples)


def decode_file(
    codes: Codes,
    codec: Codec,
    path: str | Path,
    *,
    recipe: Recipe | None = None,
    on_step: OnStep | None = None,
) -> float:
    """Decode into an audio file, trimmed to the length of the original. Returns its seconds.

    on_step  called with (seconds done, seconds in all)

    Raises CodesError when the codes are not this codec's, AudioError when the file cannot be written.
    """
    codec.check(codes)
    info = codec.info
    longest = codes.frames * info.hop_length
    length = longest if codes.length is None else min(codes.length, longest)
    if length == 0:
        raise CodesError("the codes stand for no samples: there is nothing to decode")
    step = max(1, round(_BLOCK_SECONDS * info.frame_rate))
    parts = (codes.values[:, start : start + step] for start in range(0, codes.frames, step))
    count = _Count(info.sample_rate, length / info.sample_rate, on_step)
    with AudioWriter(path, info.sample_rate, info.channels, recipe=recipe) as writer:
        for block in count.through(codec.decode_blocks(parts)):
            writer.write(block[:, : length - writer.samples])
    return length / info.sample_rate


class _Count:
    """Counts the samples that pass, and tells of them."""

    def __init__(self, rate: int, seconds: float, on_step: OnStep | None) -> None:
        self.samples = 0
        self._rate, self._seconds, self._on_step = rate, seconds, on_step

    def through(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[Floats]:
        for block in blocks:
            yield block
            self.samples += block.shape[1]
            if self._on_step is not None:
                self._on_step(self.samples / self._rate, self._seconds)


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")
