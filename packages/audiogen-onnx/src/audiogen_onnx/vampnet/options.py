"""All that can be asked of a vamp, as one value: what is kept, how the rest is made, and how much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from audiogen_core.errors import OptionError
from audiogen_onnx.vampnet.draw import Filters
from audiogen_onnx.vampnet.mask import Compat
from audiogen_onnx.vampnet.sampling import FillOptions


@dataclass(frozen=True)
class VampOptions:
    """The options of a vamp. The first group says what is kept of the clip as a prompt, all else is made.

    random_intensity  share of all codes that may be made at all
    prefix, suffix    seconds kept at the beginning and at the end
    period            a frame is kept every so many; 0 keeps none. None: 7, or 0 where `infill`, `outpaint`
                      or a mask says where to work
    period_width      frames kept around each of them
    roll              frames by which these places move to the right, or "random"
    onset_width       frames kept before and after each onset of the sound; 0 keeps none
    bpm, beat_offset  a grid of beats per minute, its first beat at so many seconds: kept around each
    beats             or times, seconds, instead of a grid; `downbeat_times` are those that begin a bar
    beats_per_bar     of the grid; its first beat begins a bar
    downbeats, upbeats  which beats count: the first ones of bars, all others
    before_beat, after_beat  seconds kept around each beat
    beat_dropout      probability of each frame near a beat not to be kept
    dropout           share of the frames whose prompt is dropped
    keep              codebooks in which there are prompts; those after are made everywhere. None: 3, or all
                      where `infill`, `outpaint` or a mask says where to work
    infill            (start, end), seconds: only what lies between is made
    outpaint_left, outpaint_right  seconds made before the beginning and after the end
    loop              the end leads into the beginning: the result can be repeated without a seam
    keep_original     with `infill` or `outpaint`: the rest of the result is the clip itself, not what the
                      codec makes of it

    steps, temperature, mask_temperature, top_p, typical_mass, typical_min_tokens, sample_cutoff
                      as `sampling.fill` has them
    fine_steps        steps of the fine network
    fine_temperature  its temperature; None: `temperature`
    feedback_steps    how often the coarse network goes over the clip
    time_stretch_factor  the result is so many times as long, frames in between being made

    window_seconds, fine_window_seconds  what a network sees at once; None: what it was trained on
    context_seconds   seconds of what was made before that a window sees; the fine network, a quarter of it
    compat            "upstream" goes the original's way, quirks and all

    Raises OptionError when a value is out of range, or two contradict each other.
    """

    random_intensity: float = 1.0
    prefix: float = 0.0
    suffix: float = 0.0
    period: int | None = None
    period_width: int = 1
    roll: int | Literal["random"] = "random"
    onset_width: int = 0
    bpm: float | None = None
    beat_offset: float = 0.0
    beats: tuple[float, ...] | None = None
    downbeat_times: tuple[float, ...] = ()
    beats_per_bar: int = 4
    downbeats: bool = True
    upbeats: bool = True
    before_beat: float = 0.0
    after_beat: float = 0.05
    beat_dropout: float = 0.0
    dropout: float = 0.0
    keep: int | None = None
    infill: tuple[float, float] | None = None
    outpaint_left: float = 0.0
    outpaint_right: float = 0.0
    loop: bool = False
    keep_original: bool = True

    steps: int = 12
    temperature: float = 1.0
    mask_temperature: float = 10.5
    top_p: float | None = None
    typical_mass: float | None = None
    typical_min_tokens: int = 64
    sample_cutoff: float = 1.0
    fine_steps: int = 2
    fine_temperature: float | None = None
    feedback_steps: int = 1
    time_stretch_factor: int = 1

    window_seconds: float | None = None
    fine_window_seconds: float | None = None
    context_seconds: float = 2.5
    compat: Compat = "audiogen"

    def __post_init__(self) -> None:
        for name in ("beats", "downbeat_times", "infill"):  # as JSON has them, they are lists
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(float(part) for part in value))
        self._check_ranges()
        self._check_together()
        self.fine_fill()  # raises for what is wrong with the sampling

    def _check_ranges(self) -> None:
        for name in ("prefix", "suffix", "before_beat", "after_beat", "outpaint_left", "outpaint_right"):
            _check(name, getattr(self, name), 0, "seconds, 0 or more")
        for name in ("random_intensity", "dropout", "beat_dropout"):
            _check(name, getattr(self, name), 0, "in [0, 1]", most=1)
        for name, least in (
            ("period", 0), ("period_width", 0), ("onset_width", 0), ("keep", 0), ("beats_per_bar", 0),
            ("steps", 1), ("fine_steps", 1), ("feedback_steps", 1), ("time_stretch_factor", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not float(value).is_integer()):
                raise OptionError(f"{name} must be a whole number of {least} or more, got {value}")
            _check(name, value, least, f"a whole number of {least} or more")
        _check("fine_temperature", self.fine_temperature, 0, "0 (the likeliest token) or more")
        for name in ("window_seconds", "fine_window_seconds", "bpm"):
            _check(name, getattr(self, name), 1e-9, "more than 0")
        _check("beat_offset", self.beat_offset, -math.inf, "seconds")
        _check("context_seconds", self.context_seconds, 0, "seconds, 0 or more")

    def _check_together(self) -> None:
        if self.infill is not None and (len(self.infill) != 2 or not 0 <= self.infill[0] < self.infill[1]):
            raise OptionError(f"infill goes from a time to a later one, in seconds; got {self.infill}")
        if self.bpm is not None and self.beats is not None:
            raise OptionError("give bpm for a grid of beats, or beats for a list of times, not both")
        if self.loop and self.outpaints:
            raise OptionError("a loop has no ends: loop and outpaint cannot go together")
        stretches = self.time_stretch_factor > 1
        if stretches and (self.outpaints or self.infill is not None or self.loop):
            raise OptionError("time_stretch_factor goes with neither infill, outpaint nor loop")
        if self.compat == "upstream" and (self.loop or self.outpaints or self.infill is not None):
            raise OptionError("the original has no infill, outpaint or loop: leave compat at 'audiogen'")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> VampOptions:
        """The options of these names. Raises OptionError for a name there is none of, with the closest."""
        known = [option.name for option in fields(cls)]
        for name in given:
            if name not in known:
                close = get_close_matches(name, known, n=2)
                hint = f"; did you mean {' or '.join(close)}?" if close else ""
                raise OptionError(f"there is no option {name!r} of a vamp{hint}")
        return cls(**given)

    @property
    def outpaints(self) -> bool:
        return self.outpaint_left > 0 or self.outpaint_right > 0

    def fill(self) -> FillOptions:
        """How the coarse network's codes are made."""
        return FillOptions(
            steps=self.steps,
            mask_temperature=self.mask_temperature,
            sample_cutoff=self.sample_cutoff,
            filters=Filters(
                temperature=self.temperature,
                typical_mass=self.typical_mass,
                typical_min_tokens=self.typical_min_tokens,
                top_p=self.top_p,
            ),
            compat=self.compat,
        )

    def fine_fill(self) -> FillOptions:
        """How the fine network's are: with everything that was asked of the coarse one."""
        coarse = self.fill()
        warmth = self.temperature if self.fine_temperature is None else self.fine_temperature
        return replace(coarse, steps=self.fine_steps, filters=replace(coarse.filters, temperature=warmth))

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as plain JSON values; `of` reads it."""
        default = VampOptions()
        changed = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _check(name: str, value: float | None, least: float, allowed: str, *, most: float = math.inf) -> None:
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise OptionError(f"{name} must be {allowed}; got {value}")
