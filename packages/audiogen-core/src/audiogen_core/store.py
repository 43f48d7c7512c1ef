"""Sound kept for a second pass, and cut: blocks float32 (channels, n)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_PIECE = 1 << 16  # samples read at once
_SPILL = 4 << 20  # bytes of sound kept in memory before they go to the disk


class Store:
    """Blocks kept for a second pass: in memory as long as they are few, then in a temporary file."""

    def __init__(self, channels: int, folder: Path | None = None) -> None:
        self.channels = channels
        self.length = 0
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPILL, dir=place)  # noqa: SIM115 (see close)

    @property
    def empty(self) -> Samples:
        """A block of no samples."""
        return np.zeros((self.channels, 0), np.float32)

    def add(self, block: Samples) -> None:
        self._file.write(np.ascontiguousarray(block.T, dtype=np.float32).tobytes())
        self.length += block.shape[1]

    def blocks(self, size: int = _PIECE) -> Iterator[Samples]:
        """What was kept, in blocks of `size` samples."""
        self._file.seek(0)
        while data := self._file.read(size * self.channels * 4):
            yield np.frombuffer(data, np.float32).reshape(-1, self.channels).T

    def part(self, start: int, length: int) -> Iterator[Samples]:
        """`length` samples from `start` on; silence where there are none."""
        yield from cut(self.blocks(), start, length, self.channels)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cut(blocks: Iterable[Samples], start: int, length: int, channels: int) -> Iterator[Samples]:
    """`length` samples from `start` on; silence where there are none, also before sample 0."""
    if start < 0:
        yield np.zeros((channels, min(-start, length)), np.float32)
        length, start = length - min(-start, length), 0
    for block in blocks:
        if start >= block.shape[1]:
            start -= block.shape[1]
            continue
        part = block[:, start : start + length]
        start, length = 0, length - part.shape[1]
        if part.shape[1]:
            yield part
        if length == 0:
            return
    if length:
        yield np.zeros((channels, length), np.float32)
