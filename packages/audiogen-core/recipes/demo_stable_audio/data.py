"""Windows of latents from the demo corpus, with captions drawn anew and parts of them given."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from settings import Settings
from torch import Tensor

from audiogen_core import codecs
from audiogen_core.audio import Audio

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from captions import caption
from make import PIECE_SECONDS, Corpus
from words import END, UNKNOWN, tokenizer

FRAME_SECONDS = 1 / 75  # of the codec
STACK = 4  # codec frames in a latent frame
SHORTEST = 1.0  # seconds

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """latents (B, T, C); known (B, T), 1 where given; ids, mask (B, L); seconds (B, 2); told (B,)."""

    latents: Tensor
    known: Tensor
    ids: Tensor
    mask: Tensor
    seconds: Tensor
    told: Tensor

    @property
    def beside(self) -> Tensor:
        """What stands beside the input, (B, T, 1 + C): what is known, and the latents there."""
        return torch.cat([self.known[..., None], self.latents * self.known[..., None]], -1)


class Latents:
    """Codes of the demo codec (8, F) to latents of the demo autoencoder (F / 4, C)."""

    def __init__(self, channels: int) -> None:
        codec = codecs.load_codec("demo", "torch")
        self.books = codec.codebook_vectors()
        with as_file(files("audiogen_core") / "data" / "demo-latents.safetensors") as path:
            basis = load_file(path)
        self.axes = basis["axes"][:channels].astype(np.float32).T * basis["scale"][:channels]
        self.mean = basis["mean"]
        second = Audio(np.zeros((1, codec.info.sample_rate), np.float32), codec.info.sample_rate)
        silence = codec.encode(second).values[:, 40 : 40 + STACK]
        self.silence = self(silence)[0]

    def __call__(self, codes: NDArray[Any]) -> Floats:
        vectors: Floats = sum(book[row] for book, row in zip(self.books, codes.astype(np.int64), strict=True))
        latents: Floats = (vectors.reshape(-1, len(self.mean)) - self.mean) @ self.axes
        return latents


@dataclass(frozen=True)
class Window:
    """One row of a batch."""

    latents: Floats
    known: Floats
    ids: list[int]
    seconds: tuple[float, float]
    told: bool


class Windows:
    """Draws windows.

    Those of which nothing is given start with a bar of a piece, often its first. Others continue what is
    given, or fill a gap in it, and many of them start anywhere.
    """

    def __init__(self, corpus: Corpus, settings: Settings, seed: int) -> None:
        self.corpus, self.settings = corpus, settings
        self.project = Latents(settings.model.latent_channels)
        self.words = tokenizer()
        self.end, self.unknown = (self.words.token_to_id(name) for name in (END, UNKNOWN))
        self.draws = np.random.Generator(np.random.PCG64([5, seed]))
        self.frames = settings.model.frames

    def batch(self, count: int | None = None) -> Batch:
        return self._joined([self._window() for _ in range(count or self.settings.data.batch)])

    def held(self, count: int) -> Batch:
        """The beginnings of the first pieces, with the captions of the corpus, and nothing given."""
        rows = []
        for codes, facts in zip(self.corpus.codes[:count], self.corpus.facts, strict=False):
            latents = self.project(codes[:, : self.frames * STACK])
            ids = [*self.words.encode(facts["caption"]).ids, self.end]
            seconds = (0.0, self.frames * STACK * FRAME_SECONDS)
            rows.append(Window(latents, np.zeros(self.frames, np.float32), ids, seconds, True))
        return self._joined(rows)

    def _window(self) -> Window:
        data, draws = self.settings.data, self.draws
        index = int(draws.integers(len(self.corpus.codes)))
        facts, codes = self.corpus.facts[index], self.corpus.codes[index]
        chance, span = draws.random(), self.frames * STACK
        aligned = chance < data.first_share + data.bar_share
        step = facts["frames_per_bar"] if aligned else 1
        latest = (codes.shape[1] - span) // step
        start = 0 if chance < data.first_share else step * int(draws.integers(latest + 1))
        latents = self.project(codes[:, start : start + span])
        begin, length = start * FRAME_SECONDS, span * FRAME_SECONDS
        total = min(self.settings.model.max_seconds, float(draws.uniform(begin + length, 3 * PIECE_SECONDS)))
        if draws.random() < 0.5:
            total = begin + length
        if draws.random() < data.short_share:
            total, latents = self._ended(latents, begin)
        known = np.zeros(self.frames, np.float32)
        if not aligned or draws.random() < data.known_share:
            known = self._known()
        ids = self._ids(caption(draws, facts))
        return Window(latents, known, ids, (begin, total), bool(draws.random() >= data.no_caption))

    def _ended(self, latents: Floats, begin: float) -> tuple[float, Floats]:
        """Silence from some frame on, and the seconds of the piece that has ended there."""
        first = round(SHORTEST / FRAME_SECONDS / STACK)
        end = int(self.draws.integers(first, self.frames))
        latents = latents.copy()
        latents[end:] = self.project.silence
        return begin + end * STACK * FRAME_SECONDS, latents

    def _known(self) -> Floats:
        """1 where frames are given: before some frame, or on both sides of a gap, or after some frame."""
        draws, frames = self.draws, self.frames
        known, chance = np.zeros(frames, np.float32), draws.random()
        if chance < 0.6:
            known[: int(draws.integers(8, frames - 8))] = 1
        elif chance < 0.7:
            known[int(draws.integers(8, frames - 8)) :] = 1
        else:
            known[:] = 1
            length = int(draws.integers(8, frames * 3 // 4))
            start = int(draws.integers(frames - length + 1))
            known[start : start + length] = 0
        return known

    def _ids(self, text: str) -> list[int]:
        ids = list(self.words.encode(text).ids)[: self.settings.text.max_length - 2]
        if self.draws.random() < self.settings.data.unknown_words:
            ids.insert(int(self.draws.integers(len(ids) + 1)), self.unknown)
        return [*ids, self.end]

    def _joined(self, rows: list[Window]) -> Batch:
        length = self.settings.text.max_length
        ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in rows])
        lengths = torch.tensor([len(row.ids) for row in rows])
        return Batch(
            torch.from_numpy(np.stack([row.latents for row in rows])),
            torch.from_numpy(np.stack([row.known for row in rows])),
            ids,
            (torch.arange(length) < lengths[:, None]).float(),
            torch.tensor([row.seconds for row in rows]),
            torch.tensor([row.told for row in rows], dtype=torch.float32),
        )
