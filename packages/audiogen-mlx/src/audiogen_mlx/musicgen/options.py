"""The options of generating, as they are given and as they are carried out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen import guidance
from audiogen_mlx.musicgen.config import Config
from audiogen_mlx.musicgen.windows import STRIDE_SHARE

LONGEST = 3600.0
"""Seconds of the longest clip that is made."""

Compat = Literal["audiogen", "upstream"]
Clip = Audio | str | Path
Clips = Clip | Sequence[Clip | None]
OnStep = Callable[[float, float], None]


@dataclass(frozen=True)
class Defaults:
    """What holds where an option is not given. A folder that `convert` wrote may have some of its own."""

    seconds: float = 10.0
    guidance_scale: float = 3.0
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    min_p: float = 0.0
    stride_seconds: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Defaults:
        """Raises ModelError for a default of something else, or one that is no number."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"the model's defaults are of another version: {', '.join(unknown)}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ModelError(f"the model's default of {name} is {value!r}, expected a number")
        return cls(**values)

    def sampling(self, seed: int | None = None) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, seed)


class Options(TypedDict, total=False):
    """Options of all verbs. In a batch, clips may be lists with one (or None) per prompt.

    seconds           of the whole clip; what is continued counts
    guidance_scale    weight of the prompt against no prompt; 1 is off
    negative_prompt   stands in the place of no prompt
    seed              of the draws; item i of a batch draws with the seed + i
    sampling          how tokens are drawn; its seed counts where `seed` is not given
    melody            clip whose melody is followed (melody models)
    style             clip whose style is followed (style models)
    style_guidance    weight of the text against the style, 5 unless given; None: both weigh alike
    style_codebooks   of the style's quantiser, 1 to 6, 3 unless given: the fewer, the looser the hold
    style_excerpt     seconds of the style that are heard, 3 unless given
    style_start       where they begin; None is the middle
    prompt_audio      clip that is continued; it is the beginning of the result
    prompt_codes      the same, as codes of this model's codec
    window_seconds    made at once; None is what the model was trained on, 30 s in most
    stride_seconds    from window to window of longer clips; None is 0.6 windows
    compat            "upstream" treats the padding of texts in a batch as the original does; then what an
                      item becomes depends on its batch
    on_step           called with (frames done, frames in all); what it raises ends the run

    Where seconds, guidance_scale, sampling or stride_seconds are not given, the model's `Defaults` hold.
    """

    seconds: float
    guidance_scale: float
    negative_prompt: str | None
    seed: int | None
    sampling: Sampling
    melody: Clips | None
    style: Clips | None
    style_guidance: float | None
    style_codebooks: int | None
    style_excerpt: float | None
    style_start: float | None
    prompt_audio: Clips | None
    prompt_codes: Codes | Sequence[Codes] | None
    window_seconds: float | None
    stride_seconds: float | None
    compat: Compat
    on_step: OnStep | None


@dataclass(frozen=True)
class Settings:
    """`Options` checked, with nothing left open. Lengths in frames; see `Options` for the rest."""

    frames: int
    window: int
    stride: int
    seed: int
    guidance_scale: float = 3.0
    negative_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    melody: Clips | None = None
    style: Clips | None = None
    style_guidance: float | None = 5.0
    style_codebooks: int | None = None
    style_excerpt: float | None = None
    style_start: float | None = None
    prompt_audio: Clips | None = None
    prompt_codes: Codes | Sequence[Codes] | None = None
    compat: Compat = "audiogen"
    on_step: OnStep | None = None


def resolve(
    config: Config, frame_rate: float, options: Options, defaults: Defaults | None = None
) -> Settings:
    """Options with nothing left open. Raises OptionError when one is out of range or unfit for the model."""
    defaults = defaults or Defaults()
    given: dict[str, Any] = {"guidance_scale": defaults.guidance_scale, **options}
    unknown = sorted(set(given) - set(Options.__annotations__))
    if unknown:
        raise OptionError(
            f"there is no option {', '.join(unknown)}; there are {', '.join(Options.__annotations__)}"
        )
    frames = _frames("seconds", given.pop("seconds", defaults.seconds), frame_rate, LONGEST)
    window_seconds = given.pop("window_seconds", None)
    stride_seconds = given.pop("stride_seconds", None)
    if stride_seconds is None and window_seconds is None:
        stride_seconds = defaults.stride_seconds
    window = _frames("window_seconds", window_seconds or config.window_seconds, frame_rate, LONGEST)
    if stride_seconds is None:
        stride = max(1, math.floor(STRIDE_SHARE * window + 1e-6))
    else:
        stride = _frames("stride_seconds", stride_seconds, frame_rate, LONGEST)
    sampling = given.setdefault("sampling", defaults.sampling())
    seed = given.pop("seed", None)
    if seed is not None:
        given["sampling"] = replace(sampling, seed=seed)
    settings = Settings(frames, window, stride, _seed(given["sampling"]), **given)
    _check(config, settings)
    return settings


def _check(config: Config, settings: Settings) -> None:
    guidance.check("guidance_scale", settings.guidance_scale)
    if settings.style_guidance is not None:
        guidance.check("style_guidance", settings.style_guidance)
    if settings.compat not in ("audiogen", "upstream"):
        raise OptionError(f"compat must be 'audiogen' or 'upstream', got {settings.compat!r}")
    settings.sampling.temperatures_for(config.codebooks)
    for name, kind in (("melody", "a melody"), ("style", "a style")):
        if getattr(settings, name) is not None and config.clip != name:
            raise OptionError(f"this model does not follow {kind}; take one whose name says {name}")
    if settings.prompt_audio is not None and settings.prompt_codes is not None:
        raise OptionError("give prompt_audio or prompt_codes, not both")
    if settings.frames > settings.window and settings.window < 2:
        raise OptionError("windows must have 2 frames or more to be continued")
    if settings.negative_prompt is not None and not settings.negative_prompt.strip():
        raise OptionError("the negative prompt is empty: say what to stay away from, or leave it out")
    if settings.negative_prompt is not None and settings.guidance_scale == 1:
        raise OptionError("a negative prompt needs guidance: give a guidance_scale other than 1")


def _frames(name: str, seconds: float, frame_rate: float, longest: float) -> int:
    """Whole frames in so many seconds, as the original counts them: the begun one does not count."""
    if not (isinstance(seconds, int | float) and math.isfinite(seconds) and 0 < seconds <= longest):
        raise OptionError(f"{name} must be more than 0 and at most {longest:g}, got {seconds}")
    frames = math.floor(seconds * frame_rate + 1e-6)
    if frames < 1:
        raise OptionError(f"{name} must be at least one frame, {1 / frame_rate:g} s, got {seconds}")
    return frames


def _seed(sampling: Sampling) -> int:
    return secrets.randbits(32) if sampling.seed is None else sampling.seed
