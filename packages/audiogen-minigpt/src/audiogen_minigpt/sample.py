"""Drawing tokens from logits, row by row from seeds of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiogen_core.sampling import Sampling

BLOCK = 32  # steps whose random numbers are drawn at once


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
