"""The `audiogen-mlx` command: options, load, verb, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiogen_core import cli as shared
from audiogen_core.cli import (
    DebugOption,
    ForceOption,
    JsonOption,
    OfflineOption,
    OutputOption,
    QuietOption,
    app,
    run,
)
from audiogen_mlx.musicgen import cli as musicgen
from audiogen_mlx.stable_audio import cli as stable_audio

cli = app("audiogen-mlx", "audiogen-mlx", "MusicGen and Stable Audio Open in MLX.")
musicgen.register(cli)
stable_audio.register(cli)

Moved = Annotated[str | None, typer.Option("--model", "-m", metavar="PATH", help="Where the model is now.")]
MovedFile = Path | None


@cli.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that one of these commands made.")],
    output: OutputOption,
    model: Moved = None,
    melody: Annotated[
        MovedFile, typer.Option("--melody", metavar="FILE", help="Where the melody is now.")
    ] = None,
    style: Annotated[
        MovedFile, typer.Option("--style", metavar="FILE", help="Where the style is now.")
    ] = None,
    init: Annotated[
        MovedFile, typer.Option("--init", metavar="FILE", help="Where the clip begun from is now.")
    ] = None,
    continued: Annotated[
        MovedFile, typer.Option("--continue", metavar="FILE", help="Where the clip gone on with is now.")
    ] = None,
    offline: OfflineOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a file again, from the recipe it carries."""
    from audiogen_core.errors import AudioError
    from audiogen_core.recipe import Recipe

    shared.require_new(output, force)
    recipe = Recipe.read(file)
    command = recipe.settings.get("command") if recipe.package == "audiogen-mlx" else None
    again = {"musicgen": musicgen.replay, "stable-audio": stable_audio.replay}.get(str(command))
    if again is None:
        raise AudioError(f"{file}: made by {recipe.package}; replay it with that program")
    places = {"melody": melody, "style": style, "init": init, "continued": continued}
    moved = {"model": model, **{name: str(path) for name, path in places.items() if path is not None}}
    again(recipe, output, moved=moved, offline=offline, quiet=quiet, json=json)


@cli.command()
def models(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """The models that can be fetched by name."""
    from audiogen_mlx.catalog import CATALOG

    rows = [
        {"name": spec.name, "repository": spec.repo, "licence": spec.license, "note": spec.note}
        for spec in CATALOG.values()
    ]
    shared.emit(rows, json=json)


@cli.command()
def doctor(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """What mlx runs on here: device, BLAS, and how fast it multiplies."""
    from audiogen_mlx import blas

    shared.emit(blas.describe(measure=True), json=json)


def main() -> None:
    """Entry point of the command."""
    run(cli)
