"""Samplers: from noise to latents in a few calls of a model, about which nothing is known here.

A model is called as `predict(x, t)` with latents (B, C, T) and a time t in [0, 1]; it predicts the
velocity dx/dt of a rectified flow, or v = alpha noise - sigma x0 with alpha = cos(t pi/2) and
sigma = sin(t pi/2). Arrays need only + - * with numbers: numpy's and mlx's both do. Coefficients are
Python floats. Every sampler is a generator of its steps, so a caller may watch, or stop.

Sources: stable-audio-tools, inference/sampling.py; k-diffusion, sampling.py, after Lu et al. 2022
(DPM-Solver++) and Karras et al. 2022 (Heun); Chung et al. 2024 (CFG++).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from audiogen_mlx.stable_audio.schedules import (
    DistributionShift,
    Times,
    linear,
    polyexponential,
    rectified_flow,
    sigma_to_time,
)

Array = Any  # (B, C, T)


class Prediction(NamedTuple):
    """What a model says: the velocity, and the same without guidance where there is any."""

    velocity: Array
    unguided: Array


Predict = Callable[[Array, float], Prediction]
Draw = Callable[[], Array]
"""Fresh unit noise of the shape of the latents."""


@dataclass(frozen=True)
class Step:
    """One step of a sampler.

    index     0, 1, ...
    level     where it began: t of a rectified flow, else sigma
    before    the latents then
    denoised  the clean latents that the step went towards
    after     the latents at its end
    """

    index: int
    level: float
    before: Array
    denoised: Array
    after: Array


@dataclass(frozen=True)
class Task:
    """What a sampler is asked to do.

    predict    the model
    noise      unit noise (B, C, T) to begin with
    draw       more of it
    steps      iterations
    sigma_max  the level to begin at; above 1 means 1 wherever t is the scale
    sigma_min  the last level above 0, where sigma is the scale
    rho        curvature of the sigma schedule
    init       clean latents to begin from, mixed with noise at sigma_max; or None
    shift      moves the times of rk4; or None
    times      of a rectified flow, from the first to 0, in the place of those the sampler would take
    floor      of t and of 1 - t where dpmpp divides by them; 0: steps from 1 and to 0 are of first order
    """

    predict: Predict
    noise: Array
    draw: Draw
    steps: int
    sigma_max: float = 1.0
    sigma_min: float = 0.3
    rho: float = 1.0
    init: Array | None = None
    shift: DistributionShift | None = field(default=None)
    times: Sequence[float] | None = None
    floor: float = 0.0

    @property
    def flow_times(self) -> Times | Sequence[float]:
        """Of a rectified flow, spaced by its signal-to-noise ratio where none are given."""
        return rectified_flow(self.steps, self.share) if self.times is None else self.times

    @property
    def share(self) -> float:
        return min(self.sigma_max, 1.0)


# Rectified flow


def pingpong(task: Task) -> Iterator[Step]:
    """To the clean latents and back to a lower level with fresh noise, at each step (ARC models)."""
    x = _flow_start(task)
    for index, (t, following) in enumerate(_pairs(task.flow_times)):
        denoised = x - t * task.predict(x, t).velocity
        noise = task.draw()  # at the last step too, though times 0: recorded draws then line up
        after = (1 - following) * denoised + following * noise
        yield Step(index, t, x, denoised, after)
        x = after


def euler(task: Task) -> Iterator[Step]:
    """Straight along the velocity."""
    x = _flow_start(task)
    for index, (t, following) in enumerate(_pairs(task.flow_times)):
        velocity = task.predict(x, t).velocity
        after = x + (following - t) * velocity
        yield Step(index, t, x, x - t * velocity, after)
        x = after


def rk4(task: Task) -> Iterator[Step]:
    """The classic Runge-Kutta method on evenly spaced times: four calls a step."""
    evenly = linear(task.steps, task.share)
    if task.shift is not None:
        evenly = task.shift(evenly, int(task.noise.shape[-1]))
    times = evenly if task.times is None else task.times
    x = _flow_start(task)
    for index, (t, following) in enumerate(_pairs(times)):
        dt = following - t
        k1 = task.predict(x, t).velocity
        k2 = task.predict(x + dt / 2 * k1, t + dt / 2).velocity
        k3 = task.predict(x + dt / 2 * k2, t + dt / 2).velocity
        k4 = task.predict(x + dt * k3, following).velocity
        after = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        yield Step(index, t, x, after - following * k4, after)
        x = after


def dpmpp(task: Task) -> Iterator[Step]:
    """DPM-Solver++ of second order; its first and its last step are of first order."""
    x = _flow_start(task)
    last: Array = None
    gone = math.nan  # the width of the step before, in log signal-to-noise ratio
    for index, (t, following) in enumerate(_pairs(task.flow_times)):
        denoised = x - t * task.predict(x, t).velocity
        width = _log_snr(following, task.floor) - _log_snr(t, task.floor)
        towards = denoised
        if last is not None and following > 0 and math.isfinite(gone):
            weight = width / (2 * gone)
            towards = (1 + weight) * denoised - weight * last
        after = (following / t) * x - (1 - following) * math.expm1(-width) * towards
        yield Step(index, t, x, denoised, after)
        x, last, gone = after, denoised, width


# The v objective


def v_ddim(task: Task) -> Iterator[Step]:
    """DDIM without fresh noise on evenly spaced times."""
    return _ddim(task, plus=False)


def v_ddim_cfgpp(task: Task) -> Iterator[Step]:
    """DDIM that takes the noise from the unguided prediction (CFG++)."""
    return _ddim(task, plus=True)


def _ddim(task: Task, *, plus: bool) -> Iterator[Step]:
    times = [float(t) for t in linear(task.steps, task.share)[:-1]]
    x = task.noise
    if task.init is not None:
        alpha, sigma = _angle(task.share)
        x = alpha * task.init + sigma * task.noise
    for index, t in enumerate(times):
        alpha, sigma = _angle(t)
        predicted = task.predict(x, t)
        denoised = alpha * x - sigma * predicted.velocity
        noise = sigma * x + alpha * (predicted.unguided if plus else predicted.velocity)
        after = denoised
        if index + 1 < len(times):
            alpha_next, sigma_next = _angle(times[index + 1])
            after = alpha_next * denoised + sigma_next * noise
        yield Step(index, sigma, x, denoised, after)
        x = after


def dpmpp_2m(task: Task) -> Iterator[Step]:
    """DPM-Solver++ of second order, without fresh noise."""
    sigmas, x = _sigma_start(task)
    last: Array = None
    gone = 0.0
    for index, (sigma, following) in enumerate(_pairs(sigmas)):
        denoised = _denoise(task.predict, x, sigma)
        after, width, towards = denoised, 0.0, denoised
        if following > 0:
            width = math.log(sigma / following)
            if last is not None:
                weight = width / (2 * gone)
                towards = (1 + weight) * denoised - weight * last
            after = (following / sigma) * x - math.expm1(-width) * towards
        yield Step(index, sigma, x, denoised, after)
        x, last, gone = after, denoised, width


def dpmpp_2m_sde(task: Task) -> Iterator[Step]:
    """DPM-Solver++ of second order as a stochastic equation, midpoint rule."""
    return _two_step_sde(task, *_sigma_start(task), draw_last=False)


def cosine_dpm(task: Task) -> Iterator[Step]:
    """The scheduler of diffusers' pipeline: dpmpp-2m-sde that begins at sqrt(sigma_max^2 + 1).

    It draws noise for the last step too and does not use it.
    """
    sigmas, _ = _sigma_start(task)
    x = task.noise * math.sqrt(float(sigmas[0]) ** 2 + 1)
    return _two_step_sde(task, sigmas, x if task.init is None else x + task.init, draw_last=True)


def _two_step_sde(task: Task, sigmas: Sequence[float], x: Array, *, draw_last: bool) -> Iterator[Step]:
    last: Array = None
    gone = 0.0
    for index, (sigma, following) in enumerate(_pairs(sigmas)):
        denoised = _denoise(task.predict, x, sigma)
        after, width = denoised, 0.0
        if following > 0:
            width = math.log(sigma / following)
            after = _sde_mean(x, denoised, sigma, following, width)
            if last is not None:
                after = after - 0.5 * math.expm1(-2 * width) * width / gone * (denoised - last)
            after = after + following * math.sqrt(-math.expm1(-2 * width)) * task.draw()
        elif draw_last:
            task.draw()
        yield Step(index, sigma, x, denoised, after)
        x, last, gone = after, denoised, width


def dpmpp_3m_sde(task: Task) -> Iterator[Step]:
    """DPM-Solver++ of third order as a stochastic equation."""
    sigmas, x = _sigma_start(task)
    history: list[tuple[Array, float]] = []  # newest first: denoised, and the width of its step
    for index, (sigma, following) in enumerate(_pairs(sigmas)):
        denoised = _denoise(task.predict, x, sigma)
        after, width = denoised, 0.0
        if following > 0:
            width = math.log(sigma / following)
            after = _sde_mean(x, denoised, sigma, following, width)
            after = after + _sde_correction(denoised, width, history)
            after = after + following * math.sqrt(-math.expm1(-2 * width)) * task.draw()
        yield Step(index, sigma, x, denoised, after)
        x, history = after, [(denoised, width), *history[:1]]


def _sde_mean(x: Array, denoised: Array, sigma: float, following: float, width: float) -> Array:
    return math.exp(-width) * (following / sigma) * x - math.expm1(-2 * width) * denoised


def _sde_correction(denoised: Array, width: float, history: list[tuple[Array, float]]) -> Array | float:
    """What the second and third order add to a step of `width` in log sigma."""
    if not history:
        return 0.0
    phi2 = math.expm1(-2 * width) / (2 * width) + 1
    (last, gone), *earlier = history
    ratio = gone / width
    slope = (denoised - last) * (1 / ratio)
    if not earlier:
        return phi2 * slope
    ratio_before = earlier[0][1] / width
    slope_before = (last - earlier[0][0]) * (1 / ratio_before)
    bend = (slope - slope_before) * (1 / (ratio + ratio_before))
    phi3 = phi2 / (2 * width) - 0.5
    return phi2 * (slope + ratio * bend) - phi3 * bend


def k_heun(task: Task) -> Iterator[Step]:
    """Heun's method: two calls a step, one at the last."""
    sigmas, x = _sigma_start(task)
    for index, (sigma, following) in enumerate(_pairs(sigmas)):
        task.draw()  # used only with churn, which is off; drawn so that recorded draws line up
        denoised = _denoise(task.predict, x, sigma)
        slope = (x - denoised) * (1 / sigma)
        after = x + (following - sigma) * slope
        if following > 0:
            ahead = (after - _denoise(task.predict, after, following)) * (1 / following)
            after = x + (following - sigma) / 2 * (slope + ahead)
        yield Step(index, sigma, x, denoised, after)
        x = after


# What they share


def _flow_start(task: Task) -> Array:
    if task.init is None:
        return task.noise
    return (1 - task.share) * task.init + task.share * task.noise


def _sigma_start(task: Task) -> tuple[Sequence[float], Array]:
    sigmas = [float(sigma) for sigma in polyexponential(task.steps, task.sigma_min, task.sigma_max, task.rho)]
    x = task.noise * sigmas[0]
    return sigmas, x if task.init is None else x + task.init


def _denoise(predict: Predict, x: Array, sigma: float) -> Array:
    """Clean latents from x = x0 + sigma noise, by a v model (k-diffusion's VDenoiser)."""
    scale = 1 / math.sqrt(sigma * sigma + 1)
    velocity = predict(x * scale, sigma_to_time(sigma)).velocity
    return velocity * (-sigma * scale) + x * (scale * scale)


def _pairs(levels: Any) -> Iterator[tuple[float, float]]:
    return pairwise(float(level) for level in levels)


def _angle(t: float) -> tuple[float, float]:
    return math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)


def _log_snr(t: float, floor: float = 0.0) -> float:
    if floor:
        return math.log(max(1 - t, floor) / max(t, floor))
    if t <= 0:
        return math.inf
    return -math.inf if t >= 1 else math.log((1 - t) / t)


@dataclass(frozen=True)
class Sampler:
    """A sampler by name.

    run        the generator of steps
    flow       for rectified flow; else for the v objective
    shares     the level lies in (0, 1]; else it is a sigma of any size
    stochastic whether it draws fresh noise
    """

    run: Callable[[Task], Iterator[Step]]
    flow: bool
    shares: bool
    stochastic: bool = False


SAMPLERS = {
    "pingpong": Sampler(pingpong, flow=True, shares=True, stochastic=True),
    "euler": Sampler(euler, flow=True, shares=True),
    "rk4": Sampler(rk4, flow=True, shares=True),
    "dpmpp": Sampler(dpmpp, flow=True, shares=True),
    "v-ddim": Sampler(v_ddim, flow=False, shares=True),
    "v-ddim-cfgpp": Sampler(v_ddim_cfgpp, flow=False, shares=True),
    "dpmpp-2m": Sampler(dpmpp_2m, flow=False, shares=False),
    "dpmpp-2m-sde": Sampler(dpmpp_2m_sde, flow=False, shares=False, stochastic=True),
    "dpmpp-3m-sde": Sampler(dpmpp_3m_sde, flow=False, shares=False, stochastic=True),
    "k-heun": Sampler(k_heun, flow=False, shares=False),
    "cosine-dpm": Sampler(cosine_dpm, flow=False, shares=False, stochastic=True),
}
