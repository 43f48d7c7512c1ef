"""Residual vector quantisation that learns its entries as running means (arXiv 1711.00937, appendix A)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from settings import Quantizing
from torch import Tensor, nn

from audiogen_core.codecs.frame import FrameConfig


class Quantizer(nn.Module):
    """Codebooks one after another, each on what the ones before left over.

    draws  the generator for starting points and for entries that start again
    """

    books: Tensor  # (K, N, D)
    counts: Tensor  # (K, N), running use of each entry
    sums: Tensor  # (K, N, D), running sums of what fell to it

    def __init__(self, config: FrameConfig, options: Quantizing, draws: torch.Generator) -> None:
        super().__init__()
        self.options = options
        self.draws = draws
        shape = (config.codebooks, config.codebook_size, config.dimension)
        self.register_buffer("books", torch.zeros(shape))
        self.register_buffer("counts", torch.ones(shape[:2]))
        self.register_buffer("sums", torch.zeros(shape))

    def forward(self, latents: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, F, D) -> the same quantised, the commitment loss, and indices (count, B * F).

        The gradient passes straight through. In training mode the entries move.
        """
        residual = latents.reshape(-1, latents.shape[-1]).float()  # (B * F, D)
        total = torch.zeros_like(residual)
        commitment = torch.zeros(())
        indices = []
        for k in range(count):
            chosen = nearest(residual.detach(), self.books[k])
            entries = self.books[k][chosen]
            commitment = commitment + F.mse_loss(residual, entries)
            indices.append(chosen)
            if self.training:
                self._move(k, chosen, residual.detach())
            residual = residual - entries
            total = total + entries
        total = total.reshape(latents.shape)
        return latents + (total - latents).detach(), commitment / count, torch.stack(indices)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """K-means on vectors (M, D), codebook after codebook."""
        for k in range(len(self.books)):
            book = x[torch.randperm(len(x), generator=self.draws)[: self.books.shape[1]]].clone()
            for _ in range(self.options.start_rounds):
                count, total = _gather(x, nearest(x, book), len(book))
                strays = x[self._draw(len(x), len(book))]
                book = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], strays)
            self._set(k, book)
            x = x - book[nearest(x, book)]

    @torch.no_grad()
    def refit(self, x: Tensor, rounds: int) -> None:
        """Rounds of k-means from the entries there are, on many vectors (M, D).

        Running means over small batches leave the entries noisy. An entry that nothing falls to starts again
        at a vector that is badly served; but none does before the last round, which only takes means.
        """
        for k in range(len(self.books)):
            book = self.books[k].clone()
            for remaining in reversed(range(rounds)):
                chosen = _nearest_in_parts(x, book)
                count, total = _gather(x, chosen, len(book))
                served = count > 0
                if remaining > 1 and not served.all():
                    error = (x - book[chosen]).square().sum(1)
                    places = torch.multinomial(error, int((~served).sum()), generator=self.draws)
                    total[~served] = x[places]
                book = torch.where(
                    (served | (remaining > 1))[:, None], total / count.clamp_min(1)[:, None], book
                )
            self._set(k, book)
            x = x - book[_nearest_in_parts(x, book)]

    def _set(self, k: int, book: Tensor) -> None:
        self.books[k] = book
        self.counts[k] = 1
        self.sums[k] = book

    @torch.no_grad()
    def _move(self, k: int, chosen: Tensor, x: Tensor) -> None:
        options, book = self.options, self.books[k]
        count, total = _gather(x, chosen, len(book))
        self.counts[k].mul_(options.decay).add_(count, alpha=1 - options.decay)
        self.sums[k].mul_(options.decay).add_(total, alpha=1 - options.decay)
        self.books[k] = self.sums[k] / self.counts[k].clamp_min(1e-5)[:, None]
        dead = self.counts[k] < options.dead
        if dead.any():
            self.books[k][dead] = x[self._draw(len(x), int(dead.sum()))]
            self.counts[k][dead] = options.revived
            self.sums[k][dead] = self.books[k][dead] * options.revived

    def _draw(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), generator=self.draws)


@torch.no_grad()
def nearest(x: Tensor, book: Tensor) -> Tensor:
    """Indices (M,) of the entries (N, D) nearest to vectors (M, D)."""
    return (x @ book.t() - 0.5 * (book * book).sum(1)).argmax(1)


def _nearest_in_parts(x: Tensor, book: Tensor) -> Tensor:
    return torch.cat([nearest(part, book) for part in torch.split(x, 8192)])


def _gather(x: Tensor, chosen: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many vectors fell to each of `size` entries, and their sums."""
    count = torch.zeros(size).index_add_(0, chosen, torch.ones(len(x)))
    total = torch.zeros(size, x.shape[1]).index_add_(0, chosen, x)
    return count, total
