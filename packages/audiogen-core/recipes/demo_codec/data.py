"""Excerpts of composed music, rendered as they are needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from settings import Phase, Refit, Settings
from torch import Tensor

from audiogen_core.compose import HELD_OUT_STYLES, compose

HELD_OUT_PIECES = 2_000_000_000
"""Seeds from here on are never trained on."""

CLIP = 48000  # samples, 2 s


class Excerpts:
    """Batches of excerpts that start on frames of the codec, from a pool of pieces renewed one by one."""

    def __init__(self, settings: Settings, source: Phase | Refit) -> None:
        self.data = settings.data
        self.hop_length = settings.codec.hop_length
        self.draws = np.random.Generator(np.random.PCG64(source.seed))
        self.next_seed = source.first_piece + self.data.pool
        self.seeds = list(range(source.first_piece, self.next_seed))
        self.pool = [self._compose(seed) for seed in self.seeds]

    def batch(self, count: int | None = None) -> Tensor:
        """Samples (count, excerpt_frames * hop_length)."""
        length = self.data.excerpt_frames * self.hop_length
        rows = []
        for _ in range(count or self.data.batch):
            piece = self.pool[self.draws.integers(len(self.pool))]
            frame = int(self.draws.integers(0, len(piece) // self.hop_length - self.data.excerpt_frames))
            start = frame * self.hop_length
            rows.append(piece[start : start + length])
        return torch.from_numpy(np.stack(rows))

    def renew(self) -> None:
        """A new piece in the place of one of the pool."""
        place = int(self.draws.integers(len(self.pool)))
        self.seeds[place] = self.next_seed
        self.pool[place] = self._compose(self.next_seed)
        self.next_seed += 1

    def state(self) -> dict[str, Any]:
        return {"draws": self.draws.bit_generator.state, "seeds": self.seeds, "next_seed": self.next_seed}

    def restore(self, state: dict[str, Any]) -> None:
        self.draws.bit_generator.state = state["draws"]
        self.seeds = list(state["seeds"])
        self.next_seed = state["next_seed"]
        self.pool = [self._compose(seed) for seed in self.seeds]

    def _compose(self, seed: int) -> NDArray[np.float32]:
        piece: NDArray[np.float32] = compose(seed, seconds=self.data.piece_seconds).audio.samples[0]
        return piece


def watched() -> dict[str, Tensor]:
    """What training is watched on: clips (n, 48000) on the frames, of other styles, and off the frames."""
    seed = HELD_OUT_PIECES
    on = [_clip(seed + i, 20, None, CLIP * (1 + i % 6)) for i in range(24)]
    other = [_clip(seed + 100 + i, 12, HELD_OUT_STYLES[i % 2], 2 * CLIP) for i in range(12)]
    off = [_clip(seed + 200 + i, 12, None, 2 * CLIP + 97) for i in range(12)]
    return {"on": _stack(on), "other styles": _stack(other), "off": _stack(off)}


def _clip(seed: int, seconds: float, style: str | None, start: int) -> NDArray[np.float32]:
    piece: NDArray[np.float32] = compose(seed, seconds=seconds, style=style).audio.samples[0]
    return piece[start : start + CLIP]


def _stack(clips: list[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(clips))
