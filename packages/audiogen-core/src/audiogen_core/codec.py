"""The interface of all codecs, and the border between numpy values and frameworks.

Subclasses give stages and codebooks; everything that is the same for every codec is here, once: the
checks, the batch axis, padding and trimming, and the chunks in which long clips are worked off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.autoencoder import Autoencoder as Autoencoder
from audiogen_core.autoencoder import AutoencoderInfo as AutoencoderInfo
from audiogen_core.border import check_audio, even, run_blocks, same_model
from audiogen_core.codecs.rvq import Quantizer, ResidualQuantizer
from audiogen_core.codes import Codes
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.ops import Float, Ops, Signal
from audiogen_core.stages import Stage, stream

if TYPE_CHECKING:
    from audiogen_core.audio import Audio


@dataclass(frozen=True)
class CodecInfo:
    """The facts of a codec.

    name           id written into `Codes.codec`. A codec from the catalogue has its catalogue name; one
                   loaded from a path adds `@` and eight hex digits of its codebooks' hash
    sample_rate    Hz
    channels       of the audio
    hop_length     samples per frame
    codebooks      how many at most
    codebook_size  entries in one
    """

    name: str
    sample_rate: int
    channels: int
    hop_length: int
    codebooks: int
    codebook_size: int

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.sample_rate / self.hop_length

    def accepts(self, codec: str) -> bool:
        """Whether codes marked `codec` may be decoded here.

        Names must agree; the hash after `@` as well, where both have one.
        """
        return same_model(self.name, codec)


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

    def encode(self, audio: Audio, codebooks: int | None = None) -> Codes:
        """The codes of a clip, in ceil(samples / hop_length) frames.

        `codebooks` None means all the codec has. Fewer give the first rows of the same codes.

        Raises AudioMismatch when rate or channels are not the codec's (resample or mix first: nothing is
        converted silently), AudioError when the clip is empty, OptionError for an impossible `codebooks`.
        """
        check_audio(audio, self.info)
        return self.encode_clip([audio.samples], codebooks)

    def decode(self, codes: Codes) -> Audio:
        """The clip of some codes, trimmed to `codes.length` where that is known.

        Fewer codebooks than the codec has are decoded as they are. Raises CodesError when the codes were
        made by another codec or do not fit this one.
        """
        from audiogen_core.audio import Audio

        samples = np.concatenate(list(self.decode_clip(codes)), axis=1)
        return Audio(samples[:, : codes.length], self.info.sample_rate)

    def encode_clip(self, blocks: Iterable[Float], codebooks: int | None = None) -> Codes:
        """As `encode`, for a clip that comes in blocks (channels, samples): in bounded memory."""
        info, count = self.info, SampleCount()
        values = np.concatenate(list(self.encode_blocks(count.through(blocks), codebooks)), axis=1)
        return Codes(values, info.codebook_size, info.frame_rate, info.name, length=count.samples)

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
        size = self._chunk_frames() * self.info.hop_length
        chunks = ((self.ops.signal(part[None]), last) for part, last in even(blocks, size, np.float32))
        for latents, _ in stream(self.ops, self._encoder, chunks):
            codes = self._quantizer.encode(latents, count)
            values = np.stack([self.ops.indices_numpy(book)[0] for book in codes])
            if values.shape[1]:
                yield values.astype(np.int32)

    def decode_blocks(self, blocks: Iterable[NDArray[Any]]) -> Iterator[Float]:
        """Blocks of codes (codebooks, frames) -> float32 blocks (channels, samples), in bounded memory."""
        size = self._chunk_frames()
        chunks = ((self._lookup(values), last) for values, last in even(blocks, size, np.int64))
        yield from run_blocks(self.ops, self._decoder, chunks)

    def _count(self, codebooks: int | None) -> int:
        count = self.info.codebooks if codebooks is None else codebooks
        if not 1 <= count <= self.info.codebooks:
            raise OptionError(f"{self.info.name} has 1 to {self.info.codebooks} codebooks, asked for {count}")
        return count

    def _chunk_frames(self) -> int:
        return max(1, round(self.chunk_seconds * self.info.frame_rate))

    def _lookup(self, values: NDArray[Any]) -> Signal:
        return self._quantizer.decode([self.ops.indices(row[None]) for row in values])


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
