"""Where a vector stands in a sequence, as waves that are added to it (arXiv 1706.03762)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_PERIOD = 10_000.0
"""Of the waves that say where a vector stands, in steps (divided by 2 pi)."""


def positions(count: int, width: int, clock: Sequence[float] = ()) -> NDArray[np.float32]:
    """What is added for where a vector stands: (count, width), cosines of falling frequencies, then sines.

    Angles are float32 products, as in the originals, which shows in the fourth digit far along.

    clock  periods in steps of waves that take the place of as many of the slowest
    """
    angles = np.arange(count, dtype=np.float32)[:, None] * speeds(width)
    for place, period in enumerate(clock, width // 2 - len(clock)):
        angles[:, place] = 2 * math.pi * (np.arange(count) % period) / period
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def speeds(width: int) -> NDArray[np.float32]:
    """Radians by which each wave goes on from step to step: (width / 2,)."""
    half = width // 2
    steps = np.arange(half, dtype=np.float32)
    made: NDArray[np.float32] = np.exp(steps * np.float32(-math.log(LONGEST_PERIOD) / max(1, half - 1)))
    return made
