"""A coarse or fine network as the sampling sees it: codes in, logits out, and its geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.errors import CodesError
from audiogen_onnx.manifest import CodecGeometry, NetworkGeometry
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.draw import Float, Int

WIDEST = 1024
"""Frames of a window, at most, unless more was asked for: the memory of attention grows with the square.

VampNet's own windows have 575 and 173.
"""


@dataclass(frozen=True, eq=False)
class Network:
    """One of VampNet's two networks.

    name            for messages
    run             int64 codes (B, K, F), masked places holding the codebook size -> float32 logits
                    (B, P, F, N)
    codebooks       K, the rows it reads
    conditioning_codebooks  the first rows, which it never makes; P = K minus this
    codebook_size   N
    window          frames it was trained on: what lies further apart it cannot relate
    """

    name: str
    run: Callable[[Int], NDArray[Any]]
    codebooks: int
    conditioning_codebooks: int
    codebook_size: int
    window: int

    def logits(self, codes: ArrayLike) -> Float:
        """Codes (K, F) or (B, K, F) -> float32 logits (P, F, N) or (B, P, F, N).

        A place to be generated holds the codebook size. Raises CodesError when the codes do not fit.
        """
        values = np.asarray(codes)
        if values.ndim not in (2, 3) or values.shape[-2] != self.codebooks or values.size == 0:
            raise CodesError(
                f"the {self.name} model reads codes (..., {self.codebooks}, frames), got {values.shape}"
            )
        if not np.issubdtype(values.dtype, np.integer):
            raise CodesError(f"codes must be integers, got {values.dtype}")
        if values.min() < 0 or values.max() > self.codebook_size:
            raise CodesError(
                f"codes must lie in [0, {self.codebook_size}), or be {self.codebook_size} where they are to "
                f"be generated; got {values.min()} to {values.max()}"
            )
        batched = values.reshape(-1, *values.shape[-2:]).astype(np.int64, copy=False)
        logits = np.asarray(self.run(batched), np.float32)
        return logits.reshape(*values.shape[:-2], *logits.shape[1:])


def network_of(name: str, facts: NetworkGeometry, codec: CodecGeometry, session: Session) -> Network:
    """A network of an exported folder."""

    def run(codes: Int) -> NDArray[Any]:
        return session.run({"codes": codes})["logits"]

    return Network(
        name,
        run,
        facts.codebooks,
        facts.conditioning_codebooks,
        codec.codebook_size,
        min(codec.frames(facts.window_seconds), WIDEST),
    )
