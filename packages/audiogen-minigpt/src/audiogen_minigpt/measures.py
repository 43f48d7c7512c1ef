"""Figures of codes, without listening: what counting them predicts, how varied they are, how much is quoted.

* `baselines`: the cross entropy of counts of single codes and of pairs, which a model must beat.
* `entropies`, `longest_quotes`: whether generated codes have collapsed, and how much of the data they quote.
* `kernel_distance` of `embed`: how far two sets of clips are apart in the space of the codec, without any
  model to download. Called kad-encodec where the codec is EnCodec: the kernel distance of KAD (arXiv
  2502.15602) on the codec's own latents. It is unbiased with few clips and good for comparing runs with one
  codec; it is blind to what the codec does not tell apart, and tells nothing about another codec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError
from audiogen_minigpt.dataset import Dataset

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WINDOW = 1.0  # seconds that `embed` describes by one row

_PIECE = 1 << 18  # frames counted at a time
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that powers of it never vanish modulo 2^64


@dataclass(frozen=True)
class Baselines:
    """Mean nats per code of each codebook, fitted on the training split and judged on the other."""

    unigram: tuple[float, ...]
    bigram: tuple[float, ...]
    frame_rate: float

    @property
    def unigram_bits(self) -> float:
        """Bits per second of audio."""
        return self.frame_rate * sum(self.unigram) / log(2)

    @property
    def bigram_bits(self) -> float:
        """Bits per second of audio."""
        return self.frame_rate * sum(self.bigram) / log(2)


def baselines(data: str | Path, *, codebooks: int | None = None, split: str = "val") -> Baselines:
    """Unigram: how often each code occurs. Bigram: how often it follows the one a frame before.

    Each codebook is taken by itself. The unigram adds one to every count; the bigram is mixed with it as
    Witten and Bell do (1991): the more different codes follow one, the less its pairs are trusted. Raises
    CodesError when either split is empty.
    """
    train = Dataset.open(data, split="train", codebooks=codebooks)
    judged = Dataset.open(data, split=split, codebooks=codebooks)
    if not train.tracks or not judged.tracks:
        raise CodesError(f"{data}: baselines need a train and a {split} split")
    counts = [_Counts(train.meta.codebook_size) for _ in range(train.codebooks)]
    for codes, first in _pieces(train):
        for k, count in enumerate(counts):
            count.add(codes[:, k], first)
    totals = np.zeros((2, train.codebooks))
    for codes, first in _pieces(judged):
        for k, count in enumerate(counts):
            totals[:, k] += count.nats(codes[:, k], first)
    single, pair = (totals / judged.frames).tolist()
    return Baselines(tuple(single), tuple(pair), train.meta.frame_rate)


def _pieces(dataset: Dataset) -> Iterator[tuple[Ints, bool]]:
    """All tracks in pieces (frames, K), and whether a piece begins one; others repeat a frame of the last."""
    for start, end in zip(dataset.starts[:-1].tolist(), dataset.starts[1:].tolist(), strict=True):
        for place in range(start + 1, end, _PIECE):
            first = place == start + 1
            begin = place if first else place - 1
            yield dataset.read(begin, min(place + _PIECE, end) - begin), first


class _Counts:
    """How often each code of a codebook occurs, and each pair that occurs at all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._codes = np.ones(size)
        self._pairs: Ints = np.zeros(0, np.int64)  # code * size + the code that follows it, sorted
        self._times: Floats = np.zeros(0)
        self._waiting: list[Ints] = []
        self._count = 0  # of codes in there

    def add(self, codes: Ints, first: bool) -> None:
        """Count a piece; unless it is the first of a track, its first code was counted before."""
        self._codes += np.bincount(codes[0 if first else 1 :], minlength=self._size)
        self._waiting.append(self._following(codes))
        self._count += len(codes)
        if self._count >= _PIECE:
            self._merge()

    def _merge(self) -> None:
        """Count the pairs that wait: many at a time, for the table of pairs may be long."""
        if not self._waiting:
            return
        pairs, times = np.unique(np.concatenate(self._waiting), return_counts=True)
        self._waiting, self._count = [], 0
        both = np.concatenate([self._pairs, pairs])
        self._pairs, place = np.unique(both, return_inverse=True)
        self._times = _summed(place, np.concatenate([self._times, times]), len(self._pairs))

    def nats(self, codes: Ints, first: bool) -> tuple[float, float]:
        """The surprise of a piece, in all: by single codes, and by pairs."""
        self._merge()
        chance = self._codes / self._codes.sum()
        wanted = self._following(codes)
        before, code = wanted // self._size, wanted % self._size
        kinds, followed = self._followers
        count = np.zeros(len(wanted))
        if len(self._pairs):
            place = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
            count = np.where(self._pairs[place] == wanted, self._times[place], 0.0)
        total = followed[before] + kinds[before]
        # Witten and Bell: pairs not seen weigh what the kinds that followed do, shared as single codes are.
        mixed = (count + kinds[before] * chance[code]) / np.maximum(total, 1)
        pair = -float(np.log(np.where(total > 0, mixed, chance[code])).sum())
        start = -float(np.log(chance[codes[0]])) if first else 0.0
        return start - float(np.log(chance[code]).sum()), start + pair

    @cached_property
    def _followers(self) -> tuple[Floats, Floats]:
        """For each code: how many different ones follow it, and how often any does."""
        before = self._pairs // self._size
        kinds = _summed(before, np.ones(len(before)), self._size)
        return kinds, _summed(before, self._times, self._size)

    def _following(self, codes: Ints) -> Ints:
        return codes[:-1] * self._size + codes[1:]


def _summed(place: Ints, values: Floats, size: int) -> Floats:
    """The sum of the values of each place, 0 to size - 1."""
    return np.asarray(np.bincount(place, values, size), np.float64)


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


def embed(tracks: Sequence[Ints], vectors: NDArray[np.float32], frame_rate: float) -> Floats:
    """Mean and standard deviation of the latents over windows of a second: float64 (windows, 2 D).

    tracks   codes (frames, K) each; K may be less than the codec has
    vectors  float32 (codebooks, N, D), `Codec.codebook_vectors()`
    """
    size = max(2, round(WINDOW * frame_rate))
    rows = []
    for codes in tracks:
        latents = np.zeros((len(codes), vectors.shape[2]))
        for k in range(codes.shape[1]):
            latents += vectors[k][codes[:, k]]
        for start in range(0, len(latents) - size + 1, size):
            part = latents[start : start + size]
            rows.append(np.concatenate([part.mean(axis=0), part.std(axis=0)]))
    return np.array(rows).reshape(len(rows), 2 * vectors.shape[2])


def kernel_distance(one: Floats, other: Floats) -> float | None:
    """The unbiased squared maximum mean discrepancy with a Gaussian kernel, times 1000.

    one, other  (n, D) and (m, D); None when either has fewer than two rows

    The kernel's width is the median distance within `one`, the reference. About 0, also slightly below it,
    means that the sets cannot be told apart.
    """
    if len(one) < 2 or len(other) < 2:
        return None
    scale = float(np.median(_squares(one, one)[np.triu_indices(len(one), 1)])) or 1.0
    within = [_mean_kernel(part, part, scale, same=True) for part in (one, other)]
    return 1000.0 * (sum(within) - 2.0 * _mean_kernel(one, other, scale, same=False))


def _squares(one: Floats, other: Floats) -> Floats:
    """Squared distances (n, m)."""
    squares: Floats = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * one @ other.T
    return squares.clip(min=0.0)


def _mean_kernel(one: Floats, other: Floats, scale: float, *, same: bool) -> float:
    kernel = np.exp(-_squares(one, other) / (2.0 * scale))
    if same:  # a row is no sample of its own distance: leaving the diagonal out makes the estimate unbiased
        return float((kernel.sum() - len(one)) / (len(one) * (len(one) - 1)))
    return float(kernel.mean())
