"""What a model must beat: counts of single codes and of pairs."""

from __future__ import annotations

from collections.abc import Iterator
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

_PIECE = 1 << 18  # frames counted at a time


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
