"""Excerpts of the demo corpus, and what is masked of them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from settings import Masks, Part
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from make import Corpus

SIZE = 1024
"""Codes of a codebook; a masked place holds this number."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """codes int64 (B, K, W), and which of them are masked, bool of the same shape."""

    codes: Tensor
    masked: Tensor

    @property
    def seen(self) -> Tensor:
        """The codes as the network gets them."""
        return torch.where(self.masked, SIZE, self.codes)


class Excerpts:
    """Draws excerpts from anywhere in a piece: the network sees both sides, and needs no beginning."""

    def __init__(self, corpus: Corpus, part: Part, masks: Masks, seed: int) -> None:
        self.corpus = corpus
        self.part = part
        self.masks = masks
        self.draws = np.random.Generator(np.random.PCG64([5, seed, part.conditioning]))

    def batch(self) -> Batch:
        window, draws = self.part.window, self.draws
        codes, masked = [], []
        for _ in range(self.part.batch):
            piece = self.corpus.codes[draws.integers(len(self.corpus.codes))]
            start = int(draws.integers(piece.shape[1] - window + 1))
            codes.append(piece[: self.part.codebooks, start : start + window])
            masked.append(mask(draws, self.part, self.masks))
        return _batch(codes, masked)

    def held(self, count: int, share: float) -> Batch:
        """The beginning of each of the first pieces with this share masked, always the same places."""
        draws = np.random.Generator(np.random.PCG64([6, round(share * 1000)]))
        shape = (self.part.codebooks, self.part.window)
        codes = [piece[: shape[0], : shape[1]] for piece in self.corpus.codes[:count]]
        return _batch(codes, [_made(draws.random(shape) < share, self.part) for _ in codes])


def mask(draws: np.random.Generator, part: Part, masks: Masks) -> Bools:
    """What is masked of an excerpt (K, W): of the places where a vamp would work, as many as one of its steps
    leaves, on the cosine schedule.
    """
    shape = (part.codebooks, part.window)
    left = math.cos(math.pi / 2 * draws.random())
    masked = _places(draws, shape, masks) & (draws.random(shape) < left)
    masked = _made(masked, part)
    masked[-1, draws.integers(part.window)] = True  # never nothing
    return masked


def _places(draws: np.random.Generator, shape: tuple[int, int], masks: Masks) -> Bools:
    """Where a vamp would work: everywhere, around what is kept periodically, or in a gap."""
    kind = draws.random()
    places = np.ones(shape, np.bool_)
    if kind < masks.anywhere:
        return places
    if kind < masks.anywhere + masks.periodic:
        period = int(draws.integers(*masks.periods, endpoint=True))
        keep = int(draws.integers(1, shape[0], endpoint=True))
        places[:keep, int(draws.integers(period)) :: period] = False
        return places
    length = max(1, round(draws.uniform(*masks.gap) * shape[1]))
    start = int(draws.integers(-length // 2, shape[1] - length // 2))  # also at the ends
    places[:] = False
    places[:, max(0, start) : start + length] = True
    return places


def _made(masked: Bools, part: Part) -> Bools:
    masked[: part.conditioning] = False
    return masked


def _batch(codes: list[Any], masked: list[Bools]) -> Batch:
    return Batch(torch.from_numpy(np.stack(codes).astype(np.int64)), torch.from_numpy(np.stack(masked)))
