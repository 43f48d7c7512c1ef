"""Drawing tokens from logits in numpy, for all items and codebooks of a step at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audiogen_core.musicgen.conditioning import Floats, Tokens
from audiogen_core.musicgen.draws import draws
from audiogen_core.sampling import Sampling


class Sampler:
    """Draws tokens as `sampling` says, with a random number for each codebook and step, fixed beforehand.

    seeds  one per item: what is drawn for an item does not depend on its batch
    """

    def __init__(self, sampling: Sampling, codebooks: int, seeds: Sequence[int], steps: int) -> None:
        self.sampling = sampling
        temperatures = np.array(sampling.temperatures_for(codebooks), np.float32)
        self.greedy = not temperatures.any()
        self._cold = temperatures == 0  # (K,)
        self._rates = (1 / np.where(self._cold, 1, temperatures)).astype(np.float32)[:, None]  # (K, 1)
        self._numbers = None if self.greedy else draws(seeds, steps, codebooks)

    def __call__(self, logits: Floats, step: int) -> Tokens:
        """Logits (B, K, N) -> tokens (B, K)."""
        likeliest: Tokens = logits.argmax(axis=-1).astype(np.int32)
        if self._numbers is None:
            return likeliest
        drawn = pick(filtered(logits * self._rates, self.sampling), self._numbers[step])
        chosen: Tokens = np.where(self._cold, likeliest, drawn)
        return chosen


def filtered(logits: Floats, sampling: Sampling) -> Floats:
    """Logits (..., N) -> probabilities with the unlikely ones at zero, in the order of Sampling's fields.

    They do not sum up to one. The temperature is not applied here.
    """
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = shares / shares.sum(axis=-1, keepdims=True)
    size = logits.shape[-1]
    if 0 < sampling.top_k < size:
        least = np.partition(probabilities, size - sampling.top_k, axis=-1)[..., size - sampling.top_k, None]
        probabilities = np.where(probabilities >= least, probabilities, 0)
    if 0 < sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        least = np.float32(sampling.min_p) * probabilities.max(axis=-1, keepdims=True)
        probabilities = np.where(probabilities >= least, probabilities, 0)
    return probabilities


def _nucleus(probabilities: Floats, share: float) -> Floats:
    """Keeps the likeliest until they hold `share` of the whole, the one that reaches it included."""
    falling = -np.sort(-probabilities, axis=-1)  # values alone: a third of the time of their order
    before = np.cumsum(falling, axis=-1) - falling
    whole = falling.sum(axis=-1, keepdims=True)
    count = (before <= np.float32(share) * whole).sum(axis=-1, keepdims=True)
    least = np.take_along_axis(falling, count - 1, axis=-1)
    likelier, equal = probabilities > least, probabilities == least
    missing = count - likelier.sum(axis=-1, keepdims=True)
    kept = likelier | (equal & (np.cumsum(equal, axis=-1) <= missing))  # of equals the first
    made: Floats = np.where(kept, probabilities, 0)
    return made


def pick(probabilities: Floats, numbers: Floats) -> Tokens:
    """One token of each row (..., N) by a number from [0, 1) each (...): the first to exceed that share.

    A token of probability zero is never taken, whatever the rounding.
    """
    possible = probabilities > 0
    sums = np.cumsum(probabilities, axis=-1)
    whole = np.where(possible, sums, 0).max(axis=-1, keepdims=True)
    found: Tokens = (possible & (sums > numbers[..., None] * whole)).argmax(axis=-1).astype(np.int32)
    return found
