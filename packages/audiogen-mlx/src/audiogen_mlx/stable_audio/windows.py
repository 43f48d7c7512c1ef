"""Clips longer than the model's window: where each window lies, and what the model is told of its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio.config import SECONDS_START, SECONDS_TOTAL, Bounds, Config

OVERLAP = 0.25
"""Share of the window that a continuation hears of what went before."""


@dataclass(frozen=True)
class Window:
    """Samples [start, end) of the whole clip, of which those before `fresh` are known."""

    start: int
    fresh: int
    end: int


def plan(config: Bounds, samples: int, overlap: float | None, known: int = 0) -> list[Window]:
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


def place(config: Config, window: Window, seconds: float, asked: Mapping[str, float]) -> dict[str, float]:
    """Where a window lies in the piece, as far as the model's numbers go: its `seconds_start` and `_total`.

    seconds  of the whole clip
    asked    of these numbers what was asked for: where in the piece the clip begins, how long the piece is

    A model that knows no place hears that every window but the last is full of sound.
    """
    limits = {number.id: number.maximum for number in config.numbers}
    total = asked.get(SECONDS_TOTAL)
    if SECONDS_START not in limits:
        return {SECONDS_START: 0.0, SECONDS_TOTAL: total or (window.end - window.start) / config.sample_rate}
    start, total = asked.get(SECONDS_START, 0.0) + window.start / config.sample_rate, total or seconds
    return {
        SECONDS_START: min(start, limits[SECONDS_START]),
        SECONDS_TOTAL: min(total, limits.get(SECONDS_TOTAL, total)),
    }
