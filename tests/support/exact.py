"""What a codec makes in float64, and how near each of its codes was to another.

A code is the entry of a codebook that lies nearest to a vector. Its margin is how far that vector would have
to move for another entry to be nearer, as a share of the frame's latent (of DAC's, of the projected vector).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.layers import ProjectedQuantizer, ResidualQuantizer
from audiogen_core.ops import Lstm, LstmLayer
from audiogen_core.ops.torch_ops import TorchOps

Codes = NDArray[np.int32]  # (K, F)
Floats = NDArray[np.float64]


class ExactOps(TorchOps):
    """The verbs in float64: the truth that adapters are measured by."""

    name = "exact"

    def signal(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64)

    def numpy(self, signal: torch.Tensor) -> NDArray[Any]:
        return signal.numpy()

    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm:
        made: Any = super().lstm(layers)
        made.module.double()
        return made


def coded(codec: Codec, audio: Audio) -> tuple[Codes, Floats]:
    """The codes (K, F) of a clip and their margins, by a codec over `ExactOps`."""
    assert isinstance(codec.ops, ExactOps)
    measured = _Measured(codec._quantizer)
    codec._quantizer = measured  # type: ignore[assignment]
    codes = codec.encode(audio).values
    codec._quantizer = measured.quantizer
    return codes, np.concatenate(measured.margins, axis=1)


def strays(made: Codes, codes: Codes, margins: Floats) -> Floats:
    """The margins at which `made` leaves the exact codes: of each frame the first, as the rest follow it."""
    first = (made != codes).argmax(axis=0)
    frames = np.flatnonzero((made != codes).any(axis=0))
    return margins[first[frames], frames]


class _Measured:
    """A quantiser that keeps the margins (K, frames) of what it chose."""

    def __init__(self, quantizer: Any) -> None:
        self.quantizer = quantizer
        self.margins: list[Floats] = []

    def encode(self, x: torch.Tensor, count: int) -> list[torch.Tensor]:
        steps = _projected if isinstance(self.quantizer, ProjectedQuantizer) else _residual
        indices, margins = zip(*steps(self.quantizer, x, count), strict=True)
        self.margins.append(torch.stack(margins).reshape(count, -1).numpy())
        return list(indices)


Chosen = Iterator[tuple[torch.Tensor, torch.Tensor]]  # (B, F) of each codebook: indices and margins


def _residual(quantizer: ResidualQuantizer, x: torch.Tensor, count: int) -> Chosen:
    length = x.norm(dim=1)
    for book in quantizer.codebooks[:count]:
        indices, far = _nearest(x, book[0])
        yield indices, far / length
        x = x - quantizer.ops.lookup(indices, book)


def _projected(quantizer: ProjectedQuantizer, x: torch.Tensor, count: int) -> Chosen:
    for (small, chosen), book in zip(quantizer.steps(x, count), quantizer.books, strict=False):
        indices, far = _nearest(quantizer.ops.unit(small), book.directions[0])
        assert torch.equal(indices, chosen)
        yield indices, far


def _nearest(x: torch.Tensor, book: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of x (B, D, F): the nearest entry (B, F), and the distance to the border with any other."""
    scores = x.transpose(1, 2) @ book.T - 0.5 * (book * book).sum(dim=1)  # (B, F, N)
    best, indices = scores.max(dim=-1, keepdim=True)
    apart = torch.cdist(book, book)[indices[..., 0]]  # (B, F, N)
    borders = ((best - scores) / apart).scatter(-1, indices, torch.inf)  # none with the entry itself
    return indices[..., 0], borders.amin(dim=-1)
