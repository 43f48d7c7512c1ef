"""The original's way through a clip, quirks and all, so that its recorded outputs can be reproduced.

Source: hugofloresgarcia/vampnet, vampnet/interface.py. The quirks, none of which the default has:
chunks that know nothing of each other; the first and last frame of a chunk kept; a fine model that always
takes two steps at temperature 1 and whose last chunk is filled up with code 0; the same mask at every
feedback step; the same random numbers in every coarse chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.progress import counted
from audiogen_onnx.vampnet.draw import Filters, Int
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.sampling import Bools, FillOptions, OnStep, fill_scored

FINE = FillOptions(steps=2, filters=Filters(), compat="upstream")
"""What the original's fine model is run with, whatever was asked for."""


@dataclass(frozen=True, eq=False)
class UpstreamVamp:
    """One job of the original.

    coarse, fine    the networks; their windows are the lengths of its chunks
    options         of the coarse model
    feedback_steps  how often the coarse model goes over the clip
    """

    coarse: Network
    fine: Network
    options: FillOptions
    feedback_steps: int = 1

    def run(
        self, codes: Int, mask: Bools, noise: Noise | int, on_step: OnStep | None = None
    ) -> tuple[Int, Int]:
        """Codes (B, K, F) with the masked places made, and the same with the codebook size there, as the
        model saw them.

        noise  one source for everything, or a seed, from which every coarse chunk starts anew
        """
        add = counted(on_step, self.steps(codes.shape[-1]))

        def step(*_: float) -> None:  # each chunk counts its own steps; here they are steps of the whole
            add(1)

        renew: Callable[[], Noise] = (lambda: SeededNoise(noise)) if isinstance(noise, int) else lambda: noise
        source, masked = renew(), codes
        for _ in range(self.feedback_steps):
            parts, seen = [], []
            for rows in _chunks(codes.shape[-1], self.coarse.window):
                source = renew()
                new, shown = self._coarse(codes[..., rows], mask[..., rows], source, step)
                parts.append(new)
                seen.append(shown)
            codes, masked = np.concatenate(parts, axis=-1), np.concatenate(seen, axis=-1)
        return self._fine(codes, mask, source, step), self._shown(masked, mask)

    def _coarse(self, codes: Int, mask: Bools, noise: Noise, step: OnStep) -> tuple[Int, Int]:
        rows, size = self.coarse.codebooks, self.coarse.codebook_size
        chosen = mask[:, :rows].copy()
        if not chosen.all():
            chosen[..., [0, -1]] = False
        new = codes.copy()
        new[:, :rows] = fill_scored(
            codes[:, :rows],
            chosen,
            self.coarse.logits,
            self.options,
            noise=noise,
            on_step=step,
            codebook_size=size,
        ).codes
        shown = codes.copy()
        shown[:, :rows][chosen] = size
        return new, shown

    def _fine(self, codes: Int, mask: Bools, noise: Noise, step: OnStep) -> Int:
        frames, window, rows = codes.shape[-1], self.fine.window, self.fine.codebooks
        missing = ((0, 0), (0, rows - codes.shape[1]), (0, -frames % window))
        codes = np.pad(codes, missing)
        mask = np.pad(mask, missing, constant_values=True)
        mask[:, : self.fine.conditioning_codebooks] = False
        parts = [
            fill_scored(
                codes[..., part],
                mask[..., part],
                self.fine.logits,
                FINE,
                noise=noise,
                conditioning_codebooks=self.fine.conditioning_codebooks,
                on_step=step,
                codebook_size=self.fine.codebook_size,
            ).codes
            for part in _chunks(codes.shape[-1], window)
        ]
        return np.concatenate(parts, axis=-1)[..., :frames]

    def _shown(self, masked: Int, mask: Bools) -> Int:
        """What was masked for the coarse model, and for the fine one in the rows that it makes."""
        first = self.fine.conditioning_codebooks
        rows = np.arange(masked.shape[1])[:, None]
        return np.where(mask & (rows >= first), self.fine.codebook_size, masked)

    def steps(self, frames: int) -> int:
        """How many calls of the networks a clip takes."""
        coarse = len(list(_chunks(frames, self.coarse.window))) * self.options.steps * self.feedback_steps
        return coarse + len(list(_chunks(frames, self.fine.window))) * FINE.steps


def _chunks(frames: int, size: int) -> Iterator[slice]:
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))
