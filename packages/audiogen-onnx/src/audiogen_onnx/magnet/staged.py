"""How MAGNeT fills codes: codebook after codebook, each by some passes over the whole clip.

In each pass the places that the network was least sure of are masked and drawn anew, and in each they are
fewer. They are masked in spans of some frames, for a neighbour gives too much away. Numpy, and any function
that gives logits.
Source: Ziv et al. 2024, "Masked audio generation using a single non-autoregressive transformer" (arXiv
2401.04577), and audiocraft's `MagnetLMModel.generate`, whose rounding is followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise
from audiogen_core.ops import Float

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Logits = Callable[[Ints, int], tuple[Float, Float | None]]
"""Ints (B, K, T) and a stage -> the logits (B, T, N) of that codebook, with the prompt and without."""

Spans = Literal["overlapping", "separate"]
Scoring = Literal["max", "prod"]

SETTLED = np.float32(-1e4)
"""The score of what is not masked again."""

COLDEST = 0.01
"""Temperatures below are raised to this where logits are divided by them."""


@dataclass(frozen=True)
class Staging:
    """How codes are filled.

    steps         passes over the clip, for each codebook
    temperature   of the first pass, nearly; it falls to 0 with `annealed`
    top_k, top_p  what is drawn from; top_p counts where both are given
    guidance      weight of the prompt in the first pass and in the last
    spans         that are masked: any, or those that begin at multiples of their length
    span_length   frames
    scoring       of separate spans: by the surest of a span's tokens, or by all
    sampled       drawn; otherwise the likeliest is taken
    """

    steps: tuple[int, ...]
    temperature: float = 3.0
    top_k: int = 0
    top_p: float = 0.9
    guidance: tuple[float, float] = (10.0, 1.0)
    spans: Spans = "overlapping"
    span_length: int = 3
    scoring: Scoring = "max"
    annealed: bool = True
    sampled: bool = True

    @property
    def by_span(self) -> bool:
        """Whether whole spans are scored, and not tokens."""
        return self.spans == "separate" and self.span_length > 1

    def frames(self, frames: int) -> int:
        """Of so many, those that are made: separate spans fill a multiple of their length."""
        return frames // self.span_length * self.span_length if self.by_span else frames


def fill(
    known: Ints,
    keep: Bools,
    special: int,
    logits: Logits,
    staging: Staging,
    noise: Noise,
    on_step: Callable[[int, int], None] | None = None,
) -> Ints:
    """Ints (B, K, T) with all made that is not kept; T as `Staging.frames` has it.

    known    codes; what they are where nothing is kept does not matter
    keep     (T,) true at frames of which all codebooks are kept
    special  the id that stands for a masked place
    on_step  called with (passes done, passes in all)

    With `keep` at the beginning this is the original's continuation; it has no other. One draw of exponential
    noise (B, T, N) is taken for each pass. Raises OptionError unless there are steps for every codebook.
    """
    batch, books, frames = known.shape
    if len(staging.steps) != books or min(staging.steps, default=0) < 1:
        raise OptionError(f"there are {books} codebooks: give as many steps, each 1 or more")
    frames = staging.frames(frames)
    known, keep = known[:, :, :frames], keep[:frames]
    codes = np.where(keep, known, special)
    done, total = 0, sum(staging.steps)
    for stage, steps in enumerate(staging.steps):
        row = np.full((batch, frames), special)
        scores = _first_scores(keep, staging, batch)
        wanted = int((scores[0] > SETTLED).sum())
        for index, share in enumerate(mask_shares(steps)):
            count = max(int(np.float32(share * np.float32(wanted))), 1)
            units = _chosen(scores, count, staging)
            row[_frames(units, staging)] = special
            row = np.where(keep, known[:, stage], row)
            new = row == special
            codes[:, stage] = row
            guided = _guided(logits(codes, stage), _weight(share, staging))
            temperature = staging.temperature
            if staging.annealed:
                temperature = temperature * (steps - 1 - index) / steps
            drawn, shares = _draw(guided, max(temperature, COLDEST), staging, noise)
            row = np.where(new, drawn, row)
            codes[:, stage] = row
            scores = _scores(shares, staging)
            scores[~(units if staging.by_span else new)] = SETTLED
            done += 1
            if on_step is not None:
                on_step(done, total)
    return codes


def mask_shares(steps: int) -> list[np.float32]:
    """What share of the places is masked in each pass, rounded as torch does it in float32."""
    gap = float(np.float32(1 / max(1, steps - 1)))  # from step to step, counted from the nearer end
    shares = []
    for index in range(steps):
        far = index >= steps // 2 and steps > 1
        place = np.float32(1 - (steps - 1 - index) * gap if far else index * gap)
        angle = np.float32(np.float32(place * np.float32(math.pi)) * np.float32(0.5))
        shares.append(np.float32(math.cos(angle)))
    return shares


def _first_scores(keep: Bools, staging: Staging, batch: int) -> Float:
    """Zero for what is to be made: (B, spans or frames)."""
    kept = keep.reshape(-1, staging.span_length).all(axis=1) if staging.by_span else keep
    scores = np.where(kept, SETTLED, np.float32(0))
    return np.repeat(scores[None], batch, axis=0)


def _chosen(scores: Float, count: int, staging: Staging) -> Bools:
    """The units of the highest scores: (B, spans or frames), about `count` of them."""
    if staging.spans == "overlapping" and staging.span_length > 1:
        return np.stack([overlapping(row, count, staging.span_length) for row in scores])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    chosen = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def overlapping(scores: Float, count: int, length: int) -> Bools:
    """The frames of the best spans, about `count` of them; a search ends where the original's does."""
    frames, count = len(scores), max(count, length)
    sums = sum(scores[start : frames - length + 1 + start] for start in range(length))
    order = np.argsort(-np.asarray(sums), kind="stable")

    def union(spans: int) -> Bools:
        mask = np.zeros(frames, np.bool_)
        for start in order[:spans]:
            mask[start : start + length] = True
        return mask

    low, high = count // length, count - length + 1
    middle = round((low + high) / 2)  # half to even
    mask = union(middle)
    while low < middle < high:
        mask = union(middle)
        if mask.sum() > count:
            high = middle
        else:
            low = middle
        middle = round((low + high) / 2)
    return mask


def _frames(units: Bools, staging: Staging) -> Bools:
    return np.repeat(units, staging.span_length, axis=1) if staging.by_span else units


def _weight(share: np.float32, staging: Staging) -> float:
    first, last = staging.guidance
    return float(share) * first + (1 - float(share)) * last


def _guided(logits: tuple[Float, Float | None], weight: float) -> Float:
    asked, other = logits
    return asked if other is None else other + np.float32(weight) * (asked - other)


def _draw(logits: Float, temperature: float, staging: Staging, noise: Noise) -> tuple[Ints, Float]:
    """A token for every place (B, T), and its probability."""
    scaled = logits / np.float32(temperature)
    shares = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    if not staging.sampled:
        tokens = logits.argmax(axis=-1)
    elif 0 < staging.top_p < 1:
        order = np.argsort(-shares, axis=-1, kind="stable")
        falling = np.take_along_axis(shares, order, axis=-1)
        before = np.cumsum(falling, axis=-1) - falling
        falling = np.where(before > np.float32(staging.top_p), 0, falling)
        falling /= falling.sum(axis=-1, keepdims=True)
        rank = (falling / noise.exponential(shares.shape)).argmax(axis=-1)  # noise is by rank
        tokens = np.take_along_axis(order, rank[..., None], axis=-1)[..., 0]
    else:
        if 0 < staging.top_k < shares.shape[-1]:
            place = shares.shape[-1] - staging.top_k
            least = np.partition(shares, place, axis=-1)[..., place, None]
            shares = np.where(shares >= least, shares, 0)
            shares /= shares.sum(axis=-1, keepdims=True)
        tokens = (shares / noise.exponential(shares.shape)).argmax(axis=-1)
    return tokens, np.take_along_axis(shares, tokens[..., None], axis=-1)[..., 0]


def _scores(shares: Float, staging: Staging) -> Float:
    """How unsure the network was, of each span or token."""
    if not staging.by_span:
        return -np.log(shares)
    by_span = shares.reshape(len(shares), -1, staging.span_length)
    scores: Any = 1 - by_span.max(axis=2) if staging.scoring == "max" else -np.log(by_span).sum(axis=2)
    return np.asarray(scores, np.float32)
