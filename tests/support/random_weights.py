"""Weights made up on demand: whatever name and shape a model asks for, seeded by the name."""

from __future__ import annotations

import zlib

import numpy as np

from audiogen_core.weights import StoredArray, Weights


def weights_of(arrays: dict[str, np.ndarray]) -> Weights:
    """Arrays as a checkpoint that holds them."""
    return Weights(
        {
            name: StoredArray(array.shape, str(array.dtype), lambda array=array: array)
            for name, array in arrays.items()
        },
        "made up",
    )


class RandomWeights:
    """Stands in for `audiogen_core.weights.Weights`; activations stay of order one."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.taken: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        fan_in = max(1, int(np.prod(shape[1:])))
        scale = 1.0 if "codebook" in name else 1.4 / np.sqrt(fan_in)
        if len(shape) == 1:
            scale = 0.1
        self.taken[name] = (rng.standard_normal(shape) * scale).astype(dtype)
        return self.taken[name]

    def finish(self) -> None:
        return None
