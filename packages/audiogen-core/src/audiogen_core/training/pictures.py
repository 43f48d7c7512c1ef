"""Pictures of a run. Without matplotlib there are none, and nothing else changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiogen_core import plot
from audiogen_core.errors import MissingDependency
from audiogen_core.training import metrics

LOSSES = "loss.png"

log = logging.getLogger(__name__)


def draw(picture: Callable[..., Path], *what: Any) -> Path | None:
    """What a function of `audiogen_core.plot` draws; None when there is nothing to draw with."""
    try:
        return picture(*what)
    except MissingDependency as error:
        log.info("no picture: %s", error)
        return None


def draw_losses(run: str | Path) -> Path | None:
    """A run's losses over its steps, as loss.png; None when there is nothing to draw, or to draw with."""
    records = metrics.read(run)
    curves = {
        name: [(record["step"], record["loss"]) for record in records if record["kind"] == kind]
        for name, kind in (("training", "train"), ("validation", "eval"))
    }
    curves = {name: points for name, points in curves.items() if points}
    return draw(plot.loss, curves, Path(run) / LOSSES) if curves else None
