"""What options come to for a model: `Settings`, with its defaults put in and nothing left open."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, OptionError, SoundWarning
from audiogen_core.noise import Noise
from audiogen_core.progress import OnStep
from audiogen_mlx.stable_audio import loops
from audiogen_mlx.stable_audio.options import Span
from audiogen_mlx.stable_audio.settings import check_continued, told
from audiogen_mlx.stable_audio_3.config import Config
from audiogen_mlx.stable_audio_3.guidance import Guidance
from audiogen_mlx.stable_audio_3.options import Batch

SECONDS = 30.0
"""Of a clip of which nothing says how long it is."""

LEVEL = 0.9  # of noise, that a clip to begin from is mixed with: that of the original's command
LOWEST_LEVEL = 0.01
"""Below, the original's runtime makes nothing: next to no noise is left to take away."""


@dataclass(frozen=True)
class Settings:
    """A run, with nothing left open.

    seconds     of the clip; of one that a loop is cut from, more than of the loop
    padding     seconds made after it
    level       noise level that a run begins at: 1, or that init_audio is mixed with
    init_audio  a clip to begin from, or None
    known       a clip of which parts are kept, or None
    anew        seconds of the new one that are made anew; what is after its end is in any case
    placed      seconds before its beginning
    continued   seconds of it that come first, where it is gone on with; or 0
    exact       put back what is kept
    loop        samples of a loop, or None
    asked       the options with the model's defaults put in, as recipes keep them
    """

    seconds: float
    padding: float
    negative_prompt: str | None
    sampler: str
    steps: int
    times: tuple[float, ...] | None
    guidance: Guidance
    level: float
    noise: Noise
    seed: int | None
    init_audio: Audio | None = None
    known: Audio | None = None
    anew: tuple[Span, ...] = ()
    placed: float = 0.0
    continued: float = 0.0
    exact: bool = False
    loop: int | None = None
    long: bool = False
    overlap: float | None = None
    compat: str | None = None
    codec_noise: bool = False
    on_step: OnStep | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def resolve(config: Config, options: Batch) -> Settings:
    """Options with the model's defaults put in. Raises OptionError, or AudioError for a clip that is none."""
    clip, prompt = _loaded(options.init_audio), _loaded(options.prompt_audio)
    for each in (clip, prompt):
        _check_heard(config, each)
    seconds, loop = _seconds(config, options, clip, prompt)
    if round(seconds * config.sample_rate) < 1:
        raise OptionError(f"seconds must be above 0 and make a sample or more, got {seconds:g}")
    if not options.long and seconds > config.max_seconds:
        raise OptionError(
            f"this model makes {config.max_seconds:.2f} s at most, {seconds:g} s were asked for; "
            "long goes on part after part",
            *("seconds", "long"),
        )
    published, before = config.published, options.before or 0.0
    check_continued(prompt, seconds)
    keeps = options.inpaint is not None or options.before is not None
    begins = clip is not None and (not keeps or options.init_noise_level is not None)
    level = (options.init_noise_level or LEVEL) if begins else 1.0
    if level < LOWEST_LEVEL:
        raise OptionError(f"init_noise_level must be {LOWEST_LEVEL:g} or more, got {level:g}")
    for start, _ in options.inpaint or ():
        if start >= seconds:
            raise OptionError(f"inpaint starts at {start:g} s, after the clip's {seconds:.2f} s")
    defaults: dict[str, Any] = {
        "seconds": None if loop else seconds,
        "sampler": published.sampler,
        "steps": published.steps if options.times is None else len(options.times) - 1,
        "guidance_scale": published.guidance_scale,
        "init_noise_level": level if begins else None,
    }
    filled: Any = replace(
        options, **{name: value for name, value in defaults.items() if getattr(options, name) is None}
    )
    asked, seed, noise = told(filled)
    return Settings(
        seconds=seconds,
        padding=0.0 if options.compat == "runtime" else options.duration_padding,
        negative_prompt=options.negative_prompt,
        sampler=filled.sampler,
        steps=filled.steps,
        times=options.times,
        guidance=Guidance(
            filled.guidance_scale,
            options.guidance_rescale,
            options.guidance_interval,
            options.guidance_projection,
            options.guidance_threshold,
        ),
        level=level,
        noise=noise,
        seed=seed,
        init_audio=clip if begins else None,
        known=clip if keeps else prompt,
        anew=options.inpaint or (((0.0, before),) if before else ()),
        placed=before,
        continued=0.0 if prompt is None else prompt.duration,
        exact=options.exact,
        loop=loop,
        long=options.long,
        overlap=options.overlap,
        compat=options.compat,
        codec_noise=options.codec_noise,
        on_step=options.on_step,
        asked=asked,
    )


def _check_heard(config: Config, clip: Audio | None) -> None:
    """Raises AudioError for a clip that is shorter than a latent frame."""
    if clip is None:
        return
    samples = round(clip.duration * config.sample_rate)
    if samples < config.hop_length:
        raise AudioError(
            f"the clip to begin from has {samples} samples at {config.sample_rate} Hz; it must have "
            f"{config.hop_length} or more"
        )


def _seconds(
    config: Config, options: Batch, clip: Audio | None, prompt: Audio | None
) -> tuple[float, int | None]:
    """How long the clip is, and the samples of a loop."""
    if options.bpm is not None and options.bars is not None:
        loop, samples = loops.plan(config, options.bpm, options.bars, options.beats_per_bar)
        # The music is not to end within a loop: it is cut from a piece that is a bar longer, if that can be.
        bar = options.beats_per_bar * 60 / options.bpm
        return min(samples / config.sample_rate + bar, config.max_seconds), loop
    if options.seconds is not None:
        return options.seconds, None
    if clip is not None:
        whole = (options.before or 0.0) + clip.duration
        if whole > config.max_seconds + 1 / config.sample_rate:
            warnings.warn(
                f"the clip to begin from would end at {whole:.2f} s; the model takes the first "
                f"{config.max_seconds:.2f} s of it",
                SoundWarning,
                stacklevel=4,
            )
        return min(whole, config.max_seconds), None
    if prompt is not None:
        raise OptionError("a clip to go on with needs to know until when: give seconds", "seconds")
    return min(SECONDS, config.max_seconds), None


def _loaded(clip: Any) -> Audio | None:
    return clip if clip is None or isinstance(clip, Audio) else Audio.load(clip)
