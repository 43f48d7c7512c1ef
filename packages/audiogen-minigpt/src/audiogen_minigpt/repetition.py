"""What generated codes tell without listening: how varied they are, and how much of them is quoted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audiogen_minigpt.dataset import Dataset

Ints = NDArray[np.int64]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that powers of it never vanish modulo 2^64


def entropies(tracks: Sequence[Ints]) -> list[float]:
    """The entropy in bits of the codes of each codebook, order disregarded.

    tracks  (frames, K) each

    Few clips have less entropy than many, so compare amounts of the same size. A model that has collapsed
    has much less than its data.
    """
    codes = np.concatenate(tracks)
    result = []
    for column in codes.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        result.append(float(-(share * np.log2(share)).sum()))
    return result


def longest_quotes(tracks: Sequence[Ints], data: Dataset) -> list[int]:
    """For each track (frames, K) the longest run of its frames that also occurs in one track of the data.

    A long run in generated codes is quoted from the training data. Music that repeats itself quotes without
    any model, so compare with held-out tracks. Takes time in proportion to the data, and little memory.
    """
    known = [_identity(data.track(index)) for index in range(len(data.tracks))]
    return [_longest(_identity(track), known) for track in tracks]


def _identity(codes: Ints) -> NDArray[np.uint64]:
    """One number for each frame, the same for equal frames and different for others, almost surely."""
    mixed = np.zeros(len(codes), np.uint64)
    for column in codes.T:
        mixed = (mixed ^ (column.astype(np.uint64) + np.uint64(1))) * _BASE
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _longest(asked: NDArray[np.uint64], known: Sequence[NDArray[np.uint64]]) -> int:
    """The longest run in common, by bisection over its length."""
    low, high = 0, len(asked)
    while low < high:
        length = (low + high + 1) // 2
        wanted = np.unique(_hashes(asked, length))
        if any(np.isin(_hashes(track, length), wanted).any() for track in known):
            low = length
        else:
            high = length - 1
    return low


def _hashes(values: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of each run of `length` values, by doubling: runs of 1, 2, 4, ... are joined as needed."""
    count = len(values) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    result = np.zeros(count, np.uint64)
    power, place, run = values, 0, 1
    while True:
        if length & run:
            result = (result ^ power[place : place + count]) * _BASE
            result ^= result >> np.uint64(31)
            place += run
        run *= 2
        if run > length:
            return result
        joined = power[: len(power) - run // 2] * _BASE + power[run // 2 :]
        power = joined ^ (joined >> np.uint64(32))
