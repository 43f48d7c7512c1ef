"""Clips longer than the window: each window continues the end of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.config import SECONDS_START, SECONDS_TOTAL, Config
from audiogen_mlx.stable_audio.inpaint import conformed

if TYPE_CHECKING:
    from audiogen_mlx.stable_audio.generate import StableAudio

OVERLAP = 0.25
"""Share of the window that a continuation hears of what went before."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """Samples [start, end) of the whole clip, of which those before `fresh` are known."""

    start: int
    fresh: int
    end: int


def plan(config: Config, samples: int, overlap: float | None, known: int = 0) -> list[Window]:
    """The windows that make up `samples` samples, of which the first `known` are there already.

    overlap  seconds a window shares with what is before it, rounded to latent frames

    Raises OptionError unless it leaves at least one frame of each window to what is new.
    """
    frames = round(config.frames * OVERLAP)
    if overlap is not None:
        frames = round(overlap * config.sample_rate / config.hop_length)
    if not 1 <= frames < config.frames:
        shortest = config.hop_length / config.sample_rate
        raise OptionError(
            f"overlap must be from {shortest:.3f} s to less than the window of {config.window_seconds:.2f} s"
        )
    shared = frames * config.hop_length
    start = max(known - shared, 0)
    windows = [Window(start, known, min(start + config.window, samples))]
    while windows[-1].end < samples:
        fresh = windows[-1].end
        start = fresh - shared
        windows.append(Window(start, fresh, min(start + config.window, samples)))
    return windows


def stream(
    model: StableAudio, prompt: str, *, seconds: float, overlap: float | None = None, **options: Any
) -> Iterator[Audio]:
    """A clip of any length, piece by piece; memory does not grow with it. Joined they are the clip.

    Each piece is final when it comes. A clip to continue, `prompt_audio`, may be of any length and comes
    first. Raises OptionError, also for the other options of runs that begin from a clip.
    """
    config = model.config
    for name in ("init_audio", "inpaint", "init_noise_level"):
        if options.get(name) is not None:
            raise OptionError(f"{name} does not go with a clip of several windows; inpaint afterwards")
    known, on_step = options.pop("prompt_audio", None), options.pop("on_step", None)
    known = None if known is None else conformed(known, config)
    samples, length = _samples(config, seconds), 0 if known is None else known.samples.shape[1]
    if known is not None and length >= samples:
        raise OptionError(f"prompt_audio is {known.duration:.2f} s long; ask for more seconds than that")
    windows = plan(config, samples, overlap, length)
    settings = model.settings(min(seconds, config.max_seconds), **options)
    options |= {"seed": None, "noise": settings.noise}  # one stream of noise through all windows
    if known is not None:
        yield from _cut(known, 0, windows[0].start)
        known = Audio(known.samples[:, windows[0].start :], config.sample_rate)
    for index, window in enumerate(windows):
        made = model.generate(
            prompt,
            seconds=(window.end - window.start) / config.sample_rate,
            **(options | _place(config, window, seconds, options)),
            prompt_audio=known,
            on_step=_progress(on_step, index * settings.steps, len(windows) * settings.steps),
        )
        until = windows[index + 1].start if index + 1 < len(windows) else window.end
        yield from _cut(made, 0, until - window.start)
        known = next(_cut(made, until - window.start, made.samples.shape[1]), None)


def _cut(clip: Audio, start: int, end: int) -> Iterator[Audio]:
    """Samples [start, end) of a clip, or nothing where there are none."""
    if start < end:
        yield Audio(clip.samples[:, start:end], clip.sample_rate)


def generate_long(
    model: StableAudio, prompt: str, *, seconds: float, overlap: float | None = None, **options: Any
) -> Audio:
    """As `stream`, in one clip."""
    pieces = [piece.samples for piece in stream(model, prompt, seconds=seconds, overlap=overlap, **options)]
    return Audio(np.concatenate(pieces, axis=1), model.config.sample_rate)


def _samples(config: Config, seconds: float) -> int:
    count = round(seconds * config.sample_rate) if 0 < seconds < 1e6 else 0
    if count < 1:
        raise OptionError(f"seconds must be above 0 (and below a million), got {seconds:g}")
    return count


def _place(config: Config, window: Window, seconds: float, options: dict[str, Any]) -> dict[str, float]:
    """What the model is told: where the window lies in the piece, as far as its numbers go.

    A model that knows no place hears that every window but the last is full of sound.
    """
    limits = {number.id: number.maximum for number in config.numbers}
    if SECONDS_START in limits:
        start = (options.get(SECONDS_START) or 0.0) + window.start / config.sample_rate
        total = options.get(SECONDS_TOTAL) or seconds
        return {
            SECONDS_START: min(start, limits[SECONDS_START]),
            SECONDS_TOTAL: min(total, limits.get(SECONDS_TOTAL, total)),
        }
    return {SECONDS_TOTAL: options.get(SECONDS_TOTAL) or (window.end - window.start) / config.sample_rate}


def _progress(
    on_step: Callable[[float, float], None] | None, before: int, total: int
) -> Callable[[float, float], None] | None:
    if on_step is None:
        return None
    return lambda done, _: on_step(before + done, total)
