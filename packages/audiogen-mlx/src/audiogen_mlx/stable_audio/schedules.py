"""Noise schedules: the levels at which a sampler calls the model.

Two scales. Rectified flow measures time t in [0, 1], the share of noise in x = (1 - t) x0 + t noise.
The v objective is sampled on sigma, the noise beside clean latents in x = x0 + sigma noise; the model
hears of it as t = atan(sigma) * 2 / pi.

Everything is computed in float64. Sources: stable-audio-tools, inference/sampling.py; k-diffusion,
sampling.py (polyexponential, the exponential schedule of Karras et al. 2022 for rho 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import OptionError

Times = NDArray[np.float64]

_LOGSNR_FIRST = -6.0  # where the log signal-to-noise ratio begins for a run from pure noise
_LOGSNR_LAST = 2.0


def rectified_flow(steps: int, sigma_max: float = 1.0) -> Times:
    """steps + 1 times from `sigma_max` down to 0, evenly spaced in log signal-to-noise ratio.

    Raises OptionError when `steps` is below 1 or `sigma_max` outside (0, 1].
    """
    _check_steps(steps)
    _check_share(sigma_max)
    first = _LOGSNR_FIRST if sigma_max >= 1 else math.log((1 - sigma_max) / sigma_max + 1e-6)
    times = 1 / (1 + np.exp(np.linspace(first, _LOGSNR_LAST, steps + 1)))
    times[0], times[-1] = sigma_max, 0.0
    return times


def linear(steps: int, sigma_max: float = 1.0) -> Times:
    """steps + 1 times from `sigma_max` down to 0, evenly spaced. Raises OptionError as above."""
    _check_steps(steps)
    _check_share(sigma_max)
    return np.linspace(sigma_max, 0.0, steps + 1)


def polyexponential(steps: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Times:
    """steps + 1 sigmas from `sigma_max` to `sigma_min`, then 0; `rho` 1 spaces their logarithms evenly.

    Raises OptionError when `steps` is below 1, or not 0 < sigma_min < sigma_max, or rho is not positive.
    """
    _check_steps(steps)
    if not (math.isfinite(sigma_max) and 0 < sigma_min < sigma_max):
        raise OptionError(
            f"sigma_min must be above 0 and below sigma_max, got {sigma_min:g} and {sigma_max:g}; "
            "the noise level of a starting clip takes the place of sigma_max"
        )
    if not (math.isfinite(rho) and rho > 0):
        raise OptionError(f"rho must be above 0, got {rho:g}")
    ramp = np.linspace(1.0, 0.0, steps) ** rho
    sigmas = np.exp(ramp * math.log(sigma_max / sigma_min) + math.log(sigma_min))
    return np.append(sigmas, 0.0)


def sigma_to_time(sigma: float) -> float:
    """The t in [0, 1] under which a v model knows sigma."""
    return math.atan(sigma) * 2 / math.pi


@dataclass(frozen=True)
class DistributionShift:
    """Moves times towards noise as sequences grow: `distribution_shift_options` of a configuration.

    base_shift, max_shift    of the log ratio at min_length and max_length latent frames
    use_sine                 afterwards t -> sin(t pi / 2)
    """

    base_shift: float = 0.5
    max_shift: float = 1.15
    max_length: int = 4096
    min_length: int = 256
    use_sine: bool = False

    def __post_init__(self) -> None:
        if self.max_length <= self.min_length:
            raise OptionError(
                f"distribution_shift_options: max_length {self.max_length} must be above "
                f"min_length {self.min_length}"
            )

    def __call__(self, times: Times, frames: int) -> Times:
        """Shifted times for a sequence of `frames` latent frames; 0 and 1 stay where they are."""
        length = min(max(frames, self.min_length), self.max_length)
        share = (length - self.min_length) / (self.max_length - self.min_length)
        mu = math.exp(-(self.base_shift + (self.max_shift - self.base_shift) * share))
        with np.errstate(divide="ignore"):
            shifted = 1 - mu / (mu + (1 / (1 - times) - 1))
        return np.sin(shifted * math.pi / 2) if self.use_sine else shifted


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise OptionError(f"steps must be 1 or more, got {steps}")


def _check_share(sigma_max: float) -> None:
    if not 0 < sigma_max <= 1:
        raise OptionError(f"the noise level of a rectified flow lies in (0, 1], got {sigma_max:g}")
