"""What all masks share: their type, counts of frames, the schedule, and the checks of what is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise

Mask = NDArray[np.bool_]
Like = NDArray[Any] | tuple[int, ...]
"""An array (..., codebooks, frames), or its shape."""

Compat = Literal["audiogen", "upstream"]


def seconds_to_frames(seconds: float, sample_rate: int, hop_length: int) -> int:
    """How many codec frames cover this many seconds: rounded up, as the original counts.

    Raises OptionError when seconds is negative or not finite.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise OptionError(f"a time must be 0 seconds or more, got {seconds}")
    return math.ceil(seconds * sample_rate / hop_length)


def frames_to_seconds(frames: int, sample_rate: int, hop_length: int) -> float:
    """The duration of this many codec frames, seconds."""
    return frames * hop_length / sample_rate


def gamma(progress: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Share of codes still masked at `progress` in [0, 1]: a quarter of a cosine, never below 1e-10."""
    angle = np.asarray(progress, np.float32) * np.float32(math.pi) / np.float32(2)
    return np.asarray(np.clip(np.cos(angle), np.float32(1e-10), np.float32(1)))


def inverse_gamma(share: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """The progress at which `share` of the codes is masked: the inverse of `gamma`."""
    turned = np.float32(2) * np.arccos(np.asarray(share, np.float32)) / np.float32(math.pi)
    return np.asarray(turned, np.float32)


def shape_of(like: Like) -> tuple[int, ...]:
    shape = like if isinstance(like, tuple) else like.shape
    if len(shape) < 2 or min(shape) < 1:
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


def uniform(shape: tuple[int, ...], noise: Noise | None, what: str) -> NDArray[np.float32]:
    """One number in [0, 1) for each code; leading axes are taken as one batch."""
    batch = (math.prod(shape[:-2]), *shape[-2:])
    return source_of(noise, what).uniform(batch).reshape(shape)


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise OptionError(f"{name} must lie in [0, 1], got {value}")


def check_count(name: str, value: int) -> None:
    if value < 0:
        raise OptionError(f"{name} must be 0 or more, got {value}")
