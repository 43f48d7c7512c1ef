"""Filling masked codes: the parallel iterative decoding of VampNet, in numpy.

All masked places are drawn at once; those the model was least sure of are masked again, fewer at each step,
until none is left (Chang et al., "MaskGIT", 2022; Garcia et al., "VampNet", 2023). Any function from codes to
logits can stand for the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.errors import CodesError, ModelError, OptionError
from audiogen_core.noise import Noise
from audiogen_core.values import closed
from audiogen_onnx.vampnet.draw import Filters, Float, Int, draw
from audiogen_onnx.vampnet.mask import Compat, gamma

Bools = NDArray[np.bool_]
Logits = Callable[[NDArray[Any]], NDArray[Any]]
"""codes (K, F) or (B, K, F), masked places holding the codebook size -> logits (..., P, F, N)."""

OnStep = Callable[[float, float], None]

# Uniform noise is held inside: at 0 and at 1 its Gumbel value -log(-log(u)) would be infinite.
_UNIFORM = np.float32(1e-20), np.nextafter(np.float32(1), np.float32(0))


@dataclass(frozen=True)
class FillOptions:
    """How masked codes are filled.

    steps             calls of the model; each makes fewer places uncertain
    mask_temperature  randomness of the choice of what is masked again, falling to 0 with the steps; 0 masks
                      strictly the least likely
    sample_cutoff     the part of the steps, in [0, 1], that draws; the later ones take the likeliest tokens
    filters           how each token is drawn
    compat            "audiogen", or "upstream" for the original with its quirks: the schedule counts the
                      masks of the whole batch, the typical filter has no effect, and temperature 0 still
                      draws

    Raises OptionError when a value is out of range.
    """

    steps: int = 12
    mask_temperature: float = 10.5
    sample_cutoff: float = 1.0
    filters: Filters = field(default_factory=Filters)
    compat: Compat = "audiogen"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int | np.integer) or self.steps < 1:
            raise OptionError(f"steps must be a whole number of 1 or more, got {self.steps}")
        if not (math.isfinite(self.mask_temperature) and self.mask_temperature >= 0):
            raise OptionError(f"mask_temperature must be 0 or more, got {self.mask_temperature}")
        if not 0 <= self.sample_cutoff <= 1:
            raise OptionError(f"sample_cutoff must lie in [0, 1], got {self.sample_cutoff}")
        if self.compat not in get_args(Compat):
            raise OptionError(f"compat must be one of {', '.join(get_args(Compat))}; got {self.compat!r}")

    @property
    def upstream(self) -> bool:
        return self.compat == "upstream"

    def draws(self, step: int) -> bool:
        """Whether a step (from 0) draws its tokens, or takes the likeliest."""
        greedy = self.filters.temperature == 0 and not self.upstream
        return not greedy and step / self.steps <= self.sample_cutoff


@dataclass(frozen=True, eq=False)
class Filled:
    """Codes without masks, and how sure the model was of each token that was made.

    codes       as given, masked places filled
    confidence  float32, the natural logarithm of the probability with which each token was drawn; 0 where
                nothing was made
    """

    codes: Int
    confidence: Float


@closed()
def fill(
    codes: ArrayLike,
    mask: ArrayLike,
    logits: Logits,
    *,
    steps: int = 12,
    temperature: float = 1.0,
    mask_temperature: float = 10.5,
    top_p: float | None = None,
    typical_mass: float | None = None,
    typical_min_tokens: int = 64,
    sample_cutoff: float = 1.0,
    conditioning_codebooks: int = 0,
    noise: Noise,
    compat: Compat = "audiogen",
    on_step: OnStep | None = None,
    codebook_size: int | None = None,
) -> Int:
    """Codes with the masked places drawn from the model, int64 of the shape given.

    codes   (K, F) or (B, K, F). What stands at masked places does not matter; a place that holds N counts
            as masked in any case
    mask    bool of the same shape, True = generate; or without the axis of codebooks, then for all of them
    logits  the model: codes of the rank given -> logits (..., P, F, N), P = K - conditioning_codebooks.
            Masked places come to it as N, one more than the largest code
    steps ... sample_cutoff, compat  as FillOptions and Filters say
    conditioning_codebooks  the first rows, which the model reads and never makes
    noise   each step draws exponential (B, F*P, N) when it samples, then uniform (B, F*P), the places in
            the order frame by frame, in a frame codebook by codebook
    on_step  called with (steps done, steps) after each; what it raises stops the work
    codebook_size  N; None asks the model: its attribute `codebook_size`, else its logits for one frame

    In compat "audiogen" item i of a batch gets the codes it would get alone, given the same numbers.

    Raises OptionError for options out of range, CodesError for codes or a mask that do not fit, ModelError
    when the logits have another shape or are no numbers.
    """
    options = FillOptions(
        steps=steps,
        mask_temperature=mask_temperature,
        sample_cutoff=sample_cutoff,
        filters=Filters(
            temperature=temperature,
            typical_mass=typical_mass,
            typical_min_tokens=typical_min_tokens,
            top_p=top_p,
        ),
        compat=compat,
    )
    return fill_scored(
        codes,
        mask,
        logits,
        options,
        conditioning_codebooks=conditioning_codebooks,
        noise=noise,
        on_step=on_step,
        codebook_size=codebook_size,
    ).codes


def fill_scored(
    codes: ArrayLike,
    mask: ArrayLike,
    logits: Logits,
    options: FillOptions,
    *,
    noise: Noise,
    conditioning_codebooks: int = 0,
    on_step: OnStep | None = None,
    codebook_size: int | None = None,
) -> Filled:
    """As `fill`, with the options in one value, and the confidence of the model in what it made."""
    given = check_codes(codes)
    masked = check_mask(mask, given)
    kept = conditioning_codebooks
    if not 0 <= kept < given.shape[-2]:
        raise OptionError(
            f"conditioning_codebooks must lie in [0, {given.shape[-2]}), the codes having "
            f"{given.shape[-2]} codebooks; got {kept}"
        )
    size = codebook_size if codebook_size is not None else find_size(logits, given)
    masked = masked | (given == size)
    if not options.upstream:
        masked[..., :kept, :] = False
    _check_range(given, masked, size)
    if not (masked.any() or options.upstream):
        return Filled(given.copy(), np.zeros(given.shape, np.float32))
    batched = given.ndim == 3
    job = _Fill(
        model=logits if batched else lambda codes: np.asarray(logits(codes[0]))[None],
        options=_for_run(options),
        size=size,
        kept=kept,
        codes=given if batched else given[None],
    )
    done = job.run(masked if batched else masked[None], noise, on_step)
    return done if batched else Filled(done.codes[0], done.confidence[0])


def _for_run(options: FillOptions) -> FillOptions:
    """The options that take effect: the original computes its typical filter and drops the result."""
    if not options.upstream:
        return options
    return replace(options, filters=replace(options.filters, typical_mass=None))


def check_codes(codes: ArrayLike) -> Int:
    """The codes as int64 (K, F) or (B, K, F). Raises CodesError."""
    values = _array("codes", codes)
    if values.ndim not in (2, 3) or values.size == 0:
        raise CodesError(f"codes must be (K, F) or (B, K, F) and not empty, got shape {values.shape}")
    if not np.issubdtype(values.dtype, np.integer):
        raise CodesError(f"codes must be integers, got {values.dtype}")
    return values.astype(np.int64)


def _array(what: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (
        TypeError,
        ValueError,
        MemoryError,
    ) as error:  # rows of several lengths, and things that are no numbers
        raise CodesError(f"{what} must be an array: {error}") from None


def check_mask(mask: ArrayLike, codes: Int) -> Bools:
    """The mask as bool of the shape of the codes. Raises CodesError.

    Numbers are accepted when all are 0 or 1. A mask without the axis of codebooks holds for all of them; a
    mask without the axis of the batch, for all items.
    """
    given = _array("a mask", mask)
    if given.dtype != np.bool_ and not (given.dtype.kind in "iuf" and np.isin(given, (0, 1)).all()):
        raise CodesError(f"a mask must hold True (generate) and False (keep), got {given.dtype}")
    values = given.astype(bool)
    shapes = [codes.shape, codes.shape[:-2] + codes.shape[-1:]]
    if values.shape not in shapes and values.shape != codes.shape[-2:]:
        raise CodesError(
            f"the mask has shape {values.shape}, the codes {codes.shape}: they must agree; was the mask made "
            "for a clip of another length?"
        )
    if values.shape != codes.shape and values.shape == shapes[1]:
        values = values[..., None, :]
    return np.broadcast_to(values, codes.shape)


def _check_range(codes: Int, masked: Bools, size: int) -> None:
    kept = codes[~masked]
    if kept.size and (kept.min() < 0 or kept.max() >= size):
        raise CodesError(
            f"codes that are kept must lie in [0, {size}), got {kept.min()} to {kept.max()}; were they made "
            "by another codec?"
        )


def find_size(logits: Logits, codes: Int) -> int:
    """The codebook size of a model: what it says, or what its logits for one frame show."""
    for holder in (logits, getattr(logits, "__self__", None)):
        said = getattr(holder, "codebook_size", None)
        if isinstance(said, int | np.integer):
            return int(said)
    return int(np.asarray(logits(np.zeros_like(codes[..., :1]))).shape[-1])


@dataclass(frozen=True, eq=False)
class _Fill:
    """One job, all of it with a batch axis: B items, K codebooks, P of them generated, F frames, L = F*P."""

    model: Logits
    options: FillOptions
    size: int
    kept: int
    codes: Int

    def run(self, masked: Bools, noise: Noise, on_step: OnStep | None) -> Filled:
        options = self.options
        # the original counts the masks of the whole batch, so that an item feels what it is batched with
        count = masked.sum() if options.upstream else masked.sum(axis=(1, 2))[:, None]
        start = np.where(masked, self.size, self.codes)  # (B, K, F)
        current = start
        tokens = self._flat(start)  # (B, L)
        surely = np.zeros(tokens.shape, np.float32)
        for step in range(options.steps):
            open_ = tokens == self.size
            found, chances = self._draw(current, open_, noise, options.draws(step))
            tokens = np.where(open_, found, tokens)
            surely = np.where(open_, _log(chances), surely)
            again = self._again(step, count, open_, chances, noise)
            current = self._joined(np.where(again, self.size, tokens))
            if step + 1 < options.steps:  # in the last step all that was drawn stays
                tokens = np.where(again, self.size, tokens)
            if on_step is not None:
                on_step(step + 1, options.steps)
        confidence = np.zeros(self.codes.shape, np.float32)
        confidence[:, self.kept :] = self._unflat(surely)
        return Filled(self._joined(tokens), confidence)

    def _draw(self, codes: Int, open_: Bools, noise: Noise, draws: bool) -> tuple[Int, Float]:
        """Tokens and their probability at the open places (B, L); elsewhere -1 and infinity."""
        logits = self._logits(codes)
        batch, places = open_.shape
        # noise for settled places too: so the stream lies as the original's, whatever is open
        drawn = noise.exponential((batch, places, self.size)) if draws else None
        item, place = np.nonzero(open_)
        frame, book = np.divmod(place, logits.shape[1])
        rows = logits[item, book, frame]  # (M, N)
        found, chances = draw(rows, None if drawn is None else drawn[item, place], self.options.filters)
        tokens = np.full(open_.shape, -1, np.int64)
        tokens[item, place] = found
        probability = np.full(open_.shape, np.inf, np.float32)
        probability[item, place] = chances
        return tokens, probability

    def _logits(self, codes: Int) -> Float:
        logits = np.asarray(self.model(codes), np.float32)
        batch, books, frames = codes.shape
        expected = (batch, books - self.kept, frames, self.size)
        if logits.shape != expected:
            raise ModelError(
                f"the model gave logits of shape {logits.shape}, expected {expected} for codes "
                f"{codes.shape} with {self.kept} conditioning codebooks"
            )
        return logits

    def _again(
        self, step: int, count: NDArray[np.int64], open_: Bools, chances: Float, noise: Noise
    ) -> Bools:
        """Which places (B, L) to mask again: those with the lowest noisy confidence, as many as the
        schedule leaves at this step.
        """
        options = self.options
        progress = (step + 1) / options.steps
        left = np.floor(gamma(progress) * count.astype(np.float32)).astype(np.int64)
        number = np.broadcast_to(left, (len(open_), 1))
        if step + 1 < options.steps:  # each step settles a place at least, and leaves one
            number = np.maximum(1, np.minimum(open_.sum(axis=1, keepdims=True) - 1, number))
        heat = float(np.float32(options.mask_temperature) * (np.float32(1) - np.float32(progress)))
        return least_sure(chances, number, heat, noise.uniform(open_.shape))

    def _flat(self, codes: Int) -> Int:
        """(B, K, F) -> (B, F*P): the generated rows, frame by frame."""
        return np.ascontiguousarray(codes[:, self.kept :].transpose(0, 2, 1)).reshape(len(codes), -1)

    def _unflat(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(len(values), self.codes.shape[2], -1).transpose(0, 2, 1)

    def _joined(self, tokens: Int) -> Int:
        """(B, F*P) -> (B, K, F), the conditioning rows as they were given."""
        return np.concatenate([self.codes[:, : self.kept], self._unflat(tokens)], axis=1)


def least_sure(chances: Float, number: Int, heat: float | Float, uniform: Float) -> Bools:
    """Which places (B, L) have the lowest confidence: log(chances) + heat * Gumbel noise.

    chances  probability with which each token was drawn; infinite for a place that is settled
    number   (B, 1), how many are wanted; fewer are found where some are equal or settled
    uniform  float32 (B, L) in [0, 1), from which the Gumbel noise is made
    """
    gumbel = -_log(-_log(np.clip(uniform, *_UNIFORM)))
    confidence = _log(chances) + heat * gumbel
    last = np.minimum(number, chances.shape[1] - 1)
    cut = np.take_along_axis(np.sort(confidence, axis=1), last, axis=1)
    return np.asarray(confidence < cut)


def _log(values: Float) -> Float:
    with np.errstate(divide="ignore"):
        out: Float = np.log(values)
    return out
