"""Making codes: prefill, then draw and decode step by step, and prefill anew when the context is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiogen_core.sampling import Sampling
from audiogen_minigpt.decode import Decoder, decoder_for
from audiogen_minigpt.model import GPT

BLOCK = 32  # steps whose random numbers are drawn at once

SINGLE_THREAD_LIMIT = 30_000_000
"""Models with fewer weights than this decode faster on one thread of a CPU than on several."""

Ints = NDArray[np.int64]


def continue_codes(
    model: GPT,
    opening: Ints,
    frames: int,
    seeds: Sequence[int],
    sampling: Sampling,
    block: int | None = None,
) -> Iterator[Ints]:
    """What a model in eval mode goes on with after an opening: codes (B, n, K), a row for each seed.

    opening  codes (P, K); an empty one begins from nothing
    frames   how many frames are to follow
    block    frames handed on at a time; None is all at once

    A row depends on its own seed alone, and longer continuations begin with the codes of shorter ones.
    """
    layout = model.layout
    known = opening if len(opening) else np.full((1, layout.codebooks), layout.codebook_size)  # a BOS frame
    sampler = Sampler(
        sampling,
        layout.codebooks,
        layout.codebook_size,
        seeds,
        cycle=layout.name == "flatten",
        device=model.wte.weight.device,
    )
    start = torch.from_numpy(np.ascontiguousarray(known, np.int64)).expand(len(seeds), -1, -1)
    for codes in Rollout(model, start, frames, sampler).blocks(block or frames):
        yield codes.cpu().numpy()


class Rollout:
    """One batch of clips in the making.

    model    in eval mode
    opening  codes (B, P, K) the clips begin with, P >= 1; a BOS frame where they begin from nothing
    frames   how many frames are to follow
    sampler  draws the codes; its rows are those of the batch

    Given the same opening and seeds, the codes of a longer rollout begin with those of a shorter one.
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


class Sampler:
    """Draws the tokens of a batch, one step at a time.

    The random numbers of a row come from a generator of its own and depend on nothing but its seed and the
    number of the step, so a row is drawn alike whatever else is in the batch.

    options    the filters; its seed is not looked at
    codebooks  Q, the tokens of one step; or with `cycle` the codebooks that take turns, one a step
    size       N, codes in one codebook
    seeds      one of each row
    """

    def __init__(
        self,
        options: Sampling,
        codebooks: int,
        size: int,
        seeds: Sequence[int],
        *,
        cycle: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options = options
        device = torch.device(device)
        heat = torch.tensor(options.temperatures_for(codebooks), device=device).unsqueeze(-1)  # (Q, 1)
        self._greedy = heat == 0
        self._heat = torch.where(self._greedy, 1.0, heat)
        self._draws = not bool(self._greedy.all())
        self._some_greedy = bool(self._greedy.any())
        self._cycle = codebooks if cycle else 0
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._shape = (BLOCK, 1 if cycle else codebooks, size)
        self._noise = torch.empty(len(seeds), *self._shape if self._draws else (0,), device=device)
        self._step = 0

    def draw(self, logits: Tensor) -> Tensor:
        """Logits (B, Q, N) of the next step -> codes (B, Q), int64.

        argmax(p / e) with e from an exponential distribution draws from p without a copy to the host.
        """
        turn = self._step % self._cycle if self._cycle else 0
        rows = slice(turn, turn + 1) if self._cycle else slice(None)
        noise = self._next_noise()
        if noise is None:
            return logits.argmax(dim=-1)
        chances = filtered(logits.float() / self._heat[rows], self.options)
        drawn = chances.div_(noise).argmax(dim=-1)
        if not self._some_greedy:
            return drawn
        return torch.where(self._greedy[rows, 0], logits.argmax(dim=-1), drawn)

    def _next_noise(self) -> Tensor | None:
        """Numbers (B, Q, N) from an exponential distribution; -log of uniform ones is the fastest way."""
        at = self._step % BLOCK
        self._step += 1
        if not self._draws:
            return None
        if at == 0:
            for row, generator in zip(self._noise, self._generators, strict=True):
                row.uniform_(generator=generator).log_().neg_()
        return self._noise[:, at]


def filtered(logits: Tensor, options: Sampling) -> Tensor:
    """The chances of each code after top-k, top-p and min-p, in this order; they need not sum to 1.

    logits  (..., N), divided by the temperature
    """
    if 0 < options.top_k < logits.shape[-1]:
        least = logits.topk(options.top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits < least, float("-inf"))
    chances = logits.softmax(dim=-1)
    if 0 < options.top_p < 1:
        ordered, order = chances.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        kept = torch.where(before < options.top_p, ordered, 0.0)
        chances = torch.zeros_like(chances).scatter(-1, order, kept)
    if options.min_p > 0:
        chances = chances * (chances >= options.min_p * chances.amax(dim=-1, keepdim=True))
    return chances


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
