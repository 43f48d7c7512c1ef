"""The random numbers tokens are drawn by: the same in every framework, and whatever else is in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LEVELS = 1 << 23
"""Random numbers are multiples of one over this, so that with rounding they stay below 1."""


def draws(seeds: Sequence[int], steps: int, codebooks: int) -> NDArray[np.float32]:
    """Numbers from [0, 1) for a clip of each seed: (steps, B, K).

    A token is the first whose probability, with those of all before it, exceeds its number.
    """
    drawn = [
        np.random.default_rng(seed).integers(_LEVELS, size=(steps, codebooks), dtype=np.uint32)
        for seed in seeds
    ]
    return np.stack(drawn, axis=1).astype(np.float32) / np.float32(_LEVELS)
