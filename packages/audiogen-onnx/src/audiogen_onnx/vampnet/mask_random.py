"""Random masks: the ones that VampNet is trained with (vampnet/newmask.py), and draws from a mask.

`progress` runs from 0, everything is generated, to 1, nothing is, along `gamma`. Every item of a batch has
the draws that it would have alone.
"""

from __future__ import annotations

import math

import numpy as np

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise
from audiogen_onnx.vampnet.mask_values import (
    Like,
    Mask,
    check_share,
    copied,
    gamma,
    shape_of,
    source_of,
    uniform,
)


def linear_random(like: Like, probability: float, *, noise: Noise | None = None) -> Mask:
    """Each code is generated with this probability. `noise` is needed unless that is 0 or 1."""
    check_share("the probability of a random mask", probability)
    shape = shape_of(like)
    if probability in (0.0, 1.0):
        return np.full(shape, probability == 1.0)
    return uniform(shape, noise, "a random mask") < probability


def random(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """Each code is generated with probability gamma(progress): all of them at 0, none at 1."""
    check_share("the progress of a random mask", progress)
    return linear_random(like, float(gamma(progress)) if progress < 1 else 0.0, noise=noise)


def random_along_time(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """Each frame is generated, in all its codebooks, with probability gamma(progress)."""
    shape = shape_of(like)
    one = random((*shape[:-2], 1, shape[-1]), progress, noise=noise)
    return np.broadcast_to(one, shape).copy()


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


def hugo_random(like: Like, progress: float, *, noise: Noise | None = None) -> Mask:
    """As many codebooks of each frame as `random` would generate there, but the last ones."""
    mask = random(like, progress, noise=noise)
    kept = mask.shape[-2] - mask.sum(axis=-2, keepdims=True)
    return np.asarray(np.arange(mask.shape[-2])[:, None] >= kept)


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
