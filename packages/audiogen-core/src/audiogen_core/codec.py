"""Codecs: audio to codes (`Codec`) or to latents (`Autoencoder`) and back, on numpy values.

A codec is its stages and its facts. Whatever is the same for all of them is here, once: the checks, the batch
axis, padding and trimming, and the chunks in which long clips are worked off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes, Latents
from audiogen_core.errors import AudioError, AudioMismatch, CodesError, OptionError
from audiogen_core.layers import Chunk, Quantizer, ResidualQuantizer, Stage, stream
from audiogen_core.noise import Noise
from audiogen_core.ops import Float, Ops, Signal
from audiogen_core.values import closed


@dataclass(frozen=True)
class Info:
    """The facts of a codec of either kind.

    name         id written into `Codes.codec` and `Latents.autoencoder`. One from the catalogue has its
                 catalogue name; one loaded from a path adds `@` and eight hex digits of a hash of its weights
    sample_rate  Hz
    channels     of the audio
    hop_length   samples per frame
    """

    name: str
    sample_rate: int
    channels: int
    hop_length: int

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.sample_rate / self.hop_length

    def accepts(self, made_by: str) -> bool:
        """Whether codes or latents marked so may be decoded here.

        Names must agree; the hash after `@` as well, where both have one.
        """
        name, _, mark = self.name.partition("@")
        other, _, other_mark = made_by.partition("@")
        return name == other and (not mark or not other_mark or mark == other_mark)

    def check(self, audio: Audio) -> None:
        """Raise AudioMismatch unless the clip has the rate and the channels that are needed."""
        if audio.sample_rate != self.sample_rate:
            raise AudioMismatch(
                f"{self.name} needs {self.sample_rate} Hz, got {audio.sample_rate} Hz; "
                f"use audio.resample({self.sample_rate})"
            )
        if audio.channels != self.channels:
            raise AudioMismatch(
                f"{self.name} needs {self.channels} channel(s), got {audio.channels}; "
                f"use audio.mix({self.channels})"
            )


@dataclass(frozen=True)
class CodecInfo(Info):
    """The facts of a codec.

    codebooks      how many at most
    codebook_size  entries in one
    """

    codebooks: int
    codebook_size: int


@dataclass(frozen=True)
class AutoencoderInfo(Info):
    """The facts of an autoencoder.

    latent_channels  of the latents
    """

    latent_channels: int


class Codec:
    """A neural codec: audio to codes and back.

    encoder, decoder  the stages, run over `ops`
    codebooks      float32 (codebooks, codebook_size, dimension)
    quantizer      None means the nearest of these codebooks' entries, and their sum
    chunk_seconds  how much audio is worked off at a time: bounds the memory, changes no result
    """

    def __init__(
        self,
        info: CodecInfo,
        ops: Ops,
        *,
        encoder: Sequence[Stage],
        decoder: Sequence[Stage],
        codebooks: Float,
        quantizer: Quantizer | None = None,
    ) -> None:
        self.info = info
        self.ops = ops
        self.chunk_seconds = ops.chunk_seconds
        self._encoder = encoder
        self._decoder = decoder
        self._codebooks = codebooks
        self._quantizer = quantizer or ResidualQuantizer(ops, list(codebooks))

    @closed()
    def encode(self, audio: Audio, codebooks: int | None = None) -> Codes:
        """The codes of a clip, in ceil(samples / hop_length) frames.

        `codebooks` None means all the codec has. Fewer give the first rows of the same codes.

        Raises AudioMismatch when rate or channels are not the codec's (resample or mix first: nothing is
        converted silently), AudioError when the clip is empty, OptionError for an impossible `codebooks`.
        """
        self.info.check(audio)
        return self.encode_clip([audio.samples], codebooks)

    @closed()
    def decode(self, codes: Codes) -> Audio:
        """The clip of some codes, trimmed to `codes.length` where that is known.

        Fewer codebooks than the codec has are decoded as they are. Raises CodesError when the codes were
        made by another codec or do not fit this one.
        """
        samples = np.concatenate(list(self.decode_clip(codes)), axis=1)
        return Audio(samples[:, : codes.length], self.info.sample_rate)

    def encode_clip(self, blocks: Iterable[Float], codebooks: int | None = None) -> Codes:
        """As `encode`, for a clip that comes in blocks (channels, samples): in bounded memory."""
        info, count = self.info, SampleCount()
        values = np.concatenate(list(self.encode_blocks(count.through(blocks), codebooks)), axis=1)
        return Codes(values, info.codebook_size, info.frame_rate, info.name, length=count.samples)

    @closed(CodesError)
    def decode_clip(self, codes: Codes) -> Iterator[Float]:
        """As `decode`, but in float32 blocks (channels, samples), which are not trimmed."""
        self.check(codes)
        return self.decode_blocks([codes.values])

    def check(self, codes: Codes) -> None:
        """Raise CodesError unless these codes can be decoded here."""
        info = self.info
        if not info.accepts(codes.codec):
            raise CodesError(f"the codes were made by {codes.codec}; this codec is {info.name}")
        if codes.codebook_size != info.codebook_size or codes.codebooks > info.codebooks:
            raise CodesError(
                f"{info.name} has {info.codebooks} codebooks of {info.codebook_size}, the codes have "
                f"{codes.codebooks} of {codes.codebook_size}"
            )
        if codes.frames == 0:
            raise CodesError("the codes have no frames: there is nothing to decode")

    def codebook_vectors(self) -> Float:
        """The entries of all codebooks as they are stored: float32 (K, N, D).

        EnCodec adds these up. DAC and LAC first project each codebook's entries by a matrix of its own.
        """
        return self._codebooks

    def encode_blocks(self, blocks: Iterable[Float], codebooks: int | None = None) -> Iterator[NDArray[Any]]:
        """Blocks (channels, samples) of one clip -> int32 blocks (codebooks, frames), in bounded memory.

        However the clip is cut into blocks, the frames are those of the whole clip.
        """
        count = self._count(codebooks)
        chunks = signals(self.ops, blocks, self._chunk_frames() * self.info.hop_length)
        for latents, _ in stream(self.ops, self._encoder, chunks):
            codes = self._quantizer.encode(latents, count)
            values = np.stack([self.ops.indices_numpy(book)[0] for book in codes])
            if values.shape[1]:
                yield values.astype(np.int32)

    def decode_blocks(self, blocks: Iterable[NDArray[Any]]) -> Iterator[Float]:
        """Blocks of codes (codebooks, frames) -> float32 blocks (channels, samples), in bounded memory."""
        size = self._chunk_frames()
        chunks = ((self._lookup(values), last) for values, last in even(blocks, size, np.int64))
        yield from arrays(self.ops, self._decoder, chunks)

    def _count(self, codebooks: int | None) -> int:
        count = self.info.codebooks if codebooks is None else codebooks
        if not 1 <= count <= self.info.codebooks:
            raise OptionError(f"{self.info.name} has 1 to {self.info.codebooks} codebooks, asked for {count}")
        return count

    def _chunk_frames(self) -> int:
        return max(1, round(self.chunk_seconds * self.info.frame_rate))

    def _lookup(self, values: NDArray[Any]) -> Signal:
        """Codes (K, F) -> what the decoder takes, a signal of one item."""
        return self._quantizer.decode([self.ops.indices(row[None]) for row in values])


class Autoencoder:
    """A continuous codec: audio to latents and back.

    encoder       makes twice the latent channels: the mean of each latent and, before the softplus, its
                  standard deviation
    decoder       from the latent channels
    scale         latents are what the encoder makes divided by this
    chunk_frames  how much is worked off at a time: bounds the memory, changes no result
    """

    def __init__(
        self,
        info: AutoencoderInfo,
        ops: Ops,
        *,
        encoder: Sequence[Stage],
        decoder: Sequence[Stage],
        scale: float = 1.0,
        chunk_frames: int = 128,
    ) -> None:
        self.info = info
        self.ops = ops
        self.scale = scale
        self.chunk_frames = chunk_frames
        self._encoder = encoder
        self._decoder = decoder

    @closed()
    def encode(self, audio: Audio, noise: Noise | None = None) -> Latents:
        """The latents of a clip, in ceil(samples / hop_length) frames.

        noise  None gives the mean of each latent; else each is drawn, with one array of normal numbers of
               shape (1, latent_channels, frames)

        Raises AudioMismatch when rate or channels are not the autoencoder's, AudioError when the clip is
        empty.
        """
        info = self.info
        info.check(audio)
        if noise is None:
            return self.encode_clip([audio.samples])
        parts = np.concatenate(list(self._posterior([audio.samples])), axis=1)
        values, raw = parts[: info.latent_channels], parts[info.latent_channels :]
        deviation = np.logaddexp(np.float32(0), raw) + np.float32(1e-4)  # softplus, never quite zero
        values = values + deviation * noise.normal((1, *values.shape))[0]
        values = np.asarray(values / np.float32(self.scale), np.float32)
        return Latents(values, info.frame_rate, info.name, length=audio.samples.shape[1])

    @closed()
    def decode(self, latents: Latents) -> Audio:
        """The clip of some latents, trimmed to `latents.length` where that is known.

        Raises CodesError when the latents were made by another autoencoder or do not fit this one.
        """
        samples = np.concatenate(list(self.decode_clip(latents)), axis=1)
        return Audio(samples[:, : latents.length], self.info.sample_rate)

    def encode_clip(self, blocks: Iterable[Float]) -> Latents:
        """As `encode` without noise, for a clip in blocks (channels, samples): in bounded memory."""
        count = SampleCount()
        values = np.concatenate(list(self.encode_blocks(count.through(blocks))), axis=1)
        return Latents(values, self.info.frame_rate, self.info.name, length=count.samples)

    @closed(CodesError)
    def decode_clip(self, latents: Latents) -> Iterator[Float]:
        """As `decode`, but in float32 blocks (channels, samples), which are not trimmed."""
        self.check(latents)
        return self.decode_blocks([latents.values])

    def check(self, latents: Latents) -> None:
        """Raise CodesError unless these latents can be decoded here."""
        info = self.info
        if not info.accepts(latents.autoencoder):
            raise CodesError(
                f"the latents were made by {latents.autoencoder}; this autoencoder is {info.name}"
            )
        channels, frames = latents.values.shape
        if channels != info.latent_channels:
            raise CodesError(f"{info.name} has latents of {info.latent_channels} channels, got {channels}")
        if frames == 0:
            raise CodesError("the latents have no frames: there is nothing to decode")

    def encode_blocks(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """Blocks (channels, samples) of one clip -> float32 blocks (latent_channels, frames): the means.

        However the clip is cut into blocks, the frames are those of the whole clip to float32 rounding.
        """
        for parts in self._posterior(blocks):
            yield parts[: self.info.latent_channels] / np.float32(self.scale)

    def decode_blocks(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """Blocks of latents (latent_channels, frames) -> float32 blocks (channels, samples)."""
        scaled = (values * np.float32(self.scale) for values in blocks)
        yield from arrays(self.ops, self._decoder, signals(self.ops, scaled, self.chunk_frames))

    def _posterior(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """(2 * latent_channels, frames): means and raw deviations."""
        chunks = signals(self.ops, blocks, self.chunk_frames * self.info.hop_length)
        yield from arrays(self.ops, self._encoder, chunks)


def fingerprint(codebooks: Float) -> str:
    """Eight hex digits that tell one codec's codebooks from another's, whatever file they came from."""
    return hashlib.sha256(np.ascontiguousarray(codebooks, dtype="<f4").tobytes()).hexdigest()[:8]


class SampleCount:
    """Counts the samples of blocks (channels, samples) that pass."""

    def __init__(self) -> None:
        self.samples = 0

    def through(self, blocks: Iterable[Float]) -> Iterator[Float]:
        for block in blocks:
            self.samples += block.shape[1]
            yield block


def even(
    blocks: Iterable[NDArray[Any]], size: int, dtype: type[np.generic]
) -> Iterator[tuple[NDArray[Any], bool]]:
    """Blocks of any length -> blocks of `size` along the last axis, the last marked and maybe shorter."""
    held: list[NDArray[Any]] = []
    count = 0
    for block in blocks:
        held.append(np.asarray(block))
        count += held[-1].shape[1]
        if count > size:  # more than one block: what is put out now is certainly not the last
            joined = np.concatenate(held, axis=1)
            whole = (count - 1) // size * size
            for start in range(0, whole, size):
                yield joined[:, start : start + size].astype(dtype, copy=False), False
            held = [joined[:, whole:]]
            count -= whole
    if count == 0:
        raise AudioError("there is nothing to encode or decode: the clip has no samples")
    yield np.concatenate(held, axis=1).astype(dtype, copy=False), True


def signals(ops: Ops, blocks: Iterable[Float], size: int) -> Iterator[Chunk]:
    """Blocks (channels, steps) of one clip as signals of one item, `size` steps at a time."""
    for part, last in even(blocks, size, np.float32):
        yield ops.signal(part[None]), last  # (1, C, T): the batch axis is added here and taken off below


def arrays(ops: Ops, stages: Sequence[Stage], chunks: Iterable[Chunk]) -> Iterator[Float]:
    """The stages over chunks of one clip, as numpy blocks (channels, steps); empty ones left out."""
    for signal, _ in stream(ops, stages, chunks):
        block = ops.numpy(signal)[0]
        if block.shape[1]:
            yield block
