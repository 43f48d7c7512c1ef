"""What the commands that make sound share: fetching with notice, one file after the other, hints."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core import cli
from audiogen_core.errors import ModelError
from audiogen_mlx import blas

if TYPE_CHECKING:
    from audiogen_core.models import ModelSpec
    from audiogen_core.recipe import Recipe


def fetching(offline: bool, quiet: bool) -> Callable[[ModelSpec], Path]:
    """How models are fetched by a command: with a notice before, and a bar."""
    from audiogen_core import hub

    def fetch(spec: ModelSpec) -> Path:
        with cli.progress(f"fetching {spec.name}", unit="bytes", quiet=quiet) as on_step:
            return hub.fetch(spec, offline=offline or None, on_step=on_step, notify=cli.note)

    return fetch


def check_revision(recipe: Recipe, model: str, revision: str | None) -> None:
    """Raises ModelError when a model that was loaded is not the one a file was made with."""
    if recipe.revision and revision != recipe.revision:
        raise ModelError(f"{model}: not the model that made this file, its files differ; name the right one")


def hint_at_blas() -> None:
    """One line when matrix products are slow for want of a library."""
    hint = blas.use().hint
    if hint:
        cli.note(f"hint: {hint}")


def make_each(
    order: Any,
    outputs: list[Path],
    make: Callable[[Any, Path, cli.OnStep], float],
    *,
    label: str,
    unit: str,
    quiet: bool,
    json: bool,
) -> None:
    """One file after the other, with seeds that count up: each is then the same as when it is made alone.

    make  carries an order out into a file, and gives the seconds of audio
    """
    for one, output in _seeded(order, outputs):
        began = time.monotonic()
        with cli.progress(label, unit=unit, quiet=quiet or json) as on_step:
            seconds = make(one, output, on_step)
        again = f"audiogen-mlx replay {shlex.quote(str(output))} -o AGAIN{output.suffix}"
        took = time.monotonic() - began
        cli.finished(output, seconds=seconds, took=took, seed=one.seed, replay=again, picture=True, json=json)


def _seeded(order: Any, outputs: list[Path]) -> Iterator[tuple[Any, Path]]:
    for index, output in enumerate(outputs):
        yield replace(order, seed=order.seed + index), output
