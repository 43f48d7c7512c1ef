"""Residual vector quantisation: each codebook codes what the ones before it left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from audiogen_core.ops import Float, Indices, Ops, Signal


class Quantizer(Protocol):
    """Signals to indices (B, F), one per codebook, and back."""

    def encode(self, x: Signal, count: int) -> list[Indices]: ...

    def decode(self, codes: Sequence[Indices]) -> Signal: ...


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


class ProjectedCodebook(NamedTuple):
    """A codebook in a space of few dimensions d, with the way there and back. Torch's layouts."""

    entries: Float  # (N, d)
    in_weight: Float  # (d, D, 1)
    in_bias: Float  # (d,)
    out_weight: Float  # (D, d, 1)
    out_bias: Float  # (D,)


class ProjectedQuantizer:
    """Nearest entries by angle, each codebook in a small space of its own (arXiv 2306.06546, section 3.2).

    What is compared is scaled to length one; what is added up are the entries as they are, projected back.
    """

    def __init__(self, ops: Ops, codebooks: Sequence[ProjectedCodebook]) -> None:
        self.ops = ops
        self.books = [_Adopted(ops, book) for book in codebooks]

    def encode(self, x: Signal, count: int) -> list[Indices]:
        """A signal of D channels -> the indices (B, F) in each of the first `count` codebooks."""
        return [indices for _, indices in self.steps(x, count)]

    def steps(self, x: Signal, count: int) -> Iterator[tuple[Signal, Indices]]:
        """Of each codebook in turn, what it saw (a signal of d channels) and what it chose."""
        for book in self.books[:count]:
            small = self.ops.conv(x, book.in_weight, book.in_bias)
            indices = book.nearest(small)
            yield small, indices
            x = x - book.decode(indices)

    def decode(self, codes: Sequence[Indices]) -> Signal:
        """The sum of the chosen entries, projected back: a signal of D channels."""
        total = self.books[0].decode(codes[0])
        for indices, book in zip(codes[1:], self.books[1:], strict=False):
            total = total + book.decode(indices)
        return total


class _Adopted:
    """A projected codebook in the adapter's hands."""

    def __init__(self, ops: Ops, book: ProjectedCodebook) -> None:
        self.ops = ops
        self.width = book.entries.shape[1]
        self.entries = ops.codebook(book.entries)
        directions = ops.numpy(ops.unit(ops.signal(book.entries.T[None])))[0].T
        self.directions = ops.codebook(directions)
        self.in_weight = ops.conv_weight(book.in_weight)
        self.in_bias = ops.vector(book.in_bias)
        self.out_weight = ops.conv_weight(book.out_weight)
        self.out_bias = ops.vector(book.out_bias)

    def nearest(self, small: Signal) -> Indices:
        return self.ops.nearest(self.ops.unit(small), self.directions)

    def decode(self, indices: Indices) -> Signal:
        return self.ops.conv(self.ops.lookup(indices, self.entries), self.out_weight, self.out_bias)
