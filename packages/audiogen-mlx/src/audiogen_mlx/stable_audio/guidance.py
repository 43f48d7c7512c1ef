"""Classifier-free guidance: what a prediction gains from its prompt, taken several times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.conditioning import Conditioning, collapsed
from audiogen_mlx.stable_audio.diffusion import Predict, Prediction
from audiogen_mlx.stable_audio.model import DiT, Run

Network = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]
"""Latents and global token to the velocity and the same without guidance."""


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when.

    scale     1 is off; out = null + scale (prompted - null)
    rescale   share in [0, 1] by which the spread over channels is set back to that of the prompted one
    interval  noise levels in [0, 1] between which guidance acts: t of a flow, else sin(t pi/2)

    Raises OptionError for values outside these ranges.
    """

    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise OptionError(f"the guidance scale must be a finite number, got {self.scale}")
        if not 0 <= self.rescale <= 1:
            raise OptionError(f"guidance rescale lies in [0, 1], got {self.rescale:g}")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise OptionError(f"the guidance interval must be 0 <= from <= to <= 1, got {low:g} to {high:g}")

    def acts(self, t: float, flow: bool) -> bool:
        """Whether it changes anything at time t."""
        level = t if flow else math.sin(t * math.pi / 2)
        return self.scale != 1.0 and self.interval[0] <= level <= self.interval[1]

    def join(self, prompted: mx.array, null: mx.array) -> mx.array:
        """Both predictions (B, C, T) in one."""
        joined = null + (prompted - null) * self.scale
        if self.rescale == 0:
            return joined
        ratio = mx.std(prompted, axis=1, keepdims=True, ddof=1) / mx.std(
            joined, axis=1, keepdims=True, ddof=1
        )
        return self.rescale * (joined * ratio) + (1 - self.rescale) * joined


def predictor(
    dit: DiT,
    conditioning: Conditioning,
    guidance: Guidance,
    frames: int,
    *,
    flow: bool,
    negative: Conditioning | None = None,
    concat: mx.array | None = None,
) -> Predict:
    """The network as samplers call it, with guidance; every result is evaluated.

    negative  tokens for the null half, in place of none; its global part is not used
    concat    (B, n, T) channels beside the latents

    What is fixed is worked out here. Without a negative prompt the null half skips attention to tokens,
    which would add exactly nothing.
    """
    guides = guidance.scale != 1.0 and conditioning.tokens is not None
    tokens, bias = _tokens(conditioning, negative if guides else None)
    global_ = conditioning.global_
    if guides:
        global_, concat = _twice(global_), _twice(concat)
    whole = dit.condition(tokens, global_, frames, concat=concat, bias=bias)
    single = whole.first(len(conditioning.mask)) if guides else whole
    joint, plain = _joint(dit, whole, guidance), _plain(dit, single)
    if mx.default_device() == mx.Device(mx.gpu):  # on the CPU, compiling takes seconds and gains nothing
        joint, plain = mx.compile(joint), mx.compile(plain)

    def predict(x: mx.array, t: float) -> Prediction:
        acts = guides and guidance.acts(t, flow)
        token = dit.global_token(t, whole if acts else single)
        velocity, unguided = (joint if acts else plain)(x, token)
        mx.eval(velocity, unguided)
        return Prediction(velocity, unguided)

    return predict


def _tokens(
    conditioning: Conditioning, negative: Conditioning | None
) -> tuple[mx.array | None, mx.array | None]:
    """Tokens of the prompted items, then of the negative ones; and the bias of their padding."""
    tokens, mask = conditioning.tokens, conditioning.mask
    if tokens is None:
        return None, None
    if negative is not None and negative.tokens is not None:
        zeroed = negative.tokens * mx.array(negative.mask)[..., None]
        tokens, mask = mx.concatenate([tokens, zeroed]), np.concatenate([mask, negative.mask])
    return collapsed(tokens, mask)


def _twice(array: mx.array | None) -> mx.array | None:
    return None if array is None else mx.concatenate([array, array])


def _joint(dit: DiT, run: Run, guidance: Guidance) -> Network:
    def network(x: mx.array, token: mx.array) -> tuple[mx.array, mx.array]:
        prompted, null = mx.split(dit.step(mx.concatenate([x, x]), token, run), 2)
        return guidance.join(prompted, null), null

    return network


def _plain(dit: DiT, run: Run) -> Network:
    def network(x: mx.array, token: mx.array) -> tuple[mx.array, mx.array]:
        velocity = dit.step(x, token, run)
        return velocity, velocity

    return network
