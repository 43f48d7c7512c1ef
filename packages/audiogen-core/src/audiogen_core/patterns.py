"""Patterns: how the codes of a clip are laid out as tokens for a language model, and back, in numpy.

With the delay pattern of MusicGen (arXiv 2306.05284) codebook k is late by a number of steps, so that one
step of the model gives one token of every codebook, and a finer codebook is drawn knowing the coarser ones of
its frame. With the flatten pattern the tokens follow one another singly, frame by frame and within each frame
codebook by codebook.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError, OptionError
from audiogen_core.values import closed

UNKNOWN = -1
LARGEST = 1 << 26
"""Codes of the largest template: a day of 8 codebooks at 75 Hz."""

_LEAST, _MOST = -(2**31), 2**31 - 1

Tokens = NDArray[np.int32]


@closed()
def delay(codes: Tokens, delays: Sequence[int], special: int) -> Tokens:
    """Codes (K, T) -> tokens (K, T + max(delays)), row k moved right by delays[k].

    special  the id that fills the gaps before and after each row
    Other values pass through as they are, so `UNKNOWN` may stand for codes that are yet to be drawn.

    Raises CodesError when codes are not (K, T), OptionError when `delays` are not K numbers >= 0.
    """
    codes = _integers(codes, 2, "codes must be (codebooks, frames)")
    late = _check_delays(delays, codes.shape[0])
    frames = codes.shape[1]
    if not _LEAST <= special <= _MOST:
        raise OptionError(f"special must be an id of 32 bits, got {special}")
    tokens = np.full((codes.shape[0], frames + max(late)), special, dtype=np.int32)
    for row, shift in enumerate(late):
        tokens[row, shift : shift + frames] = codes[row]
    return tokens


@closed()
def undelay(tokens: Tokens, delays: Sequence[int]) -> Tokens:
    """Tokens (K, S) -> codes (K, S - max(delays)): the exact inverse of `delay`.

    Raises CodesError when tokens are not (K, S) or shorter than the largest delay, OptionError for `delays`.
    """
    tokens = _integers(tokens, 2, "tokens must be (codebooks, steps)")
    late = _check_delays(delays, tokens.shape[0])
    frames = tokens.shape[1] - max(late)
    if frames < 0:
        raise CodesError(f"{tokens.shape[1]} steps are fewer than the largest delay, {max(late)}")
    return np.stack([tokens[row, shift : shift + frames] for row, shift in enumerate(late)])


@closed()
def template(frames: int, delays: Sequence[int], special: int, *, prompt: Tokens | None = None) -> Tokens:
    """The tokens of a clip yet to be drawn: (K, frames + max(delays)), `UNKNOWN` where a code is wanted.

    prompt  codes (K, P) the clip begins with, P <= frames; they stand in the template where they belong

    Raises CodesError when the prompt does not fit, OptionError for no frames, or far too many.
    """
    if frames < 1 or frames * len(delays) > LARGEST:
        raise OptionError(
            f"a template has at least 1 frame and at most {LARGEST} codes, got {frames} frames of "
            f"{len(delays)} codebooks"
        )
    codes = np.full((len(delays), frames), UNKNOWN, dtype=np.int32)
    if prompt is not None:
        prompt = _integers(prompt, 2, "a prompt must be (codebooks, frames)")
        if prompt.shape[0] != len(delays) or prompt.shape[1] > frames:
            raise CodesError(
                f"a prompt of shape {prompt.shape} does not fit {len(delays)} codebooks and {frames} frames"
            )
        codes[:, : prompt.shape[1]] = prompt
    return delay(codes, delays, special)


@closed()
def flatten(codes: Tokens, codebook_size: int | None = None) -> Tokens:
    """Codes (K, T) -> tokens (T * K,), frame after frame and within it codebook after codebook.

    codebook_size  when given, codebook k is moved to the ids from k * codebook_size on, so that ids tell the
                   codebooks apart

    Raises CodesError when codes are not (K, T).
    """
    codes = _integers(codes, 2, "codes must be (codebooks, frames)")
    return (codes + _offsets(codes.shape[0], codebook_size)).T.reshape(-1)  # (K, T) -> (T, K) -> (T * K,)


@closed()
def unflatten(tokens: Tokens, codebooks: int, codebook_size: int | None = None) -> Tokens:
    """Tokens (T * K,) -> codes (K, T): the exact inverse of `flatten`.

    Raises CodesError when the tokens are not one row of whole frames, OptionError when `codebooks` < 1.
    """
    tokens = _integers(tokens, 1, "tokens must be one row")
    if codebooks < 1:
        raise OptionError(f"codebooks must be at least 1, got {codebooks}")
    if tokens.size % codebooks:
        raise CodesError(f"{tokens.size} tokens are no whole number of frames of {codebooks} codebooks")
    return np.ascontiguousarray(tokens.reshape(-1, codebooks).T - _offsets(codebooks, codebook_size))


def _offsets(codebooks: int, codebook_size: int | None) -> Tokens:
    if not 0 <= (codebook_size or 0) * codebooks <= _MOST:
        raise OptionError(f"codebook_size must be 0 or more, and ids of 32 bits; got {codebook_size}")
    return (np.arange(codebooks, dtype=np.int32) * (codebook_size or 0))[:, None]


def _integers(values: Tokens, ndim: int, rule: str) -> Tokens:
    values = np.asarray(values)
    if values.ndim != ndim or not np.issubdtype(values.dtype, np.integer):
        raise CodesError(f"{rule} of whole numbers, got shape {values.shape} of {values.dtype}")
    return values.astype(np.int32, copy=False)


def _check_delays(delays: Sequence[int], codebooks: int) -> list[int]:
    late = [int(shift) for shift in delays]
    if len(late) != codebooks or min(late, default=-1) < 0:
        raise OptionError(f"delays must be {codebooks} whole numbers >= 0, one per codebook, got {late}")
    if max(late) * codebooks > LARGEST:
        raise OptionError(f"delays of {max(late)} steps are longer than any clip")
    return late
