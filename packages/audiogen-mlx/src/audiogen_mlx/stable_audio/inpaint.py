"""Making a part of a clip anew: masks, models that were never trained for it, and the seams.

An inpainting checkpoint takes the mask and the kept latents beside its input. Any other model is led by
its own prediction: where the clip is kept, the clean latents it predicts are replaced by those of the
clip. Every sampler then carries kept latents along their exact noisy path, as RePaint does (Lugmayr et
al. 2022), without further draws.

Masks are True where sound is made anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.config import INPAINT_INPUT, INPAINT_MASK, Bounds, Config
from audiogen_mlx.stable_audio.diffusion import Array, Predict, Prediction

Mask = NDArray[np.bool_]

Region = Sequence[tuple[float, float]] | Mask
"""What is made anew of a clip: spans of seconds (from, to), or a mask of its samples."""

SEAM_SECONDS = 0.02
"""Over which kept sound gives way: long enough that no step is heard, too short to hear both at once."""


def conformed(clip: Audio, config: Bounds) -> Audio:
    """A clip at the model's rate and channels. Raises AudioMismatch when channels cannot be mixed so."""
    return clip.resample(config.sample_rate).mix(config.channels)


def sample_mask(region: Region, config: Config) -> Mask:
    """A region as (window samples,). Raises OptionError when it is empty, reversed or outside the window."""
    if isinstance(region, np.ndarray):
        if region.dtype != np.bool_ or region.ndim != 1 or not 0 < len(region) <= config.window:
            raise OptionError(
                f"a mask must be bool, one per sample and {config.window} at most, "
                f"got {region.dtype} {region.shape}"
            )
        if not region.any():
            raise OptionError("the mask names nothing to make anew; it is True where sound is made")
        return np.pad(region, (0, config.window - len(region)))
    mask = np.zeros(config.window, dtype=np.bool_)
    for start, end in region:
        if not 0 <= start < end:
            raise OptionError(
                f"inpaint needs a start of 0 or more and an end after it, got {start:g} to {end:g}"
            )
        if start >= config.window_seconds:
            raise OptionError(
                f"inpaint starts at {start:g} s, after the model's {config.window_seconds:.2f} s"
            )
        mask[round(start * config.sample_rate) : round(end * config.sample_rate)] = True
    if not mask.any():
        raise OptionError("inpaint names nothing to make anew")
    return mask


def latent_mask(mask: Mask, frames: int) -> Mask:
    """A mask of samples at latent frames: each takes the value of its first sample.

    Raises OptionError when nothing is left to make.
    """
    reduced: Mask = mask[np.arange(frames) * len(mask) // frames]
    if not reduced.any():
        raise OptionError("the part to inpaint is shorter than the latent frames it lies in; make it longer")
    return reduced


def beside(config: Config, latents: mx.array | None, mask: Mask | None) -> mx.array | None:
    """What an inpainting checkpoint takes beside its input, (B, n, T); None for other models.

    latents  of the clip, (B, C, T); None makes everything anew
    mask     of latent frames
    """
    if not config.inpaint:
        return None
    if latents is None or mask is None:
        return mx.zeros((1, config.dit.concat_channels, config.frames))
    kept = mx.array(~mask).astype(mx.float32)[None, None]  # (1, 1, T), 1 = kept
    channels = {
        INPAINT_MASK: mx.broadcast_to(kept, (latents.shape[0], 1, latents.shape[2])),
        INPAINT_INPUT: latents * kept,
    }
    return mx.concatenate([channels[name] for name in config.concat_ids], axis=1)


def keeping(predict: Predict, latents: mx.array, mask: Mask, *, flow: bool) -> Predict:
    """The same model, held to `latents` (B, C, T) wherever `mask` (T,) is False."""
    anew = mx.array(mask)[None, None]
    known = mx.zeros_like(latents)  # velocity towards the clip

    def held(x: Array, t: float) -> Prediction:
        nonlocal known
        if flow and t > 0:  # at 0 it cannot be told, but it is the same all along the way
            known = (x - latents) * (1 / t)
        elif t > 0:
            alpha, sigma = math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)
            known = (alpha * x - latents) * (1 / sigma)
        return Prediction(*(mx.where(anew, one, known) for one in predict(x, t)))

    return held


def splice(
    made: NDArray[np.float32], kept: NDArray[np.float32], mask: Mask, seam: int
) -> NDArray[np.float32]:
    """`made` where the mask is True, `kept` elsewhere; both (channels, samples).

    Over the `seam` samples before and after each made part the kept sound gives way gradually.
    """
    weight = mask.astype(np.float32)
    fade = (0.5 - 0.5 * np.cos(np.pi * np.arange(1, seam + 1) / (seam + 1))).astype(np.float32)  # rising
    for edge in np.flatnonzero(np.diff(mask.astype(np.int8))) + 1:
        if mask[edge]:  # a made part begins
            before = weight[max(edge - seam, 0) : edge]
            np.maximum(before, fade[seam - len(before) :], out=before)
        else:
            after = weight[edge : edge + seam]
            np.maximum(after, fade[::-1][: len(after)], out=after)
    mixed = kept + (made - kept) * weight
    return np.ascontiguousarray(np.where(mask, made, mixed), dtype=np.float32)
