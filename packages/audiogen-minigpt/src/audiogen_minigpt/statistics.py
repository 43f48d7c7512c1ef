"""What a model must beat: counts of single codes and of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError
from audiogen_minigpt.dataset import Dataset

Ints = NDArray[np.int64]


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
    known = [train.track(index) for index in range(len(train.tracks))]
    asked = [judged.track(index) for index in range(len(judged.tracks))]
    size = train.meta.codebook_size
    singles, pairs = [], []
    for k in range(train.codebooks):
        single, pair = _codebook([codes[:, k] for codes in known], [codes[:, k] for codes in asked], size)
        singles.append(single)
        pairs.append(pair)
    return Baselines(tuple(singles), tuple(pairs), train.meta.frame_rate)


def _codebook(known: list[Ints], asked: list[Ints], size: int) -> tuple[float, float]:
    counts = np.bincount(np.concatenate(known), minlength=size) + 1.0
    unigram = counts / counts.sum()
    seen, times = np.unique(np.concatenate([_pairs(codes, size) for codes in known]), return_counts=True)
    followed = np.bincount(seen // size, weights=times, minlength=size)  # how often each code has a follower
    kinds = np.bincount(seen // size, minlength=size)  # and how many different ones
    single = -float(np.log(unigram[np.concatenate(asked)]).mean())
    wanted = np.concatenate([_pairs(codes, size) for codes in asked])
    if not len(wanted) or not len(seen):
        return single, single
    before, code = wanted // size, wanted % size
    place = np.minimum(np.searchsorted(seen, wanted), len(seen) - 1)
    count = np.where(seen[place] == wanted, times[place], 0)
    total = followed[before] + kinds[before]
    mixed = (count + kinds[before] * unigram[code]) / np.maximum(total, 1)
    chance = np.where(total > 0, mixed, unigram[code])
    firsts = np.log(unigram[[codes[0] for codes in asked]]).sum()
    return single, -float((np.log(chance).sum() + firsts) / (len(wanted) + len(asked)))


def _pairs(codes: Ints, size: int) -> Ints:
    return codes[:-1] * size + codes[1:]
