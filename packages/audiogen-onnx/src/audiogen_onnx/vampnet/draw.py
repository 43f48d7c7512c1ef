"""Drawing tokens from logits: filters, softmax, and a draw by exponential noise.

Everything is float32, as in the original, so that a recorded draw gives the recorded token. Rows are
independent of one another; they are worked off in blocks that stay in the processor's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, OptionError

Float = NDArray[np.float32]
Int = NDArray[np.int64]

COLDEST = 1e-4
"""Temperatures between 0 and this act as this: below it float32 overflows."""

_BLOCK = 1 << 18  # logits in one block: 1 MB
_OFF = np.float32(-np.inf)
_HUGE = np.float32(1e30)


@dataclass(frozen=True)
class Filters:
    """How a token is drawn from a row of logits. The filters apply in this order.

    temperature         divides the logits after filtering; 0 takes the likeliest token
    typical_mass        keep the tokens whose information is closest to the entropy of the row, until they
                        hold this much probability; None keeps all
    typical_min_tokens  the typical filter keeps at least this many
    top_k               keep the k likeliest; None keeps all
    top_p               keep the likeliest tokens until they hold more than this much probability; None or 1
                        keeps all, 0 keeps the likeliest

    Raises OptionError when a value is out of range.
    """

    temperature: float = 1.0
    typical_mass: float | None = None
    typical_min_tokens: int = 64
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise OptionError(f"temperature must be 0 (the likeliest token) or more, got {self.temperature}")
        if self.typical_mass is not None and not 0 < self.typical_mass <= 1:
            raise OptionError(f"typical_mass must lie in (0, 1], or be None for off; got {self.typical_mass}")
        if self.typical_min_tokens < 0:
            raise OptionError(f"typical_min_tokens must be 0 or more, got {self.typical_min_tokens}")
        if self.top_k is not None and self.top_k < 1:
            raise OptionError(f"top_k must be 1 or more, or None for off; got {self.top_k}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise OptionError(f"top_p must lie in [0, 1], or be None for off; got {self.top_p}")

    def apply(self, logits: Float) -> Float:
        """Logits (R, N) with -inf where a token is ruled out. The array given is not changed."""
        if self.typical_mass is not None:
            logits = typical(logits, self.typical_mass, self.typical_min_tokens)
        if self.top_k is not None:
            logits = likeliest(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            logits = nucleus(logits, self.top_p)
        return logits


def draw(logits: Float, noise: Float | None, filters: Filters) -> tuple[Int, Float]:
    """One token for each row of logits (R, N), and its probability: int64 (R,), float32 (R,).

    noise  float32 (R, N), exponential with mean 1, above 0: the token is the largest of probability / noise.
           None takes the likeliest token

    A temperature of 0 leaves the probabilities as temperature 1 has them, and the draw to the noise.
    Raises ModelError when a row has no finite logit or holds NaN.
    """
    tokens = np.empty(len(logits), np.int64)
    chances = np.empty(len(logits), np.float32)
    step = max(1, _BLOCK // logits.shape[-1])
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        block = filters.apply(logits[rows])
        probabilities = softmax(block, filters.temperature)
        picked = (block if noise is None else probabilities / noise[rows]).argmax(axis=-1)
        tokens[rows] = picked
        chances[rows] = np.take_along_axis(probabilities, picked[:, None], axis=-1)[:, 0]
    if np.isnan(chances).any():
        raise ModelError(
            "the model put out logits that are not numbers; its weights are damaged, or their type "
            "overflows: try a float32 export"
        )
    return tokens, chances


def softmax(logits: Float, temperature: float = 1.0) -> Float:
    """Probabilities of rows of logits, after division by the temperature unless that is 0."""
    if temperature > 0 and temperature != 1:
        logits = logits / np.float32(max(temperature, COLDEST))
    with np.errstate(invalid="ignore"):  # a row without a finite logit gives NaN: the caller's to refuse
        out: Float = np.exp(logits - logits.max(axis=-1, keepdims=True))
        out /= out.sum(axis=-1, keepdims=True)
    return out


def typical(logits: Float, mass: float, min_tokens: int) -> Float:
    """Logits (..., N) of which only the typical tokens are left, the others -inf.

    A token is the more typical, the closer its information is to the entropy of the row (Meister et al.,
    "Locally typical sampling", 2022). Kept are the most typical until their probability reaches `mass`,
    and `min_tokens` of them in any case (0 and 1 ask for none).
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    weights: Float = np.exp(shifted)
    total = weights.sum(axis=-1, keepdims=True)
    information = np.minimum(np.log(total) - shifted, _HUGE)  # what is ruled out adds 0 to the entropy
    weights /= total
    distance: Float = np.abs(information - (weights * information).sum(axis=-1, keepdims=True))
    size = logits.shape[-1]
    kept = min(max(min_tokens, 1), size)
    bound = np.partition(distance, kept - 1, axis=-1)[..., kept - 1, None]
    held = np.where(distance <= bound, weights, 0).sum(axis=-1)
    short = held < mass  # these rows keep more than min_tokens; only they have to be sorted
    if short.any():
        bound[short] = np.maximum(bound[short], _reach(distance[short], weights[short], mass))
    return np.where(distance > bound, _OFF, logits)


def _reach(distance: Float, weights: Float, mass: float) -> Float:
    """How far rows (R, N) go, from the smallest distance on, to hold weights of `mass`: (R, 1)."""
    order = distance.argsort(axis=-1)
    reached = np.take_along_axis(weights, order, axis=-1).cumsum(axis=-1)
    last = np.minimum((reached < np.float32(mass)).sum(axis=-1, keepdims=True), order.shape[-1] - 1)
    return np.take_along_axis(distance, np.take_along_axis(order, last, axis=-1), axis=-1)


def likeliest(logits: Float, count: int) -> Float:
    """Logits (..., N) of which the `count` largest are left (more where some are equal), others -inf."""
    size = logits.shape[-1]
    if count >= size:
        return logits
    bound = np.partition(logits, size - count, axis=-1)[..., size - count, None]
    return np.where(logits < bound, _OFF, logits)


def nucleus(logits: Float, mass: float) -> Float:
    """Logits (..., N) of which the likeliest are left, up to the one that takes their probability beyond
    `mass`; others -inf. The likeliest always stays.
    """
    ranked = np.sort(logits, axis=-1)[..., ::-1]
    reached = softmax(ranked).cumsum(axis=-1)
    kept = np.minimum((reached <= np.float32(mass)).sum(axis=-1, keepdims=True), logits.shape[-1] - 1)
    bound = np.take_along_axis(ranked, kept, axis=-1)
    return np.where(logits < bound, _OFF, logits)
