"""What a codec's network makes in float64, and how near each of its choices was to another.

A code is the entry of a codebook that lies nearest to a vector. Its margin is how far that vector would have
to move for another entry to be nearer, in lengths of the frame's latent: float32 may move it by a few 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core.codec import Codec
from audiogen_core.layers import ProjectedQuantizer, whole
from audiogen_core.ops import Lstm, LstmLayer
from audiogen_core.ops.torch_ops import TorchOps

Codes = NDArray[np.int64]  # (K, F)
Floats = NDArray[np.float64]


class ExactOps(TorchOps):
    """The verbs in float64: the truth that adapters are measured by."""

    name = "exact"

    def signal(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64)

    def numpy(self, signal: torch.Tensor) -> NDArray[Any]:
        return signal.numpy()

    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm:
        made = super().lstm(layers)
        made.module.double()  # type: ignore[attr-defined]
        return made


def coded(codec: Codec, chunks: NDArray[Any]) -> tuple[Codes, Floats]:
    """Codes (K, F) of chunks (B, C, T), one after another, and their margins, by a codec over `ExactOps`."""
    latents = whole(codec.ops, codec._encoder, codec.ops.signal(chunks))
    count = codec.info.codebooks
    steps = _projected(codec, latents) if isinstance(codec._quantizer, ProjectedQuantizer) else None
    pairs = list(steps or _residual(codec, latents))
    assert len(pairs) == count
    codes, margins = (np.stack([pair[part] for pair in pairs]) for part in (0, 1))
    return codes.reshape(count, -1), margins.reshape(count, -1)


def _residual(codec: Codec, x: torch.Tensor) -> Iterator[tuple[Codes, Floats]]:
    length = x.norm(dim=1)
    for book in codec._quantizer.codebooks:  # type: ignore[attr-defined]
        indices, far = _nearest(x, book[0])
        yield indices.numpy(), (far / length).numpy()
        x = x - codec.ops.lookup(indices, book)


def _projected(codec: Codec, x: torch.Tensor) -> Iterator[tuple[Codes, Floats]]:
    quantizer: Any = codec._quantizer
    for (small, chosen), book in zip(quantizer.steps(x, codec.info.codebooks), quantizer.books, strict=True):
        indices, far = _nearest(codec.ops.unit(small), book.directions[0])
        assert torch.equal(indices, chosen)
        yield indices.numpy(), far.numpy()


def _nearest(x: torch.Tensor, book: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of x (B, D, F): the nearest entry (B, F), and the distance to the border with any other."""
    scores = x.transpose(1, 2) @ book.T - 0.5 * (book * book).sum(dim=1)  # (B, F, N)
    best, indices = scores.max(dim=-1, keepdim=True)
    apart = torch.cdist(book, book)[indices[..., 0]]  # (B, F, N), 0 for the entry itself
    borders = ((best - scores) / apart).masked_fill(apart == 0, torch.inf)
    return indices[..., 0], borders.amin(dim=-1)


def strays(made: Codes, codes: Codes, margins: Floats) -> Floats:
    """The margins at which `made` leaves the exact codes: of each frame the first, as the rest follow it."""
    first = (made != codes).argmax(axis=0)
    frames = np.flatnonzero((made != codes).any(axis=0))
    return margins[first[frames], frames]
