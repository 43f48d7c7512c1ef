"""MusicGen models of any size whose weights are made up on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core.musicgen.conditioning import Rows, combined
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.generate import _WindowRun
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.load import Parts, load_transformer
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.musicgen.sampling import Sampler

SMALL = Config(
    width=1024,
    layers=24,
    heads=16,
    hidden=4096,
    codebooks=4,
    codebook_size=2048,
    delays=(0, 1, 2, 3),
    channels=1,
    text_width=768,
)

TINY = replace(SMALL, width=64, layers=2, heads=2, hidden=128, codebook_size=16, text_width=32)
"""Costs nothing, and is wide enough to be quantised."""


class RandomTable:
    """Stands in for `Weights`: any tensor that is asked for, of activations of order one."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def check(self, shapes: Mapping[str, Any]) -> None:
        return None

    def finish(self, ignore: object = ()) -> None:
        return None

    def take(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype)
        drawn = self.rng.random(shape, dtype=np.float32)
        drawn -= 0.5
        drawn *= 2.0 / np.sqrt(shape[1])
        return drawn


def transformer(config: Config, **options: Any) -> Transformer:
    """A transformer of that geometry. `options` are those of `load_transformer`."""
    return load_transformer(RandomTable(), config, "audiogen", **options)


class WindowRuns:
    """The loop of generating, of one clip with guidance, around a transformer of random weights.

    text  (1, L, width), what the guided row attends to
    """

    def __init__(self, config: Config, text: mx.array, scale: float, top_k: int) -> None:
        self.config, self.text = config, text
        self.transformer = transformer(config)
        self.sampling = Sampling(top_k=top_k)
        self._parts: Any = SimpleNamespace(
            transformer=self.transformer, files=SimpleNamespace(folder="random weights")
        )
        self._conditioner: Any = SimpleNamespace(
            groups=["all", "other"], join=lambda logits: combined(logits, scale)
        )

    def blocks(self, frames: int, prompt: int = 0) -> Iterator[np.ndarray]:
        """Codes of a clip of so many frames, of which the first are given, as they are made."""
        rng = np.random.default_rng(0)
        shape = (1, self.config.codebooks, prompt)
        known = rng.integers(self.config.codebook_size, size=shape, dtype=np.int32)
        sampler = Sampler(self.sampling, self.config.codebooks, [0], frames + max(self.config.delays))
        run = _WindowRun(self.config.delays, self.config.special, known, frames)
        rows = Rows(2, text=self.text)
        with closing(
            Parts.steps(self._parts, rows, run.tokens, run.first, self._conditioner, sampler, 0)
        ) as columns:
            yield from run.blocks(columns)

    def run(self, frames: int) -> None:
        for _ in self.blocks(frames):
            pass
