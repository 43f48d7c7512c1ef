"""Excerpts of the demo corpus with captions drawn anew each time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settings import Settings
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from captions import caption
from make import Corpus
from words import UNKNOWN, tokenizer

BARS_IN_PHRASE = 4


@dataclass(frozen=True)
class Batch:
    """codes (B, K, W); ids and mask (B, L) of captions; told (B,); counts (B, W), where the loss counts."""

    codes: Tensor
    ids: Tensor
    mask: Tensor
    told: Tensor
    counts: Tensor


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

    def batch(self, count: int | None = None) -> Batch:
        count = count or self.settings.data.batch
        return self._joined([self._excerpt() for _ in range(count)])

    def openings(self) -> Batch:
        """The first frames of pieces, where the caption matters most."""
        wanted, rows = self.settings.openings, []
        for index in self.draws.integers(len(self.corpus.codes), size=wanted.batch):
            codes, facts = self.corpus.codes[index], self.corpus.facts[index]
            told = bool(self.draws.random() < wanted.told)
            ids = self._ids(caption(self.draws, facts))
            rows.append((codes[: self.settings.model.codebooks, : wanted.frames], ids, told, 0))
        return self._joined(rows)

    def held(self, count: int, frames: int | None = None) -> Batch:
        """One excerpt of each of the first pieces, from their beginnings, with the captions of the corpus."""
        window, books = frames or self.settings.data.window, self.settings.model.codebooks
        made = []
        for codes, facts in zip(self.corpus.codes[:count], self.corpus.facts, strict=False):
            ids = [*self.words.encode(facts["caption"]).ids, self.end]
            made.append((codes[:books, :window], ids, True, 0))
        return self._joined(made)

    def _excerpt(self) -> tuple[Any, list[int], bool, int]:
        data, draws = self.settings.data, self.draws
        index = int(draws.integers(len(self.corpus.codes)))
        facts, codes = self.corpus.facts[index], self.corpus.codes[index]
        latest = codes.shape[1] - data.window
        bar, chance = facts["frames_per_bar"], draws.random()
        step = bar * BARS_IN_PHRASE if chance < data.phrase_share else bar
        if chance >= data.phrase_share + data.bar_share:
            step = 1
        start = int(draws.integers(latest // step + 1)) * step
        silent = 0 if start % (bar * BARS_IN_PHRASE) == 0 else data.silent
        ids = self._ids(caption(draws, facts))
        told = bool(draws.random() >= data.no_caption)
        return codes[: self.settings.model.codebooks, start : start + data.window], ids, told, silent

    def _ids(self, text: str) -> list[int]:
        ids = list(self.words.encode(text).ids)
        if self.draws.random() < self.settings.data.unknown_words:
            ids.insert(int(self.draws.integers(len(ids) + 1)), self.unknown)
        return [*ids, self.end]

    def _joined(self, rows: list[tuple[Any, list[int], bool, int]]) -> Batch:
        longest = max(len(ids) for _, ids, _, _ in rows)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for _, ids, _, _ in rows])
        window = rows[0][0].shape[1]
        counts = torch.arange(window) >= torch.tensor([silent for *_, silent in rows])[:, None]
        return Batch(
            torch.from_numpy(np.stack([codes for codes, *_ in rows]).astype(np.int64)),
            ids,
            (torch.arange(longest) < torch.tensor([len(row[1]) for row in rows])[:, None]).long(),
            torch.tensor([told for _, _, told, _ in rows], dtype=torch.float32),
            counts,
        )
