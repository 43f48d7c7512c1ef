"""Residual vector quantisation: each codebook codes what the ones before it left over."""

from __future__ import annotations

from collections.abc import Sequence

from audiogen_core.ops import Float, Indices, Ops, Signal


class ResidualQuantizer:
    """Nearest entries by Euclidean distance, codebook after codebook (arXiv 2107.03312).

    codebooks  one float32 (N, D) array per codebook
    """

    def __init__(self, ops: Ops, codebooks: Sequence[Float]) -> None:
        self.ops = ops
        self.codebooks = [ops.codebook(book) for book in codebooks]

    def encode(self, x: Signal, count: int) -> list[Indices]:
        """A signal of D channels -> the indices (B, F) in each of the first `count` codebooks."""
        codes = []
        for book in self.codebooks[:count]:
            codes.append(self.ops.nearest(x, book))
            x = x - self.ops.lookup(codes[-1], book)
        return codes

    def decode(self, codes: Sequence[Indices]) -> Signal:
        """The sum of the chosen entries: a signal of D channels."""
        total = self.ops.lookup(codes[0], self.codebooks[0])
        for indices, book in zip(codes[1:], self.codebooks[1:], strict=False):
            total = total + self.ops.lookup(indices, book)
        return total
