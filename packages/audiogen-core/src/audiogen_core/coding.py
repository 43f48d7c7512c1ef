"""Whole files through a codec, in bounded memory: what `encode` and `decode` of the command line do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import AudioWriter, probe, stream
from audiogen_core.autoencoder import Autoencoder
from audiogen_core.codec import Codec
from audiogen_core.codes import Codes, Latents
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.recipe import Recipe
from audiogen_core.sound_reader import FileInfo, Floats

OnStep = Callable[[float, float], None]

_BLOCK_SECONDS = 10.0


def load_coded(path: str | Path) -> Codes | Latents:
    """What `encode` wrote, codes or latents. Raises CodesError."""
    from audiogen_core.describe import is_safetensors
    from audiogen_core.formats.safetensors_file import read_safetensors

    if is_safetensors(Path(path)) and read_safetensors(path)[1].get("audiogen") == "latents":
        return Latents.load(path)
    return Codes.load(path)


def conversion(info: FileInfo, codec: Codec | Autoencoder) -> str:
    """What has to be changed in a file of this kind before the codec takes it: one line, or ""."""
    wanted = codec.info
    changes = []
    if info.sample_rate != wanted.sample_rate:
        changes.append(f"resampled from {info.sample_rate} Hz to {wanted.sample_rate} Hz")
    if info.channels != wanted.channels:
        changes.append(f"mixed from {_channels(info.channels)} to {_channels(wanted.channels)}")
    return f"{' and '.join(changes)} for {wanted.name}" if changes else ""


def encode_file(
    path: str | Path,
    codec: Codec | Autoencoder,
    *,
    codebooks: int | None = None,
    channel: str | None = None,
    on_step: OnStep | None = None,
) -> Codes | Latents:
    """The codes, or the mean latents, of an audio file of any length, resampled and mixed as needed.

    channel  what is taken out of stereo, "left", "right", "mid" or "side"; None mixes all
    on_step  called with (seconds done, seconds in all; 0 when not known)

    Raises AudioError when the file is not readable, AudioMismatch when its channels cannot be mixed,
    OptionError for an impossible number of codebooks.
    """
    info = codec.info
    header = probe(path)
    count = _Count(info.sample_rate, header.frames / header.sample_rate, on_step)
    blocks = stream(
        path,
        sample_rate=info.sample_rate,
        channels=info.channels,
        channel=channel,
        block_seconds=_BLOCK_SECONDS,
    )
    if isinstance(codec, Autoencoder):
        if codebooks is not None:
            raise OptionError(f"{info.name} makes latents and has no codebooks to choose from")
        latents = np.concatenate(list(codec.encode_blocks(count.through(blocks))), axis=1)
        return Latents(latents, info.frame_rate, info.name, length=count.samples)
    return codec.encode_clip(count.through(blocks), codebooks)


def decode_file(
    coded: Codes | Latents,
    codec: Codec | Autoencoder,
    path: str | Path,
    *,
    recipe: Recipe | None = None,
    on_step: OnStep | None = None,
) -> float:
    """Decode into an audio file, trimmed to the length of the original. Returns its seconds.

    on_step  called with (seconds done, seconds in all)

    Raises CodesError when the codes or latents are not this codec's, AudioError when the file cannot be
    written.
    """
    blocks = _decoded(coded, codec)
    info = codec.info
    longest = int(coded.values.shape[1]) * info.hop_length
    length = longest if coded.length is None else min(coded.length, longest)
    if length == 0:
        raise CodesError("the codes stand for no samples: there is nothing to decode")
    count = _Count(info.sample_rate, length / info.sample_rate, on_step)
    with AudioWriter(path, info.sample_rate, info.channels, recipe=recipe) as writer:
        for block in count.through(blocks):
            writer.write(block[:, : length - writer.samples])
        return writer.samples / info.sample_rate


def _decoded(coded: Codes | Latents, codec: Codec | Autoencoder) -> Iterator[Floats]:
    """The sound in blocks, after the check that it may be decoded."""
    if isinstance(coded, Codes) and isinstance(codec, Codec):
        return codec.decode_clip(coded)
    if isinstance(coded, Latents) and isinstance(codec, Autoencoder):
        codec.check(coded)
        return codec.decode_blocks([coded.values])
    kind, made = ("codes", "latents") if isinstance(coded, Codes) else ("latents", "codes")
    raise CodesError(f"these are {kind}, but {codec.info.name} makes {made}; name what made them")


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
