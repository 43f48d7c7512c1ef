"""Drawing tokens from logits, for all items and codebooks of a step at once."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from audiogen_core.musicgen.draws import draws
from audiogen_core.sampling import Sampling


class Sampler:
    """Draws tokens as `sampling` says, with a random number for each codebook and step, fixed beforehand.

    seeds  one per item: what is drawn for an item does not depend on its batch, nor on the device
    """

    def __init__(self, sampling: Sampling, codebooks: int, seeds: Sequence[int], steps: int) -> None:
        self.sampling = sampling
        temperatures = sampling.temperatures_for(codebooks)
        self.greedy = not any(temperatures)
        self._cold = mx.array([[value == 0] for value in temperatures])  # (K, 1)
        self._rates = mx.array([[1 / value if value else 1.0] for value in temperatures], mx.float32)
        self._mixed = not all(temperatures)
        if not self.greedy:
            self._numbers = mx.array(draws(seeds, steps, codebooks))

    def __call__(self, logits: mx.array, step: int) -> mx.array:
        """Logits (B, K, N) -> tokens (B, K)."""
        likeliest = mx.argmax(logits, axis=-1)
        if self.greedy:
            return likeliest
        drawn = pick(filtered(logits * self._rates, self.sampling), self._numbers[step])
        return mx.where(self._cold[:, 0], likeliest, drawn) if self._mixed else drawn


def filtered(logits: mx.array, sampling: Sampling) -> mx.array:
    """Logits (..., N) -> probabilities with the unlikely ones at zero, in the order of Sampling's fields.

    They do not sum up to one. The temperature is not applied here.
    """
    probabilities = mx.softmax(logits, axis=-1, precise=True)
    size = logits.shape[-1]
    if 0 < sampling.top_k < size:
        least = mx.min(mx.topk(probabilities, sampling.top_k, axis=-1), axis=-1, keepdims=True)
        probabilities = mx.where(probabilities >= least, probabilities, 0)
    if 0 < sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        least = sampling.min_p * mx.max(probabilities, axis=-1, keepdims=True)
        probabilities = mx.where(probabilities >= least, probabilities, 0)
    return probabilities


def _nucleus(probabilities: mx.array, share: float) -> mx.array:
    """Keeps the likeliest until they hold `share` of the whole, the one that reaches it included."""
    order = mx.argsort(-probabilities, axis=-1)
    falling = mx.take_along_axis(probabilities, order, axis=-1)
    before = mx.cumsum(falling, axis=-1) - falling
    whole = mx.sum(falling, axis=-1, keepdims=True)
    kept = mx.where(before <= share * whole, falling, 0)
    return mx.put_along_axis(mx.zeros_like(probabilities), order, kept, axis=-1)


def pick(probabilities: mx.array, numbers: mx.array) -> mx.array:
    """One token of each row (..., N) by a number from [0, 1) each (...): the first to exceed that share.

    A token of probability zero is never taken, whatever the rounding.
    """
    possible = probabilities > 0
    sums = mx.cumsum(probabilities, axis=-1)
    whole = mx.max(mx.where(possible, sums, 0), axis=-1, keepdims=True)
    return mx.argmax(mx.logical_and(possible, sums > numbers[..., None] * whole), axis=-1)
