"""Guidance: what a prediction gains from its prompt, taken several times, but not what makes it louder.

The gain is split in a part along the prediction and one at a right angle to it, and the first is left out
(adaptive projected guidance, arXiv 2410.02416). Predictions are compared as clean latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio import guidance as plain
from audiogen_mlx.stable_audio.conditioning import Conditioning, collapsed
from audiogen_mlx.stable_audio.diffusion import Predict, Prediction
from audiogen_mlx.stable_audio_3.model import DiT, Run

FIRST_TIME = 1e-5  # at 0 clean latents say nothing of a velocity; rk4 asks there


@dataclass(frozen=True)
class Guidance(plain.Guidance):
    """How strongly, and when: as of Stable Audio Open, and

    projection  share in [0, 1] of the gain along the prediction that is left out
    threshold   the gain is shrunk to this length over a clip where it is longer; 0: never
    """

    projection: float = 1.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.projection <= 1:
            raise OptionError(f"guidance_projection lies in [0, 1], got {self.projection:g}")
        if not self.threshold >= 0:
            raise OptionError(f"the threshold of guidance must be 0 or more, got {self.threshold:g}")

    def steer(
        self, x: mx.array, t: mx.array, prompted: mx.array, null: mx.array, valid: mx.array | None
    ) -> mx.array:
        """Both velocities (B, C, T) at time t in one; `valid` (B, 1, T) is 0 after the end of a clip."""
        clean = x - t * prompted
        gain = clean - (x - t * null)
        if self.threshold:
            length = mx.sqrt(mx.sum(gain * gain, axis=(1, 2), keepdims=True))
            gain = gain * mx.minimum(1.0, self.threshold / mx.maximum(length, 1e-12))
        if self.projection:
            across = gain - _along(gain, clean, valid)
            across = across if valid is None else across * valid
            gain = self.projection * across + (1 - self.projection) * gain
        joined = (x - (clean + (self.scale - 1) * gain)) / t
        if self.rescale == 0:
            return joined
        ratio = mx.std(prompted, axis=1, keepdims=True, ddof=1) / mx.std(
            joined, axis=1, keepdims=True, ddof=1
        )
        return self.rescale * (joined * ratio) + (1 - self.rescale) * joined


def _along(gain: mx.array, clean: mx.array, valid: mx.array | None) -> mx.array:
    """The part of a gain along the prediction, for each clip."""
    if valid is not None:
        gain, clean = gain * valid, clean * valid
    length = mx.sqrt(mx.sum(clean * clean, axis=(1, 2), keepdims=True))
    unit = clean / mx.maximum(length, 1e-12)
    return mx.sum(gain * unit, axis=(1, 2), keepdims=True) * unit


def predictor(
    dit: DiT,
    conditioning: Conditioning,
    guidance: Guidance,
    frames: int,
    *,
    local: mx.array,
    negative: Conditioning | None = None,
    valid: mx.array | None = None,
    shown: bool = False,
) -> Predict:
    """The network as samplers call it, with guidance; every result is evaluated.

    local     (B or 1, 1 + C, T or 1), what is kept and its latents
    negative  tokens for the null half, in the place of none; its global part is not used
    valid     (B, T), 0 where a clip is over though the run is not; values of attention are zeros there
    shown     the padding of a negative prompt is what it is of a prompt; it is zeros otherwise

    What is fixed is worked out here. Without a negative prompt the null half skips attention to tokens,
    which would add exactly nothing.
    """
    guides = guidance.scale != 1.0
    tokens, mask, global_ = conditioning.tokens, conditioning.mask, conditioning.global_
    assert tokens is not None and global_ is not None
    if guides and negative is not None and negative.tokens is not None:
        rows = negative.tokens if shown else negative.tokens * mx.array(negative.mask)[..., None]
        tokens, mask = mx.concatenate([tokens, rows]), np.concatenate([mask, negative.mask])
    tokens, bias = collapsed(tokens, mask)
    counted = valid
    if guides:
        global_ = mx.concatenate([global_, global_])
        local = mx.concatenate([local, local]) if local.shape[0] > 1 else local
        counted = None if valid is None else mx.concatenate([valid, valid])
    whole = dit.condition(tokens, global_, frames, local=local, bias=bias, valid=counted)
    single = whole.first(len(conditioning.mask)) if guides else whole
    places = None if valid is None else valid[:, None]
    joint, alone = _joint(dit, whole, guidance, places), _alone(dit, single)
    if mx.default_device() == mx.Device(mx.gpu):  # on the CPU, compiling takes seconds and gains nothing
        joint, alone = mx.compile(joint), mx.compile(alone)

    def predict(x: mx.array, t: float) -> Prediction:
        t = max(t, FIRST_TIME)
        acts = guides and guidance.acts(t, True)
        token = dit.global_token(t, whole if acts else single)
        velocity, unguided = joint(x, mx.array(t), token) if acts else alone(x, token)
        mx.eval(velocity, unguided)
        return Prediction(velocity, unguided)

    return predict


Pair = tuple[mx.array, mx.array]


def _joint(
    dit: DiT, run: Run, guidance: Guidance, valid: mx.array | None
) -> Callable[[mx.array, mx.array, mx.array], Pair]:
    def network(x: mx.array, t: mx.array, token: mx.array) -> Pair:
        prompted, null = mx.split(dit.step(mx.concatenate([x, x]), token, run), 2)
        return guidance.steer(x, t, prompted, null, valid), null

    return network


def _alone(dit: DiT, run: Run) -> Callable[[mx.array, mx.array], Pair]:
    def network(x: mx.array, token: mx.array) -> Pair:
        velocity = dit.step(x, token, run)
        return velocity, velocity

    return network
