"""What a model is trained and judged on: windows of the data, as tensors, for this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiogen_core.errors import CodesError
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.dataset import Dataset
from audiogen_minigpt.facts import from_meta
from audiogen_minigpt.layout import Layout
from audiogen_minigpt.ranks import Ranks


class Windows:
    """Windows of a folder of codes, for a model of one shape.

    facts       the codec and geometry of the data; see `facts.FACTS`
    frames      length of a window, so that a model's context is filled
    frame_rate  Hz
    train, val  the data; val is None where no track is held out

    Raises CodesError when the data is damaged or there is nothing to train on.
    """

    def __init__(self, data: str | Path, model: ModelConfig) -> None:
        self.train = Dataset.open(data, split="train", codebooks=model.codebooks)
        if not self.train.frames:
            raise CodesError(f"{data}: there is nothing to train on; encode more audio into it")
        val = Dataset.open(data, split="val", codebooks=model.codebooks)
        self.val = val if val.frames else None
        self.frames = Layout.from_config(model).window(model.context)
        self.facts = from_meta(self.train.meta)
        self.frame_rate = self.train.meta.frame_rate
        self._fixed: NDArray[np.int64] | None = None

    def train_batch(self, step: int, batch: int, seed: int, ranks: Ranks) -> Tensor:
        """This process's rows of the batch of a step: int64 (batch / world, frames, K).

        A pure function of the seed and the step; all processes' rows together are one batch.
        """
        rows = self.train.batch(
            step, batch_size=batch, context=self.frames, seed=seed, rank=ranks.rank, world=ranks.world
        )
        return torch.from_numpy(rows)

    def val_batches(self, batch: int, limit: int, ranks: Ranks) -> Iterator[Tensor]:
        """The fixed validation windows, at most `limit`, shared out over the processes in equal batches.

        Where they do not come out even, windows of BOS frames fill up: they hold no target.
        """
        if self.val is None:
            return
        if self._fixed is None:
            self._fixed = self.val.fixed(self.frames, limit)
        missing = -len(self._fixed) % ranks.world
        empty = np.full((missing, *self._fixed.shape[1:]), self.train.meta.codebook_size, np.int64)
        mine = torch.from_numpy(np.concatenate([self._fixed, empty])[ranks.rank :: ranks.world])
        rows = max(1, batch // ranks.world)
        for start in range(0, len(mine), rows):
            yield mine[start : start + rows]

    def opening(self, frames: int) -> NDArray[np.int64]:
        """The first frames of the first validation track, or else training track: int64 (n <= frames, K)."""
        data = self.val or self.train
        return data.read(1, min(frames, data.tracks[0].frames))
