"""What options come to for a model: `Settings`, with its defaults put in and nothing left open."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.progress import OnStep
from audiogen_mlx.stable_audio import loops
from audiogen_mlx.stable_audio.config import SECONDS_START, SECONDS_TOTAL, Config, Published
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Sampler
from audiogen_mlx.stable_audio.guidance import Guidance
from audiogen_mlx.stable_audio.inpaint import Region
from audiogen_mlx.stable_audio.options import Batch

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
    """A run, with nothing left open.

    seconds       of the clip; of one that a loop is cut from, a little more than of the loop
    conditions    seconds_start and seconds_total, as the model is told them; of a clip of several windows
                  those that were asked for, since each window has its own
    level         noise level that init_audio is begun from; None where a run starts from noise
    init_audio    a clip to begin from; `inpaint` says what of it is made anew
    prompt_audio  a clip that several windows go on with; a single window has it as init_audio
    known         seconds of the clip that is gone on with, or 0
    loop          samples of a loop, or None
    overlap       seconds a window hears of the one before; None is `windows.OVERLAP` of it
    asked         the options with the model's defaults put in, as recipes keep them
    """

    seconds: float
    conditions: Mapping[str, float]
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
    init_audio: Audio | None = None
    inpaint: Region | None = None
    prompt_audio: Audio | None = None
    known: float = 0.0
    loop: int | None = None
    long: bool = False
    overlap: float | None = None
    on_step: OnStep | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def told(filled: Any) -> tuple[dict[str, Any], int | None, Noise]:
    """Of options with the model's defaults put in: what a recipe keeps, the seed, and the noise.

    Warns of a negative prompt that does nothing.
    """
    asked: dict[str, Any] = filled.asked()
    asked.pop("seed", None)  # a recipe has a field of its own for it
    if filled.negative_prompt is not None and filled.guidance_scale == 1:
        warnings.warn("the negative prompt has no effect: guidance_scale is 1", stacklevel=5)
    seed: int | None = filled.seed
    if seed is None and filled.noise is None:
        seed = secrets.randbits(32)
    return asked, seed, filled.noise or SeededNoise(seed or 0)


def check_continued(prompt: Audio | None, seconds: float) -> None:
    """Raises OptionError where a clip that is gone on with leaves nothing to make."""
    if prompt is not None and prompt.duration >= seconds:
        raise OptionError(
            f"prompt_audio is {prompt.duration:.2f} s long and the clip {seconds:.2f} s; "
            "ask for more seconds",
            *("prompt_audio", "seconds"),
        )


def resolve(config: Config, options: Batch) -> Settings:
    """Options with the model's defaults put in. Raises OptionError, or AudioError for a clip that is none."""
    loop, seconds = None, config.max_seconds if options.seconds is None else options.seconds
    if options.bpm is not None and options.bars is not None:
        loop, samples = loops.plan(config, options.bpm, options.bars, options.beats_per_bar)
        seconds = samples / config.sample_rate
    if round(seconds * config.sample_rate) < 1:
        raise OptionError(f"seconds must be above 0 and make a sample or more, got {seconds:g}")
    published = config.published or PUBLISHED[config.objective]
    sampler = options.sampler or published.sampler
    method = _fitting(config, sampler)
    clip, prompt = _loaded(options.init_audio), _loaded(options.prompt_audio)
    region: Region | None = options.inpaint if options.inpaint_mask is None else options.inpaint_mask
    check_continued(prompt, seconds)
    known = 0.0 if prompt is None else prompt.duration
    if prompt is not None and not options.long:
        # A clip to go on with is one after whose end everything is made anew.
        clip, region, prompt = prompt, ((prompt.duration, config.window_seconds),), None
    level = None if clip is None else _level(config, method, options.init_noise_level, region)
    defaults: dict[str, Any] = {
        "seconds": None if loop else seconds,
        "sampler": sampler,
        "steps": published.steps,
        "guidance_scale": published.guidance_scale,
        "guidance_rescale": 0.0,
        "guidance_interval": (0.0, 1.0),
        "sigma_min": published.sigma_min,
        "sigma_max": 1.0 if method.shares else published.sigma_max,
        "rho": 1.0,
        "init_noise_level": level,
    }
    missing = {name: value for name, value in defaults.items() if getattr(options, name) is None}
    if level is not None:  # the clip is mixed with noise of this level, where the run then begins
        missing["sigma_max"] = level
    filled: Any = replace(options, **missing)
    asked, seed, noise = told(filled)
    return Settings(
        seconds=seconds,
        conditions=_conditions(config, options, seconds),
        negative_prompt=options.negative_prompt,
        sampler=sampler,
        steps=filled.steps,
        guidance=Guidance(filled.guidance_scale, filled.guidance_rescale, filled.guidance_interval),
        sigma_min=filled.sigma_min,
        sigma_max=filled.sigma_max,
        rho=filled.rho,
        level=level,
        noise=noise,
        seed=seed,
        init_audio=clip,
        inpaint=region,
        prompt_audio=prompt,
        known=known,
        loop=loop,
        long=options.long,
        overlap=options.overlap,
        on_step=options.on_step,
        asked=asked,
    )


def _fitting(config: Config, name: str) -> Sampler:
    method = SAMPLERS.get(name)
    if method is None or method.flow != config.flow:
        fitting = [known for known, one in SAMPLERS.items() if one.flow == config.flow]
        raise OptionError(
            f"the sampler {name!r} does not fit a model of the objective {config.objective}; "
            f"use one of {', '.join(fitting)}"
        )
    return method


def _loaded(clip: Any) -> Audio | None:
    return clip if clip is None or isinstance(clip, Audio) else Audio.load(clip)


def _level(config: Config, method: Sampler, level: float | None, region: Region | None) -> float | None:
    """The noise level a clip is begun from; None for a run from noise, as inpainting is unless asked."""
    if level is None:
        return None if region is not None else (FLOW_LEVEL if method.shares else SIGMA_LEVEL)
    if level <= 0 or (config.flow and level > 1):
        allowed = "in (0, 1]" if config.flow else "above 0"
        raise OptionError(f"init_noise_level must be {allowed} for this model, got {level:g}")
    return level


def _conditions(config: Config, options: Batch, seconds: float) -> dict[str, float]:
    """The numbers of seconds the model is told, each within what it was trained on."""
    asked = {SECONDS_START: options.seconds_start, SECONDS_TOTAL: options.seconds_total}
    conditions = {name: value for name, value in asked.items() if value is not None}
    if not options.long:
        # The music is not to end within a loop: it is cut from a piece as long as the model knows.
        total = seconds if options.bpm is None else config.max_seconds
        conditions = {SECONDS_START: 0.0, SECONDS_TOTAL: total, **conditions}
    numbers = {number.id: number for number in config.numbers}
    for name, value in conditions.items():
        if name not in numbers:
            continue
        low, high = numbers[name].minimum, numbers[name].maximum
        if not low <= value <= high:
            raise OptionError(f"{name} must lie in [{low:g}, {high:g}] for this model, got {value:g}")
    if options.seconds_start and SECONDS_START not in numbers:
        raise OptionError("this model does not take seconds_start; leave it out")
    return conditions
