"""Where randomness comes from: numpy generators, one for each item of a batch, or arrays recorded elsewhere.

The first axis of every shape is the batch. Random numbers are made by numpy on the host, so they are the
same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.errors import OptionError
from audiogen_core.values import admitted, closed

Float = NDArray[np.float32]
Shape = Sequence[int]

ITEMS = 9999
"""Items of the largest batch, each with a generator of its own."""

LARGEST = 1 << 27
"""Numbers that are drawn at once."""

SMALLEST = np.float32(2.0**-27)
"""What exponential noise is at least. Numpy's is 0 once in eight million draws in float32, and tokens are
drawn as the largest of probability / noise: there 0 / 0 would win for one that was ruled out.
"""


class Noise(Protocol):
    """A source of random numbers: float32 arrays of a shape (B, ...)."""

    def normal(self, shape: Shape) -> Float: ...  # mean 0, variance 1
    def uniform(self, shape: Shape) -> Float: ...  # in [0, 1)
    def exponential(self, shape: Shape) -> Float: ...  # mean 1, above 0


class SeededNoise:
    """Random numbers from a seed.

    Item i of a batch has a generator of its own, seeded with `seed + i`: it gets the numbers that it would
    get alone with that seed, whatever else is in the batch.

    Raises OptionError when the seed is negative.
    """

    @closed()
    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise OptionError(f"seed must be 0 or more, got {seed}")
        self.seed = seed
        self._generators: list[np.random.Generator] = []

    @closed()
    def normal(self, shape: Shape) -> Float:
        return self._draw(shape, lambda item, of: item.standard_normal(of, dtype=np.float32))

    @closed()
    def uniform(self, shape: Shape) -> Float:
        return self._draw(shape, lambda item, of: item.random(of, dtype=np.float32))

    @closed()
    def exponential(self, shape: Shape) -> Float:
        drawn = self._draw(shape, lambda item, of: item.standard_exponential(of, dtype=np.float32))
        return np.maximum(drawn, SMALLEST, out=drawn)

    def _draw(self, shape: Shape, draw: Callable[[np.random.Generator, tuple[int, ...]], Float]) -> Float:
        if not shape or min(shape) < 0 or shape[0] > ITEMS or math.prod(shape) > LARGEST:
            raise OptionError(
                f"noise has a shape (items, ...) of at most {ITEMS} items and {LARGEST} numbers, got {shape}"
            )
        items, *rest = shape
        for index in range(len(self._generators), items):
            self._generators.append(np.random.default_rng(self.seed + index))
        out = np.empty(tuple(shape), np.float32)
        for index in range(items):
            out[index] = draw(self._generators[index], tuple(rest))
        return out


class RecordedNoise:
    """Arrays handed out in the order given, whatever kind is asked for: another program's draws, replayed.

    Raises OptionError when an array has another shape than the one asked for, or none is left.
    """

    @closed()
    def __init__(self, arrays: Iterable[ArrayLike]) -> None:
        self._arrays: list[Float] = [
            admitted("an array of recorded noise", NDArray[Any], one).astype(np.float32)
            for one in admitted("recorded noise", tuple[Any, ...], arrays)
        ]
        self._next = 0

    @closed()
    def normal(self, shape: Shape) -> Float:
        return self._hand_out(shape)

    @closed()
    def uniform(self, shape: Shape) -> Float:
        return self._hand_out(shape)

    @closed()
    def exponential(self, shape: Shape) -> Float:
        return np.maximum(self._hand_out(shape), SMALLEST)

    @property
    def left(self) -> int:
        """How many arrays have not been asked for."""
        return len(self._arrays) - self._next

    def _hand_out(self, shape: Shape) -> Float:
        if not self.left:
            raise OptionError(
                f"the recorded noise has {len(self._arrays)} arrays; one more, {tuple(shape)}, is asked for"
            )
        array = self._arrays[self._next]
        if array.shape != tuple(shape):
            raise OptionError(
                f"recorded noise: array {self._next} has shape {array.shape}, but {tuple(shape)} is asked for"
            )
        self._next += 1
        return array
