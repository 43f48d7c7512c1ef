"""What a run can be asked for: `Options` as a caller gives them, `Settings` as they are carried out."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise, SeededNoise
from audiogen_mlx.stable_audio.config import SECONDS_START, SECONDS_TOTAL, Config, Published
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Sampler
from audiogen_mlx.stable_audio.guidance import Guidance

Span = tuple[float, float]
Region = Span | Sequence[Span] | NDArray[np.bool_]

MAX_STEPS = 10_000


class Options(TypedDict, total=False):
    """Options of every verb. None is the same as leaving one out.

    seconds_start      where in a longer piece the clip begins, for models that take it
    seconds_total      how long that piece is; the length of the clip itself when left out
    negative_prompt    what guidance moves away from
    steps, sampler, guidance_scale, sigma_min, sigma_max, rho    as the model's authors publish
    guidance_rescale   in [0, 1]: how much of guidance's gain in spread is taken back
    guidance_interval  noise levels (from, to) in [0, 1] between which guidance acts
    seed, noise        a number, or a source of noise in its place; drawn when both are left out
    init_audio         a clip to begin from, or to inpaint; converted to the model's rate and channels
    init_noise_level   how much of it is lost: (0, 1] for rectified flow, a sigma for the v objective
    inpaint            what of init_audio is made anew: (from, to) in seconds, several of them, or bool
                       per sample, True = made anew. The rest is kept
    prompt_audio       a clip to continue: it is kept, and what comes after is made
    on_step            called with (steps done, steps in all)
    """

    seconds_start: float | None
    seconds_total: float | None
    negative_prompt: str | None
    steps: int | None
    sampler: str | None
    guidance_scale: float | None
    guidance_rescale: float | None
    guidance_interval: Span | None
    sigma_min: float | None
    sigma_max: float | None
    rho: float | None
    seed: int | None
    noise: Noise | None
    init_audio: Audio | None
    init_noise_level: float | None
    inpaint: Region | None
    prompt_audio: Audio | None
    on_step: Callable[[float, float], None] | None


PUBLISHED = {
    "rf_denoiser": Published("pingpong", 8, 1.0),
    "rectified_flow": Published("dpmpp", 40, 4.0),
    "v": Published("dpmpp-3m-sde", 100, 7.0),
}
"""By objective: stable-audio-open-small, its base checkpoint, stable-audio-open-1.0 (their model cards).

A model whose own files say how it is run is run so.
"""

FLOW_LEVEL, SIGMA_LEVEL = 0.7, 5.0  # of init_audio, where none is given: its outline stays, its detail goes


@dataclass(frozen=True)
class Settings:
    """A run, with nothing left open. `level` is that of init_audio, None where it starts from noise."""

    seconds: float
    conditions: dict[str, float]
    negative_prompt: str | None
    sampler: str
    steps: int
    guidance: Guidance
    sigma_min: float
    sigma_max: float
    rho: float
    level: float | None
    noise: Noise
    seed: int | None
    init_audio: Audio | None
    inpaint: Region | None
    on_step: Callable[[float, float], None] | None

    @property
    def method(self) -> Sampler:
        return SAMPLERS[self.sampler]

    def facts(self) -> dict[str, Any]:
        """The settings as JSON has them, for a recipe. Clips, noise and the seed are not among them."""
        return {
            "seconds": self.seconds,
            **self.conditions,
            "negative_prompt": self.negative_prompt,
            "sampler": self.sampler,
            "steps": self.steps,
            "guidance_scale": self.guidance.scale,
            "guidance_rescale": self.guidance.rescale,
            "guidance_interval": list(self.guidance.interval),
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "rho": self.rho,
            "init_noise_level": self.level,
        }


def resolve(config: Config, seconds: float, options: Options) -> Settings:
    """Options with the model's defaults put in. Raises OptionError, one sentence for each mistake."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(Options.__annotations__))
    if unknown:
        raise OptionError(f"unknown options: {', '.join(unknown)}")
    given = _with_prompt_audio(config, seconds, given)
    published = config.published or PUBLISHED[config.objective]
    sampler = _sampler(config, given.get("sampler", published.sampler))
    method = SAMPLERS[sampler]
    level = _level(config, method, given)
    ceiling = 1.0 if method.shares else published.sigma_max
    number = partial(_number, given)
    settings = Settings(
        seconds=seconds,
        conditions=_conditions(config, seconds, given),
        negative_prompt=given.get("negative_prompt"),
        sampler=sampler,
        steps=_steps(given.get("steps", published.steps)),
        guidance=Guidance(
            number("guidance_scale", published.guidance_scale),
            number("guidance_rescale", 0.0),
            span(given.get("guidance_interval", (0.0, 1.0)), "guidance_interval"),
        ),
        sigma_min=number("sigma_min", published.sigma_min),
        sigma_max=number("sigma_max", ceiling) if level is None else level,
        rho=number("rho", 1.0),
        level=level,
        noise=_noise(given),
        seed=given.get("seed"),
        init_audio=given.get("init_audio"),
        inpaint=given.get("inpaint"),
        on_step=given.get("on_step"),
    )
    if settings.inpaint is not None and settings.init_audio is None:
        raise OptionError("inpaint needs a clip to work on; give init_audio")
    if settings.negative_prompt is not None and settings.guidance.scale == 1:
        warnings.warn("the negative prompt has no effect: guidance_scale is 1", stacklevel=4)
    return settings


def span(value: object, what: str) -> Span:
    """Two numbers. Raises OptionError, naming `what`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise OptionError(f"{what} takes two numbers (from, to), got {value!r}")
    start, end = ({what: one} for one in value)
    return _number(start, what, 0.0), _number(end, what, 0.0)


def _number(given: dict[str, Any], name: str, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise OptionError(f"{name} must be a number, got {value!r}")
    return float(value)


def _with_prompt_audio(config: Config, seconds: float, given: dict[str, Any]) -> dict[str, Any]:
    """A clip to continue is a clip after whose end everything is inpainted."""
    if "prompt_audio" not in given:
        return given
    if "init_audio" in given or "inpaint" in given:
        raise OptionError("prompt_audio goes with neither init_audio nor inpaint; leave them out")
    clip = given.pop("prompt_audio")
    if clip.duration >= seconds:
        raise OptionError(
            f"prompt_audio is {clip.duration:.2f} s long and the clip {seconds:.2f} s; ask for more seconds"
        )
    return {**given, "init_audio": clip, "inpaint": (clip.duration, config.window_seconds)}


def _sampler(config: Config, name: str) -> str:
    fitting = [known for known, method in SAMPLERS.items() if method.flow == config.flow]
    if name not in fitting:
        raise OptionError(
            f"the sampler {name!r} does not fit a model of the objective {config.objective}; "
            f"use one of {', '.join(fitting)}"
        )
    return name


def _steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise OptionError(f"steps must be a whole number from 1 to {MAX_STEPS}, got {steps!r}")
    return steps


def _level(config: Config, method: Sampler, given: dict[str, Any]) -> float | None:
    """The noise level a clip is begun from; None for a run from noise, as inpainting is unless asked."""
    if "init_audio" not in given:
        if "init_noise_level" in given:
            raise OptionError("init_noise_level needs a clip to begin from; give init_audio")
        return None
    if "init_noise_level" not in given:
        return None if "inpaint" in given else (FLOW_LEVEL if method.shares else SIGMA_LEVEL)
    level = _number(given, "init_noise_level", 0.0)
    if not (math.isfinite(level) and level > 0) or (config.flow and level > 1):
        allowed = "in (0, 1]" if config.flow else "above 0"
        raise OptionError(f"init_noise_level must be {allowed} for this model, got {level:g}")
    return level


def _conditions(config: Config, seconds: float, given: dict[str, Any]) -> dict[str, float]:
    total = _number(given, "seconds_total", seconds)
    start = _number(given, "seconds_start", 0.0)
    if not (math.isfinite(seconds) and seconds > 0):
        raise OptionError(f"seconds must be above 0, got {seconds:g}")
    for name, value in ((SECONDS_START, start), (SECONDS_TOTAL, total)):
        limits = [(one.minimum, one.maximum) for one in config.numbers if one.id == name]
        low, high = limits[0] if limits else (0.0, math.inf)
        if not low <= value <= high:
            raise OptionError(f"{name} must lie in [{low:g}, {high:g}] for this model, got {value:g}")
    if start and not any(number.id == SECONDS_START for number in config.numbers):
        raise OptionError("this model does not take seconds_start; leave it out")
    return {SECONDS_START: start, SECONDS_TOTAL: total}


def _noise(given: dict[str, Any]) -> Noise:
    if "noise" in given:
        if "seed" in given:
            raise OptionError("give a seed or a source of noise, not both")
        noise: Noise = given["noise"]
        return noise
    if "seed" not in given:
        given["seed"] = secrets.randbits(32)
    if isinstance(given["seed"], bool) or not isinstance(given["seed"], int):
        raise OptionError(f"the seed must be a whole number, got {given['seed']!r}")
    return SeededNoise(given["seed"])
