"""The times at which a sampler calls the model, in float32 step by step, as the original computes them.

The network tells times apart by their last bits (see `conditioning.features`), so these count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.settings import Section

Times = NDArray[np.float32]
_ONE = np.float32(1)

KINDS: dict[str, dict[str, float]] = {
    "logsnr": {"anchor_length": 2000, "anchor_logsnr": -6.2, "rate": 1.0, "logsnr_end": 2.0},
    "full": {"base_shift": 0.5, "max_shift": 1.15, "min_length": 256, "max_length": 4096, "use_sine": 0.0},
    "flux": {"min_length": 256, "max_length": 4096, "alpha_min": 6.93, "alpha_max": 6.93},
    "none": {},
}
"""What each kind of shift can be told, with the original's defaults."""


@dataclass(frozen=True)
class Shift:
    """How evenly spaced times are moved: by a kind of the original's, with its settings.

    The default is what it uses where a configuration says nothing: evenly spaced in the logarithm of the
    signal-to-noise ratio, whatever the length.
    """

    kind: str = "logsnr"
    settings: tuple[tuple[str, float], ...] = (("rate", 0.0),)

    @classmethod
    def of(cls, options: dict[str, Any], where: str) -> Shift:
        """From `sampling_distribution_shift_options`. Raises ModelError for a kind that is not known."""
        if not options:
            return cls()
        table = Section(options, f"{where}: sampling_distribution_shift_options")
        kind = table.take("type", str, "full")
        if kind not in KINDS:
            raise ModelError(f"{table.where}: type {kind!r} is not known; there are {', '.join(KINDS)}")
        settings = []
        for name, default in KINDS[kind].items():
            value = table.take(name, bool, False) if name == "use_sine" else table.take(name, float, default)
            settings.append((name, float(value)))
        table.finish()
        return cls(kind, tuple(settings))

    def describe(self) -> dict[str, Any]:
        """As a configuration says it: `of` read backwards."""
        told = {name: bool(value) if name == "use_sine" else value for name, value in self.settings}
        return {"type": self.kind, **told}

    def __call__(self, times: Times, frames: int) -> Times:
        """Times of a run of so many latent frames."""
        own = KINDS[self.kind] | dict(self.settings)
        if self.kind == "logsnr":
            start = own["anchor_logsnr"] - own["rate"] * math.log2(frames / own["anchor_length"])
            ratio = np.float32(own["logsnr_end"]) - times * np.float32(own["logsnr_end"] - start)
            sooner: Times = _ONE / (_ONE + np.exp(ratio.astype(np.float64)).astype(np.float32))
            return np.where(times <= 0, np.float32(0), np.where(times >= 1, _ONE, sooner))
        if self.kind == "none":
            return times
        low, high = own["min_length"], own["max_length"]
        length = min(max(frames, low), high)
        exact = times.astype(np.float64)
        if self.kind == "flux":
            share = math.log(length / low) / math.log(high / low)
            alpha = own["alpha_min"] * (own["alpha_max"] / own["alpha_min"]) ** share
            bent: Times = (alpha * exact / (1 + (alpha - 1) * exact)).astype(np.float32)
            return bent
        share = (length - low) / (high - low)
        mu = math.exp(-(own["base_shift"] + (own["max_shift"] - own["base_shift"]) * share))
        moved = exact / (exact + mu * (1 - exact))
        shifted: Times = (np.sin(moved * math.pi / 2) if own["use_sine"] else moved).astype(np.float32)
        return shifted


def times(steps: int, sigma_max: float, shift: Shift, frames: int) -> Times:
    """steps + 1 times from `sigma_max` to 0, of which the second may lie above the first.

    Raises OptionError when `steps` is below 1 or `sigma_max` outside (0, 1].
    """
    if steps < 1:
        raise OptionError(f"steps must be 1 or more, got {steps}")
    if not 0 < sigma_max <= 1:
        raise OptionError(f"the noise level lies in (0, 1], got {sigma_max:g}")
    moved = shift(_linear(np.float32(sigma_max), steps), frames)
    moved[0] = sigma_max
    return moved


def _linear(first: np.float32, steps: int) -> Times:
    """From `first` to 0, each half counted from its own end and rounded once, as torch does."""
    step = float(np.float32(-first / np.float32(steps)))
    places = np.arange(steps + 1)
    ahead, back = float(first) + step * places, -step * places[::-1]
    return np.where(places < (steps + 1) // 2, ahead, back).astype(np.float32)
