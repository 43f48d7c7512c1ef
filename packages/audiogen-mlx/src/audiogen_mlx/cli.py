"""The `audiogen-mlx` command: options, load, verb, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audiogen_core import cli as shared
from audiogen_core.cli import (
    DebugOption,
    ForceOption,
    JsonOption,
    OfflineOption,
    OutputOption,
    PlayOption,
    QuietOption,
)
from audiogen_mlx.commands import fetching
from audiogen_mlx.musicgen import cli as musicgen
from audiogen_mlx.stable_audio import cli as stable_audio

cli = shared.app("audiogen-mlx", "audiogen-mlx", "MusicGen and Stable Audio Open in MLX.")
musicgen.register(cli)
stable_audio.register(cli)

Model = Annotated[str, typer.Argument(metavar="NAME|PATH", help="Catalogue name, hub id or path.")]
Moved = Annotated[
    list[str] | None,
    typer.Option(
        "--use", metavar="ROLE=PATH", help="Where the model or an input is now: model=..., melody=..., ..."
    ),
]


@cli.command()
def convert(
    model: Model,
    output: OutputOption,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    bits: Annotated[int | None, typer.Option("--bits", help="4 or 8: quantise the linear layers.")] = None,
    t5: musicgen.T5 = None,
    tokenizer: musicgen.TokenizerPlace = None,
    codec: musicgen.CodecPlace = None,
    unlisted: musicgen.Unlisted = False,
    offline: OfflineOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a MusicGen as a self-contained folder, smaller if wanted."""
    from audiogen_mlx.convert import convert as write
    from audiogen_mlx.musicgen.files import Places, find_files

    fetch = fetching(offline, quiet or json)
    files = find_files(model, Places(t5=t5, tokenizer=tokenizer, codec=codec, fetch=fetch), unlisted=unlisted)
    with shared.progress("converting", unit="bytes", quiet=quiet or json) as on_step:
        folder = write(files, output, dtype=dtype, bits=bits, force=force, on_step=on_step)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if json:
        shared.emit({"path": str(folder), "bytes": size, "dtype": dtype, "bits": bits}, json=True)
    else:
        print(folder)


@cli.command()
def models(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """The models there are by name, and their licences."""
    from audiogen_mlx.catalog import MODELS

    rows = [
        {
            "name": spec.name,
            "repository": spec.repo,
            "pinned": spec.pinned,
            "bytes": spec.size,
            "licence": spec.license,
            "note": spec.note,
        }
        for spec in MODELS
    ]
    shared.emit(rows, json=json)


@cli.command()
def verify(
    model: Model,
    t5: musicgen.T5 = None,
    tokenizer: musicgen.TokenizerPlace = None,
    codec: musicgen.CodecPlace = None,
    unlisted: musicgen.Unlisted = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check a model's files: hashes where they are known, every tensor's name, shape and values."""
    from audiogen_mlx.musicgen.files import Places
    from audiogen_mlx.verify import verify as check

    places = Places(t5=t5, tokenizer=tokenizer, codec=codec, fetch=fetching(offline, quiet or json))
    shared.emit(check(model, places, unlisted=unlisted), json=json)


@cli.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that this package made.")],
    output: OutputOption,
    use: Moved = None,
    offline: OfflineOption = False,
    play: PlayOption = False,
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
    commands: dict[Any, Any] = {"musicgen": musicgen.replay, "stable-audio": stable_audio.replay}
    command = recipe.settings.get("command")
    if recipe.package != "audiogen-mlx" or command not in commands:
        raise AudioError(f"{file}: made by {recipe.package}, which can make it again; this is audiogen-mlx")
    commands[command](recipe, output, moved=_moved(use or []), offline=offline, quiet=quiet, json=json)


@cli.command()
def doctor(
    measure: Annotated[bool, typer.Option("--measure", help="Time a matrix product.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show versions, the device, the matrix library, the cache, what each command needs, what is missing."""
    from audiogen_mlx.doctor import report

    shared.emit(report(measure=measure), json=json)


def _moved(given: list[str]) -> dict[str, str | None]:
    from audiogen_core.errors import OptionError

    moved: dict[str, str | None] = {}
    for text in given:
        role, equals, place = text.partition("=")
        if not (role and equals and place):
            raise OptionError(f"expected ROLE=PATH, got {text!r}")
        moved[role] = place
    return moved


def main() -> None:
    """Entry point of the command."""
    shared.run(cli)
