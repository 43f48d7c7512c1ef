"""Codecs that work in chunks of fixed length, each with its own loudness: EnCodec's 48 kHz model.

A clip is cut into chunks of which each overlaps the next a little. Every chunk is brought to the same
loudness, coded on its own, and faded into its neighbours when it is decoded (arXiv 2210.13438, 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.codec import Codec, CodecInfo, SampleCount
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, CodesError
from audiogen_core.layers import Stage, whole
from audiogen_core.ops import Float, Ops


@dataclass(frozen=True)
class Chunking:
    """How a clip is cut: chunks of `length` samples begin every `stride` samples; each `hop` is a frame.

    The last chunks are as short as the clip leaves them.
    """

    length: int
    stride: int
    hop: int

    def frames(self, samples: int) -> list[int]:
        """Frames of each chunk of a clip of so many samples."""
        starts = range(0, samples, self.stride)
        return [-(-min(self.length, samples - start) // self.hop) for start in starts]

    def split(self, frames: int, chunks: int) -> list[int]:
        """Frames of each chunk, from how many there are of both. Raises CodesError if no clip has so many."""
        low, high = self.stride * (chunks - 1) + 1, self.stride * chunks  # samples of such clips
        while low < high:
            middle = (low + high) // 2
            if sum(self.frames(middle)) < frames:
                low = middle + 1
            else:
                high = middle
        sizes = self.frames(low) if chunks > 0 else []
        if sum(sizes) != frames:
            raise CodesError(f"{frames} frames of codes do not fit {chunks} chunks with a scale each")
        return sizes


class ChunkedCodec(Codec):
    """A codec whose codes are those of its chunks, one after another, and one scale per chunk.

    `Codes.scales` holds the loudness of each chunk. The overlaps make a few frames more than the clip's
    length times the frame rate.
    """

    def __init__(
        self,
        info: CodecInfo,
        ops: Ops,
        *,
        encoder: Sequence[Stage],
        decoder: Sequence[Stage],
        codebooks: Float,
        chunking: Chunking,
    ) -> None:
        super().__init__(info, ops, encoder=encoder, decoder=decoder, codebooks=codebooks)
        self.chunking = chunking

    def check(self, codes: Codes) -> None:
        """Raise CodesError unless these codes can be decoded here: their scales are needed too."""
        super().check(codes)
        if codes.scales is None:
            raise CodesError(f"{self.info.name} needs the scale of each chunk; these codes have no scales")
        if codes.scales.ndim != 1 or not np.isfinite(codes.scales).all():
            raise CodesError(f"scales must be one finite number per chunk, got shape {codes.scales.shape}")
        self.chunking.split(codes.frames, len(codes.scales))

    def encode_clip(self, blocks: Iterable[Float], codebooks: int | None = None) -> Codes:
        """Blocks (channels, samples) of one clip -> its codes with their scales, in bounded memory."""
        count = SampleCount()
        parts = list(self._encoded(count.through(blocks), self._count(codebooks)))
        info = self.info
        return Codes(
            np.concatenate([values for values, _ in parts], axis=1),
            info.codebook_size,
            info.frame_rate,
            info.name,
            length=count.samples,
            scales=np.concatenate([scales for _, scales in parts]),
        )

    def decode_clip(self, codes: Codes) -> Iterator[Float]:
        """Codes with their scales -> float32 blocks (channels, samples), not trimmed, in bounded memory."""
        self.check(codes)
        scales = np.asarray(codes.scales, np.float32)
        sizes = self.chunking.split(codes.frames, len(scales))
        return _overlap_add(self._decoded(codes.values, scales, sizes), self.chunking.stride)

    def encode_blocks(self, blocks: Iterable[Float], codebooks: int | None = None) -> Iterator[NDArray[Any]]:
        """As of every codec. The scales, without which the codes cannot be decoded, are in `encode_clip`."""
        for values, _ in self._encoded(blocks, self._count(codebooks)):
            yield values

    def decode_blocks(self, blocks: Iterable[NDArray[Any]]) -> Iterator[Float]:
        """Raises CodesError: without scales these codes cannot be decoded."""
        raise CodesError(f"{self.info.name} needs the scale of each chunk; use decode or decode_clip")

    def _encoded(self, blocks: Iterable[Float], count: int) -> Iterator[tuple[NDArray[Any], Float]]:
        """(codebooks, frames) and (chunks,) of some chunks at a time."""
        for batch in _batches(_cut(blocks, self.chunking), self._together()):
            mono = np.mean(batch, axis=1, dtype=np.float32)  # (chunks, C, samples) -> (chunks, samples)
            scales: Float = np.sqrt(np.mean(mono * mono, axis=1, dtype=np.float32)) + np.float32(1e-8)
            even = np.asarray(batch / scales[:, None, None], np.float32)
            latents = whole(self.ops, self._encoder, self.ops.signal(even))
            books = [self.ops.indices_numpy(book) for book in self._quantizer.encode(latents, count)]
            values = np.stack(books).astype(np.int32)  # (K, chunks, F)
            yield values.reshape(count, -1), scales

    def _decoded(self, values: NDArray[Any], scales: Float, sizes: list[int]) -> Iterator[Float]:
        """The sound (channels, samples) of each chunk."""
        ends = np.cumsum(sizes)
        parts = (values[:, end - size : end] for end, size in zip(ends, sizes, strict=True))
        done = 0
        for batch in _batches(parts, self._together()):
            books = [self.ops.indices(batch[:, row]) for row in range(batch.shape[1])]
            sound = self.ops.numpy(whole(self.ops, self._decoder, self._quantizer.decode(books)))
            for clip in sound:
                yield clip * scales[done]
                done += 1

    def _together(self) -> int:
        """Chunks that are worked off at a time."""
        return max(1, round(self.chunk_seconds * self.info.sample_rate / self.chunking.length))


def _cut(blocks: Iterable[Float], chunking: Chunking) -> Iterator[Float]:
    """Blocks of any length -> the overlapping chunks (channels, samples) of the clip."""
    held: Float | None = None
    for block in blocks:
        piece = np.asarray(block, np.float32)
        held = piece if held is None else np.concatenate([held, piece], axis=1)
        start = 0
        while held.shape[1] - start > chunking.length:  # not the end of the clip yet
            yield held[:, start : start + chunking.length]
            start += chunking.stride
        held = held[:, start:]
    if held is None or held.shape[1] == 0:
        raise AudioError("there is nothing to encode: the clip has no samples")
    for start in range(0, held.shape[1], chunking.stride):
        yield held[:, start : start + chunking.length]


def _batches(parts: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Neighbours of equal shape, up to `size` of them together: (parts, ...)."""
    held: list[NDArray[Any]] = []
    for part in parts:
        if held and (len(held) == size or held[0].shape != part.shape):
            yield np.stack(held)
            held = []
        held.append(part)
    if held:
        yield np.stack(held)


def _overlap_add(chunks: Iterable[Float], stride: int) -> Iterator[Float]:
    """Fades each chunk into the next: triangular weights, divided by their sum at every sample."""
    weight: Float | None = None
    sound = total = np.zeros((1, 0), np.float32)  # what still waits for the chunks after it
    for chunk in chunks:
        if weight is None:
            # A triangle that is nowhere 0: where a sample lies in one chunk alone, it is divided out again.
            times = np.linspace(0, 1, chunk.shape[1] + 2, dtype=np.float32)[1:-1]
            weight = np.float32(0.5) - np.abs(times - np.float32(0.5))
            sound = np.zeros((chunk.shape[0], 0), np.float32)
        share = weight[: chunk.shape[1]]
        longest = max(sound.shape[1], chunk.shape[1])
        sound = _longer(sound, longest)
        total = _longer(total, longest)
        sound[:, : chunk.shape[1]] += share * chunk
        total[:, : chunk.shape[1]] += share
        yield sound[:, :stride] / total[:, :stride]
        sound, total = sound[:, stride:], total[:, stride:]
    if sound.shape[1]:
        yield sound / total


def _longer(array: Float, length: int) -> Float:
    return np.pad(array, ((0, 0), (0, length - array.shape[1])))
