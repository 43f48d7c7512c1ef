"""The longest stretch of codes that a clip shares with the training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)

LADDER = sorted({round(1.15**step) for step in range(60)})
"""Lengths in frames that are told apart: steps of 15 %, up to 50 s. Each costs a sorted table of the set."""

Codes = NDArray[np.int16]  # (codebooks, frames)
Hashes = NDArray[np.uint64]


class Memory:
    """The codes of the training pieces, int16 (pieces, codebooks, frames), made ready for searching.

    A stretch is shared when all codebooks agree. Stretches are compared by 64-bit hashes.
    """

    def __init__(self, pieces: NDArray[np.int16], codebooks: int) -> None:
        self.codebooks = codebooks
        self._frames = _frame_hashes(pieces[:, :codebooks].transpose(0, 2, 1))
        self._known: dict[int, Hashes] = {}

    @classmethod
    def read(cls, path: Path, codebooks: int = 4) -> Memory:
        """From a file with `codes`."""
        with np.load(path) as file:
            return cls(file["codes"], codebooks)

    @property
    def pieces(self) -> int:
        return len(self._frames)

    def longest(self, codes: Codes) -> int:
        """Frames of the longest shared stretch, rounded down to one of LADDER; 0 when no frame is shared.

        Found by halving, for with a stretch its parts are shared.
        """
        frames = _frame_hashes(codes[: self.codebooks].T[None])
        rungs = [length for length in LADDER if length <= min(frames.shape[1], self._frames.shape[1])]
        low, high = 0, len(rungs)  # rungs below low are shared, those from high on are not
        while low < high:
            middle = (low + high) // 2
            wanted, known = _stretches(frames, rungs[middle]), self._all(rungs[middle])
            places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            if (known[places] == wanted).any():
                low = middle + 1
            else:
                high = middle
        return rungs[low - 1] if low else 0

    def _all(self, length: int) -> Hashes:
        """The hashes of all stretches of so many frames, sorted."""
        if length not in self._known:
            self._known[length] = np.unique(_stretches(self._frames, length))
        return self._known[length]


def _frame_hashes(codes: NDArray[np.int16]) -> Hashes:
    """(pieces, frames, codebooks) -> a number for each frame: (pieces, frames)."""
    out = np.zeros(codes.shape[:2], np.uint64)
    for book in range(codes.shape[2]):
        out = (out + codes[:, :, book].astype(np.uint64) + np.uint64(1)) * _FACTOR
        out ^= out >> np.uint64(29)
    return out * _MIX


def _stretches(frames: Hashes, length: int) -> Hashes:
    """The hash of every stretch of so many frames within a piece: built by doubling."""
    parts, size, done = frames, 1, None
    offset = 0
    while True:
        if length & size:
            if done is None:
                done = parts
            else:
                room = parts.shape[1] - offset
                done = _joined(done[:, :room], parts[:, offset:], size)
            offset += size
        if size * 2 > length:
            break
        parts = _joined(parts[:, : parts.shape[1] - size], parts[:, size:], 2 * size)
        size *= 2
    assert done is not None
    return done.ravel()


def _joined(first: Hashes, second: Hashes, salt: int) -> Hashes:
    width = min(first.shape[1], second.shape[1])
    out = first[:, :width] * _FACTOR + second[:, :width] * _MIX + np.uint64(salt)
    out ^= out >> np.uint64(31)
    return out * _FACTOR
