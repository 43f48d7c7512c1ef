"""Stereo in MusicGen: a mono codec for each side, whose codebooks take turns, left first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import tee
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.codec import Codec, CodecInfo
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.ops import Float


class StereoCodec(Codec):
    """A codec of two channels and twice the codebooks over one of a single channel.

    Row 2k of the codes is codebook k of the left channel, row 2k + 1 that of the right.
    Raises ModelError when the codec below is not of one channel.
    """

    def __init__(self, mono: Codec) -> None:
        info = mono.info
        if info.channels != 1:
            raise ModelError(f"{info.name} has {info.channels} channels; stereo is made of a codec of one")
        self.mono = mono
        self.ops = mono.ops
        self.chunk_seconds = mono.chunk_seconds
        self.info = stereo_info(info)

    def codebook_vectors(self) -> Float:
        """Each codebook of the mono codec twice: float32 (K, N, D)."""
        return np.repeat(self.mono.codebook_vectors(), 2, axis=0)

    def encode_blocks(self, blocks: Iterable[Float], codebooks: int | None = None) -> Iterator[NDArray[Any]]:
        """Blocks (2, samples) of one clip -> int32 blocks (codebooks, frames), in bounded memory.

        Raises OptionError when `codebooks` is odd: both sides have as many.
        """
        count = self._count(codebooks)
        if count % 2:
            raise OptionError(f"{self.info.name} has an even number of codebooks, asked for {count}")
        left, right = tee(blocks)
        sides = (
            self.mono.encode_blocks((block[:1] for block in left), count // 2),
            self.mono.encode_blocks((block[1:] for block in right), count // 2),
        )
        for pair in zip(*sides, strict=True):
            yield np.stack(pair, axis=1).reshape(count, -1)

    def decode_blocks(self, blocks: Iterable[NDArray[Any]]) -> Iterator[Float]:
        """Blocks of codes (codebooks, frames) -> float32 blocks (2, samples), in bounded memory."""
        left, right = tee(blocks)
        sides = (
            self.mono.decode_blocks(block[0::2] for block in left),
            self.mono.decode_blocks(block[1::2] for block in right),
        )
        for pair in zip(*sides, strict=True):
            yield np.concatenate(pair)


def stereo_info(mono: CodecInfo) -> CodecInfo:
    """The facts of the codec of both sides."""
    name, at, mark = mono.name.partition("@")
    return replace(mono, name=f"{name}-stereo{at}{mark}", channels=2, codebooks=2 * mono.codebooks)
