"""Masks: which codes are generated and which are kept.

A mask is bool (..., codebooks, frames); True means *to be generated*. Leading axes are a batch. Every
builder takes an array of that shape, or the shape itself, as its first argument, and returns a new mask.

The builders are those of VampNet (hugofloresgarcia/vampnet, vampnet/mask.py and interface.py), where a
mask is 0 or 1 instead. Random choices come from a `Noise`: item i of a batch has the choices it would have
alone. With `compat="upstream"` a builder repeats what the original does even where that is an oversight.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise
from audiogen_core.values import closed

Mask = NDArray[np.bool_]
Like = NDArray[Any] | tuple[int, ...]
"""An array (..., codebooks, frames), or its shape."""

Compat = Literal["audiogen", "upstream"]


MAX_SECONDS = 366 * 86_400.0

MAX_PLACES = 1 << 27
"""Values that a mask may have."""


@closed()
def seconds_to_frames(seconds: float, sample_rate: int, hop_length: int) -> int:
    """How many codec frames cover this many seconds: rounded up, as the original counts.

    Raises OptionError when seconds is negative or not finite.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise OptionError(f"a time must be 0 seconds or more, got {seconds}")
    if seconds > MAX_SECONDS:
        raise OptionError(f"a time is a year at most, got {seconds:g} seconds")
    _check_rates(sample_rate, hop_length)
    return math.ceil(seconds * sample_rate / hop_length)


@closed()
def frames_to_seconds(frames: int, sample_rate: int, hop_length: int) -> float:
    """The duration of this many codec frames, seconds."""
    _check_rates(sample_rate, hop_length)
    return frames * hop_length / sample_rate


@closed()
def gamma(progress: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Share of codes still masked at `progress` in [0, 1]: a quarter of a cosine, never below 1e-10."""
    angle = np.asarray(progress, np.float32) * np.float32(math.pi) / np.float32(2)
    # By way of float64, for numpy's cosine in float32 has another last digit on another processor.
    share = np.cos(angle, dtype=np.float64).astype(np.float32)
    return np.asarray(np.clip(share, np.float32(1e-10), np.float32(1)))


@closed()
def inverse_gamma(share: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """The progress at which `share` of the codes is masked: the inverse of `gamma`."""
    turned = np.float32(2) * np.arccos(np.asarray(share, np.float32)) / np.float32(math.pi)
    return np.asarray(turned, np.float32)


# ---- whole masks


@closed()
def full_mask(like: Like) -> Mask:
    """Everything is generated."""
    return np.ones(shape_of(like), np.bool_)


@closed()
def empty_mask(like: Like) -> Mask:
    """Everything is kept."""
    return np.zeros(shape_of(like), np.bool_)


@closed()
def inpaint(like: Like, prefix: int, suffix: int) -> Mask:
    """The first `prefix` and the last `suffix` frames are kept."""
    check_count("prefix", prefix)
    check_count("suffix", suffix)
    mask = full_mask(like)
    mask[..., :prefix] = False
    if suffix:
        mask[..., -suffix:] = False
    return mask


@closed()
def infill(like: Like, start: float, end: float, *, sample_rate: int, hop_length: int) -> Mask:
    """Every frame that lies at least partly between `start` and `end`, seconds, is generated.

    Raises OptionError unless 0 <= start < end and `start` lies within the clip.
    """
    shape = shape_of(like)
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise OptionError(f"an infill goes from a time to a later one, got {start:g} to {end:g} seconds")
    seconds = frames_to_seconds(shape[-1], sample_rate, hop_length)
    first, last = (round(min(time, seconds) * sample_rate / hop_length, 6) for time in (start, end))
    if math.floor(first) >= shape[-1]:
        raise OptionError(f"the infill begins at {start:g} s, but the clip ends at {seconds:.3f} s")
    if end > seconds:
        warnings.warn(f"the infill ends with the clip, at {seconds:g} s", UserWarning, stacklevel=2)
    mask = empty_mask(shape)
    mask[..., math.floor(first) : math.ceil(last)] = True
    return mask


@closed()
def periodic_mask(
    like: Like,
    period: int,
    width: int = 1,
    *,
    roll: int | Literal["random"] = 0,
    noise: Noise | None = None,
    compat: Compat = "audiogen",
) -> Mask:
    """One kept place every `period` frames, the first at frame 0; a period of 0 keeps nothing.

    width  frames kept around each place: width // 2 on either side of it, so 1, 3, 5 are exact and an even
           width keeps one more
    roll   frames by which all places move to the right, circularly; "random": less than a period, drawn for
           each item of a batch (upstream: once for all)
    """
    check_count("period", period)
    check_count("period width", width)
    width = min(width, 2 * shape_of(like)[-1])
    mask = full_mask(like)
    if period == 0:
        return mask
    frames, reach = mask.shape[-1], width // 2
    places = np.arange(0, frames, min(period, frames))
    near = (places[:, None] + np.arange(-reach, reach + 1)).ravel()
    mask[..., near[(near >= 0) & (near < frames)]] = False
    if roll != "random":
        return roll_mask(mask, roll)
    items = mask.reshape(-1, *mask.shape[-2:])
    drawn = source_of(noise, "a random roll").uniform((1 if compat == "upstream" else len(items),))
    moves = np.broadcast_to(np.floor(drawn.astype(np.float64) * period).astype(np.int64), len(items))
    rolled = [np.roll(item, move, axis=-1) for item, move in zip(items, moves, strict=True)]
    return np.stack(rolled).reshape(mask.shape)


@closed()
def time_stretch_mask(like: Like, factor: int) -> Mask:
    """Every `factor`-th frame is kept: of codes whose frames were repeated `factor` times."""
    if factor < 1:
        raise OptionError(f"the factor of a time stretch must be 1 or more, got {factor}")
    return periodic_mask(like, factor)


@closed()
def onset_mask(like: Like, onsets: Iterable[int], width: int = 1, *, compat: Compat = "audiogen") -> Mask:
    """`width` frames before every onset and `width` from it on are kept.

    onsets  frames, for example of `onsets.detect`. The original keeps nothing around an onset that lies
            nearer to the beginning than `width`.
    """
    check_count("onset width", width)
    mask = full_mask(like)
    for onset in onsets:
        first = int(onset) - width
        mask[..., first if compat == "upstream" else max(0, first) : max(0, int(onset) + width)] = False
    return mask


# ---- random masks: the ones that VampNet is trained with (vampnet/newmask.py)
#
# `progress` runs from 0, everything is generated, to 1, nothing is, along `gamma`.


@closed()
def linear_random(like: Like, probability: float, *, noise: Noise | None = None) -> Mask:
    """Each code is generated with this probability. `noise` is needed unless that is 0 or 1."""
    check_share("the probability of a random mask", probability)
    shape = shape_of(like)
    if probability in (0.0, 1.0):
        return np.full(shape, probability == 1.0)
    batch = (math.prod(shape[:-2]), *shape[-2:])  # leading axes are one batch to a source of noise
    return source_of(noise, "a random mask").uniform(batch).reshape(shape) < probability


@closed()
def random(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """Each code is generated with probability gamma(progress): all of them at 0, none at 1."""
    check_share("the progress of a random mask", progress)
    return linear_random(like, float(gamma(progress)) if progress < 1 else 0.0, noise=noise)


@closed()
def random_along_time(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """Each frame is generated, in all its codebooks, with probability gamma(progress)."""
    shape = shape_of(like)
    one = random((*shape[:-2], 1, shape[-1]), progress, noise=noise)
    return np.broadcast_to(one, shape).copy()


@closed()
def stemgen_random(like: Like, probability: float, *, noise: Noise | None = None) -> Mask:
    """One codebook, drawn for each item, is generated with this probability in each frame.

    The codebooks before it are kept, those after it generated (Parker et al. 2023, "StemGen",
    arXiv 2312.08723). Draws: the codebooks, then the frames.
    """
    check_share("the probability of a random mask", probability)
    shape = shape_of(like)
    items, codebooks, frames = math.prod(shape[:-2]), shape[-2], shape[-1]
    source = source_of(noise, "a random mask")
    chosen = np.floor(source.uniform((items,)).astype(np.float64) * codebooks)[:, None, None]
    drawn = source.uniform((items, frames))[:, None] < probability
    number = np.arange(codebooks)[:, None]
    return np.where(number == chosen, drawn, number > chosen).reshape(shape)


@closed()
def hugo_random(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """As many codebooks of each frame as `random` would generate there, but the last ones."""
    mask = random(like, progress, noise=noise)
    kept = mask.shape[-2] - mask.sum(axis=-2, keepdims=True)
    return np.asarray(np.arange(mask.shape[-2])[:, None] >= kept)


@closed()
def tria_mask(like: Like, least: float = 0.1, most: float = 0.4, *, noise: Noise | None = None) -> Mask:
    """A beginning is kept: a share of all frames between `least` and `most`, drawn for each item."""
    check_share("the least share kept", least)
    check_share("the largest share kept", most)
    if least > most:
        raise OptionError(f"the least share kept, {least}, is more than the largest, {most}")
    shape = shape_of(like)
    drawn = source_of(noise, "a random mask").uniform((math.prod(shape[:-2]),)).astype(np.float64)
    kept = np.floor((drawn * (most - least) + least) * shape[-1]).reshape(*shape[:-2], 1, 1)
    return np.broadcast_to(np.arange(shape[-1]) >= kept, shape).copy()


# ---- changes to a mask


@closed()
def codebook_unmask(mask: Mask, codebooks: int | None) -> Mask:
    """The first `codebooks` are kept: the ones that condition the others. None changes nothing."""
    out = copied(mask)
    if codebooks is not None:
        check_count("conditioning codebooks", codebooks)
        out[..., :codebooks, :] = False
    return out


@closed()
def codebook_mask(mask: Mask, keep: int) -> Mask:
    """All codebooks from number `keep` on are generated: the fewer are kept, the freer the result."""
    check_count("codebooks kept", keep)
    out = copied(mask)
    out[..., keep:, :] = True
    return out


@closed()
def keep_codebooks(mask: Mask, codebooks: Iterable[int]) -> Mask:
    """The codebooks of these numbers (from 0) are kept. Raises OptionError when there is none of a number."""
    out = copied(mask)
    for codebook in codebooks:
        if not 0 <= codebook < out.shape[-2]:
            raise OptionError(f"there is no codebook {codebook}: they are numbered 0 to {out.shape[-2] - 1}")
        out[..., codebook, :] = False
    return out


@closed()
def roll_mask(mask: Mask, frames: int) -> Mask:
    """Moved `frames` to the right (negative: left); what leaves at one end comes in at the other."""
    return np.roll(copied(mask), frames, axis=-1)


@closed()
def mask_and(first: Mask, second: Mask) -> Mask:
    """Generated where both masks say so. Shapes broadcast, so one mask may serve a batch."""
    return joined(np.logical_and, first, second)


@closed()
def mask_or(first: Mask, second: Mask) -> Mask:
    """Generated where at least one mask says so."""
    return joined(np.logical_or, first, second)


@closed()
def apply_mask(codes: NDArray[Any], mask: Mask, mask_id: int) -> NDArray[Any]:
    """The codes with `mask_id` wherever the mask is True."""
    mask = checked(mask)
    pairs = zip(mask.shape[::-1], codes.shape[::-1], strict=False)
    if mask.ndim > codes.ndim or any(size not in (1, wanted) for size, wanted in pairs):
        raise OptionError(f"the mask has shape {mask.shape}, but the codes have {codes.shape}")
    if codes.dtype.kind not in "iu" or not np.iinfo(codes.dtype).min <= mask_id <= np.iinfo(codes.dtype).max:
        raise OptionError(f"codes of {codes.dtype} cannot hold {mask_id}")
    return np.where(mask, np.asarray(mask_id, codes.dtype), codes)


@closed()
def drop_ones(mask: Mask, share: float, *, noise: Noise | None = None) -> Mask:
    """This share of the codes to be generated, drawn for each item of a batch, is kept instead."""
    check_share("the share of codes to keep", share)
    mask = copied(mask)
    if share == 0:
        return mask
    flat = mask.reshape(-1, mask.shape[-2] * mask.shape[-1])
    drawn = source_of(noise, "drop_ones").uniform(flat.shape)
    order = np.argsort(np.where(flat, drawn, np.float32(2)), axis=-1, kind="stable")
    for item, indices in zip(flat, order, strict=True):
        item[indices[: int(item.sum() * share)]] = False
    return flat.reshape(mask.shape)


@closed()
def dropout(
    mask: Mask,
    share: float,
    *,
    noise: Noise | None = None,
    frames: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    compat: Compat = "audiogen",
) -> Mask:
    """This share of all frames is generated in full, whatever the mask said.

    frames  the frames themselves, instead of drawn ones

    Frames are drawn without repetition, for each item of a batch; the original draws with repetition, once
    for all items, so that less than the share is reached.
    """
    check_share("dropout", share)
    out = copied(mask)
    length = out.shape[-1]
    if frames is not None:
        indices = np.asarray(frames, np.int64)
        if not ((indices >= 0) & (indices < length)).all():
            raise OptionError(f"frames to drop lie outside the mask's {length}")
        out[..., indices] = True
        return out
    count = int(length * share)
    if count == 0:
        return out
    source = source_of(noise, "dropout")
    if compat == "upstream":
        chosen = np.floor(source.uniform((1, count)).astype(np.float64) * length).astype(np.int64)
    else:
        order = np.argsort(source.uniform((math.prod(out.shape[:-2]), length)), axis=-1, kind="stable")
        chosen = order[:, :count]
    dropped = np.zeros((len(chosen), length), np.bool_)
    np.put_along_axis(dropped, chosen, True, axis=-1)
    return out | (dropped if compat == "upstream" else dropped.reshape(*out.shape[:-2], 1, length))


# ---- all together


@closed()
def build(
    like: Like,
    *,
    random_intensity: float = 1.0,
    prefix: int = 0,
    suffix: int = 0,
    period: int = 7,
    period_width: int = 1,
    roll: int | Literal["random"] = "random",
    onsets: Iterable[int] = (),
    onset_width: int = 0,
    dropout_share: float = 0.0,
    dropout_frames: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    within: Mask | None = None,
    keep: int = 3,
    conditioning_codebooks: int = 0,
    noise: Noise | None = None,
    compat: Compat = "audiogen",
) -> Mask:
    """A mask out of all prompts, joined in the original's order; its defaults too are the original's.

    random_intensity  probability of a code to be generated, before anything else
    prefix, suffix    frames kept at the beginning and the end
    period            every so many frames a place is kept (0: none), `period_width` wide, moved by `roll`
    onsets            frames; `onset_width` before and after each are kept (0: none)
    dropout_share     of the frames that are generated in spite of the prompts so far; `dropout_frames` names
                      them instead of drawing them
    within            another mask of this shape (of beats, of a file): kept where it says so
    keep              codebooks from this number on are always generated
    conditioning_codebooks  codebooks kept before that

    Draws, in this order and only where needed: random mask, roll, dropout.
    Raises OptionError for values out of range, and when noise is needed but not given.
    """
    mask = linear_random(like, random_intensity, noise=noise)
    mask = mask_and(mask, inpaint(mask, prefix, suffix))
    periodic = periodic_mask(
        mask, period, period_width, roll=roll if period > 1 else 0, noise=noise, compat=compat
    )
    mask = mask_and(mask, periodic)
    if onset_width:
        mask = mask_and(mask, onset_mask(mask, onsets, onset_width, compat=compat))
    mask = dropout(mask, dropout_share, noise=noise, frames=dropout_frames, compat=compat)
    if within is not None:
        mask = mask_and(mask, within)
    return codebook_mask(codebook_unmask(mask, conditioning_codebooks), keep)


# ---- checks of what is given


def shape_of(like: Like) -> tuple[int, ...]:
    shape = like if isinstance(like, tuple) else like.shape
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape) > MAX_PLACES:
        raise OptionError(f"a mask has shape (..., codebooks, frames), each 1 or more; got {tuple(shape)}")
    return tuple(shape)


def checked(mask: Mask) -> Mask:
    if mask.dtype != np.bool_:
        raise OptionError(f"a mask holds True (generate) and False (keep); got an array of {mask.dtype}")
    shape_of(mask)
    return mask


def copied(mask: Mask) -> Mask:
    return checked(mask).copy()


def joined(join: Callable[..., Any], first: Mask, second: Mask) -> Mask:
    masks = checked(first), checked(second)
    try:
        result: Mask = join(*masks)
    except ValueError as error:
        raise OptionError(f"masks of shapes {first.shape} and {second.shape} cannot be joined") from error
    return result


def source_of(noise: Noise | None, what: str) -> Noise:
    if noise is None:
        raise OptionError(f"{what} needs noise: give noise=SeededNoise(seed)")
    return noise


def _check_rates(sample_rate: int, hop_length: int) -> None:
    if sample_rate < 1 or hop_length < 1:
        raise OptionError(
            f"a sample rate and a hop length must be 1 or more, got {sample_rate} and {hop_length}"
        )


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise OptionError(f"{name} must lie in [0, 1], got {value}")


def check_count(name: str, value: int) -> None:
    if value < 0:
        raise OptionError(f"{name} must be 0 or more, got {value}")
