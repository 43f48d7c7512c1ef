"""The loop that makes codes: prefill, then draw and decode step by step, anew when the context is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from audiogen_minigpt.decode import Decoder, decoder_for
from audiogen_minigpt.model import GPT
from audiogen_minigpt.sample import Sampler

SINGLE_THREAD_LIMIT = 30_000_000
"""Models with fewer weights than this decode faster on one thread of a CPU than on several."""


class Rollout:
    """One batch of clips in the making.

    model    in eval mode
    opening  codes (B, P, K) the clips begin with, P >= 1; a BOS frame where they begin from nothing
    frames   how many frames are to follow
    sampler  draws the codes; its rows are those of the batch

    Given the same opening and seeds, a longer rollout begins like a shorter one.
    """

    def __init__(self, model: GPT, opening: Tensor, frames: int, sampler: Sampler) -> None:
        self.layout = layout = model.layout
        self.context = model.config.context
        self.sampler = sampler
        self.opening = opening.shape[1]
        self.frames = frames
        device = model.wte.weight.device
        known = layout.tokens(opening.to(device))
        self.first = self.opening * layout.steps_per_frame  # the first step with something to draw
        steps = layout.steps(self.opening + frames)
        self.decoder: Decoder = decoder_for(model, opening.shape[0], steps)
        self.tokens = known.new_full((opening.shape[0], steps, layout.streams), layout.special)
        self.tokens[:, : known.shape[1]] = known
        self.threads = 1 if model.parameter_count() < SINGLE_THREAD_LIMIT else None

    def blocks(self, size: int) -> Iterator[Tensor]:
        """The new codes (B, up to `size` frames, K), as they become whole."""
        layout, late = self.layout, max(self.layout.delays)
        logits: Tensor | None = None
        step = self.first
        for start in range(self.opening, self.opening + self.frames, size):
            stop = min(start + size, self.opening + self.frames)
            with torch.inference_mode(), limited_threads(self.threads):
                while step < layout.steps(stop):
                    logits = self._next_logits(step, logits)
                    self._draw(step, logits)
                    step += 1
                first = start * layout.steps_per_frame
                codes = layout.undo(self.tokens[:, first : stop * layout.steps_per_frame + late])
            yield codes

    def _next_logits(self, step: int, logits: Tensor | None) -> Tensor:
        """The logits of a step, all steps before it being known."""
        if logits is not None and self.decoder.position < self.context:
            return self.decoder.step(self.tokens[:, step - 1])
        return self.decoder.prefill(self.layout.crop(self.tokens[:, :step], self._window(step, logits)))

    def _window(self, step: int, logits: Tensor | None) -> int:
        """Where the model's view begins: as far back as fits at first, half the context when it is full."""
        if logits is None and step <= self.context:
            return 0
        each = self.layout.steps_per_frame
        return -(-(step - self.context // 2) // each) * each

    def _draw(self, step: int, logits: Tensor) -> None:
        """Put the codes drawn from logits (B, Q, N) into the tokens, but for those the opening gives."""
        layout = self.layout
        drawn = self.sampler.draw(logits)
        if layout.name == "flatten":
            self.tokens[:, step] = drawn + step % layout.codebooks * layout.codebook_size
            return
        new = sum(step - late >= self.opening for late in layout.delays)  # streams past the opening
        self.tokens[:, step, :new] = drawn[:, :new]


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Torch's threads limited to `count` on a CPU for the length of a with block; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(min(count, before))
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
