"""Pictures of a run. Without matplotlib there are none, and nothing else changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from audiogen_core.audio import Audio
from audiogen_core.errors import MissingDependency
from audiogen_minigpt import metrics

LOSSES = "loss.png"

log = logging.getLogger(__name__)


def draw_losses(run: str | Path) -> Path | None:
    """A run's losses over its steps, as loss.png; None when there is nothing to draw, or to draw with."""
    records = metrics.read(run)
    curves = {
        name: [(record["step"], record["loss"]) for record in records if record["kind"] == kind]
        for name, kind in (("training", "train"), ("validation", "eval"))
    }
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    from audiogen_core.plot import loss

    try:
        return loss(curves, Path(run) / LOSSES)
    except MissingDependency as error:
        _without(error)
        return None


def draw_spectrogram(audio: Audio, path: Path) -> Path | None:
    """A clip's spectrogram; None when there is nothing to draw with."""
    from audiogen_core.plot import spectrogram

    try:
        return spectrogram(audio, path)
    except MissingDependency as error:
        _without(error)
        return None


def draw_comparison(clips: Mapping[str, Audio], path: Path) -> Path | None:
    """Spectrograms of clips under one another, by title; None when there is nothing to draw with."""
    from audiogen_core.plot import compare

    try:
        return compare(clips, path)
    except MissingDependency as error:
        _without(error)
        return None


def _without(error: MissingDependency) -> None:
    log.info("no picture: %s", error)
