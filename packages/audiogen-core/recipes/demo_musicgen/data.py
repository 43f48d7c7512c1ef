"""Excerpts of the demo corpus with captions drawn anew each time."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from settings import Mistakes, Settings
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from captions import caption
from make import Corpus
from words import UNKNOWN, tokenizer

BARS_IN_PHRASE = 4
STEPS_IN_BAR = 16  # sixteenths


@dataclass(frozen=True)
class Batch:
    """codes (B, K, W), and as they are heard; ids and mask (B, L) of captions; told (B,); weights (B, W)."""

    codes: Tensor
    heard: Tensor
    ids: Tensor
    mask: Tensor
    told: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Row:
    """One of a batch: codes (K, W), heard (K, W), ids, told, weights (W,)."""

    codes: NDArray[np.int16]
    heard: NDArray[np.int16]
    ids: list[int]
    told: bool
    weights: NDArray[np.float32]


class Excerpts:
    """Draws excerpts. Most start with a phrase or a bar; those that start anywhere teach how to go on.

    Where an excerpt does not start with a phrase, its beginning is not learned, only gone on from. So the
    model begins every clip with a phrase, and can continue from any frame.
    """

    def __init__(self, corpus: Corpus, settings: Settings, seed: int) -> None:
        self.corpus = corpus
        self.settings = settings
        self.words = tokenizer()
        self.unknown = self.words.token_to_id(UNKNOWN)
        self.end = self.words.token_to_id("</s>")
        self.draws = np.random.Generator(np.random.PCG64([3, seed]))

    def batch(self) -> Batch:
        return _joined([self._excerpt() for _ in range(self.settings.data.batch)])

    def openings(self) -> Batch:
        """The first frames of pieces, where the caption matters most."""
        wanted, rows = self.settings.openings, []
        for index in self.draws.integers(len(self.corpus.codes), size=wanted.batch):
            ids = self._ids(caption(self.draws, self.corpus.facts[index]))
            told = bool(self.draws.random() < wanted.told)
            rows.append(self._spoilt(self._row(index, 0, wanted.frames, ids, told)))
        return _joined(rows)

    def held(self, count: int, frames: int | None = None) -> Batch:
        """One excerpt of each of the first pieces, from their beginnings, with the captions of the corpus."""
        rows = []
        for index, facts in enumerate(self.corpus.facts[:count]):
            ids = [*self.words.encode(facts["caption"]).ids, self.end]
            rows.append(self._row(index, 0, frames or self.settings.data.window, ids, True))
        return _joined(rows)

    def _excerpt(self) -> Row:
        data, draws = self.settings.data, self.draws
        index = int(draws.integers(len(self.corpus.codes)))
        facts = self.corpus.facts[index]
        latest = self.corpus.codes.shape[2] - data.window
        bar = facts["frames_per_bar"]
        steps = (bar * BARS_IN_PHRASE, bar, bar // STEPS_IN_BAR, 1)
        shares = np.cumsum([data.phrase_share, data.bar_share, data.step_share])
        step = steps[int(np.searchsorted(shares, draws.random(), side="right"))]
        start = int(draws.integers(latest // step + 1)) * step
        ids = self._ids(caption(draws, facts))
        row = self._row(index, start, data.window, ids, bool(draws.random() >= data.no_caption))
        if start % (bar * BARS_IN_PHRASE):
            row.weights[: data.silent] = 0
        return self._spoilt(row)

    def _spoilt(self, row: Row) -> Row:
        heard = spoilt(row.codes, self.settings.mistakes, self.draws)
        if self.draws.random() < self.settings.mistakes.forgotten:
            start, length = (
                int(self.draws.integers(limit)) for limit in (len(row.weights) // 2, len(row.weights))
            )
            heard = heard.copy()
            heard[:, start : start + length] = self.settings.model.codebook_size
        return replace(row, heard=heard)

    def _row(self, index: int, start: int, frames: int, ids: list[int], told: bool) -> Row:
        codes = self.corpus.codes[index, : self.settings.model.codebooks, start : start + frames]
        near = on_beat(np.arange(start, start + frames), self.corpus.facts[index]["frames_per_bar"])
        weights = np.where(near, self.settings.data.beat_weight, 1.0).astype(np.float32)
        return Row(codes, codes, ids, told, weights)

    def _ids(self, text: str) -> list[int]:
        ids = list(self.words.encode(text).ids)
        if self.draws.random() < self.settings.data.unknown_words:
            ids.insert(int(self.draws.integers(len(ids) + 1)), self.unknown)
        return [*ids, self.end]


def on_beat(frames: NDArray[np.int64], frames_per_bar: int) -> NDArray[np.bool_]:
    """Whether a sixteenth begins in a frame of a piece, in the one before or in the one after."""
    return (frames + 1) % (frames_per_bar // STEPS_IN_BAR) <= 2


def spoilt(codes: NDArray[np.int16], mistakes: Mistakes, draws: np.random.Generator) -> NDArray[np.int16]:
    """Codes (K, W) with mistakes such as a model makes: wrong codes, and stretches out of time."""
    if draws.random() >= mistakes.share:
        return codes
    books, window = codes.shape
    places = np.arange(window)
    for _ in range(draws.integers(mistakes.stretches, endpoint=True)):
        start, length = draws.integers(window), draws.integers(*mistakes.length, endpoint=True)
        places[start : start + length] += draws.integers(-mistakes.frames, mistakes.frames, endpoint=True)
    moved = codes[:, places.clip(0, window - 1)]
    others = codes[np.arange(books)[:, None], draws.integers(window, size=codes.shape)]
    return np.where(draws.random(codes.shape) < draws.random() * mistakes.codes, others, moved)


def _joined(rows: list[Row]) -> Batch:
    longest = max(len(row.ids) for row in rows)
    return Batch(
        torch.from_numpy(np.stack([row.codes for row in rows]).astype(np.int64)),
        torch.from_numpy(np.stack([row.heard for row in rows]).astype(np.int64)),
        torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows]),
        (torch.arange(longest) < torch.tensor([len(row.ids) for row in rows])[:, None]).long(),
        torch.tensor([row.told for row in rows], dtype=torch.float32),
        torch.from_numpy(np.stack([row.weights for row in rows])),
    )
