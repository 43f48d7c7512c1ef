"""The `audiogen-core` command."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiogen_core import cli
from audiogen_core.cli import (
    DebugOption,
    ForceOption,
    JsonOption,
    OfflineOption,
    OutputOption,
    PlayOption,
    QuietOption,
    SeedOption,
)
from audiogen_core.errors import OptionError

if TYPE_CHECKING:
    from audiogen_core.autoencoder import Autoencoder
    from audiogen_core.codec import Codec

commands = cli.app(
    "audiogen-core", "audiogen-core", "Neural audio codecs: sound to codes and back, and tools around them."
)

OpsOption = Annotated[
    str, typer.Option("--ops", metavar="NAME", help="What computes: numpy, torch, torch:cuda, torch:mps.")
]
CODEC_HELP = "Name in the catalogue (see `codecs`), or path."


class Kind(StrEnum):
    """What `plot` draws of a sound."""

    waveform = "waveform"
    spectrogram = "spectrogram"
    both = "both"


class Channel(StrEnum):
    """What `encode` takes out of stereo."""

    left = "left"
    right = "right"
    mid = "mid"
    side = "side"


@commands.command()
def encode(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Audio file.")],
    output: OutputOption,
    codec: Annotated[str, typer.Option("--codec", metavar="NAME|PATH", help=CODEC_HELP)] = "demo",
    codebooks: Annotated[
        int | None, typer.Option("--codebooks", min=1, help="How many to use; all when absent.")
    ] = None,
    channel: Annotated[
        Channel | None, typer.Option("--channel", help="Take this out of stereo; all is mixed when absent.")
    ] = None,
    ops: OpsOption = "numpy",
    offline: OfflineOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn an audio file into codes, or latents where the codec is an autoencoder."""
    from audiogen_core import coding
    from audiogen_core.audio import probe

    cli.require_new(output, force)
    info = probe(audio)
    made = _load(codec, ops, offline)
    if change := coding.conversion(info, made) if channel is None else "":
        cli.note(f"{audio}: {change}")
    started = time.monotonic()
    with cli.progress("encoding", unit="s") as on_step:
        codes = coding.encode_file(audio, made, codebooks=codebooks, channel=channel, on_step=on_step)
    codes.save(output)
    seconds = codes.values.shape[1] / codes.frame_rate
    cli.finished(output, seconds=seconds, took=time.monotonic() - started, json=json)


@commands.command()
def decode(
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="File that `encode` wrote.")],
    output: OutputOption,
    codec: Annotated[
        str | None,
        typer.Option("--codec", metavar="NAME|PATH", help="The codec; the one named in CODES when absent."),
    ] = None,
    ops: OpsOption = "numpy",
    offline: OfflineOption = False,
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn codes or latents into an audio file; its suffix chooses the format."""
    from audiogen_core import coding
    from audiogen_core.codes import Codes

    cli.require_new(output, force)
    read = coding.load_coded(codes)
    maker = read.codec if isinstance(read, Codes) else read.autoencoder
    made = _load(codec or _codec_of(maker, codes), ops, offline)
    recipe = _decoding(codes, maker, made)
    started = time.monotonic()
    with cli.progress("decoding", unit="s") as on_step:
        seconds = coding.decode_file(read, made, output, recipe=recipe, on_step=on_step)
    cli.finished(output, seconds=seconds, took=time.monotonic() - started, picture=True, json=json)


@commands.command()
def info(
    path: Annotated[
        str, typer.Argument(metavar="FILE", help="Audio, codes, a checkpoint, a codec's folder or name.")
    ],
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a file is and what is in it."""
    from audiogen_core.describe import describe

    cli.emit(describe(path), json=json)


@commands.command()
def plot(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Audio or codes.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="The PNG; in the terminal when absent."),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="What to draw of a sound.")] = Kind.both,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a sound or codes as a PNG, or a sound's spectrogram in the terminal."""
    from audiogen_core import describe, plot, terminal_picture
    from audiogen_core.audio import Audio
    from audiogen_core.codes import Codes

    if output is None:
        terminal_picture.show(Audio.load(path), sys.stdout)
        return
    if output.suffix.lower() != ".png":
        raise OptionError(f"{output}: pictures are written as .png; choose such a name")
    cli.require_new(output, force)
    if describe.is_safetensors(path):
        plot.codes(Codes.load(path), output, title=path.name)
    else:
        kinds = plot.KINDS if kind is Kind.both else (kind.value,)
        plot.overview(Audio.load(path), output, kinds=kinds, title=path.name)
    _say({"path": str(output)}, json=json)


@commands.command("codecs")
def list_codecs(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """List the codecs that have names."""
    from audiogen_core.describe import catalogue

    shown = ("name", "sample_rate", "hop_length", "codebooks", "codebook_size", "license", "cached")
    rows = catalogue()
    cli.emit(rows if json else [{key: row[key] for key in shown} for row in rows], json=json)


@commands.command()
def compose(
    output: OutputOption,
    minutes: Annotated[float, typer.Option("--minutes", help="How much music in all.")] = 10.0,
    seed: SeedOption = None,
    style: Annotated[
        list[str] | None,
        typer.Option("--style", help="Style to use; give it again for more. All when absent."),
    ] = None,
    piece_seconds: Annotated[float, typer.Option("--piece-seconds", help="Length of one piece.")] = 60.0,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a folder of captioned, licence-free music to try things on."""
    from audiogen_core.compose import write_folder

    drawn = cli.choose_seed(seed)
    with cli.progress("composing", unit="pieces") as on_step:
        paths = write_folder(
            output,
            minutes=minutes,
            seed=drawn,
            styles=style,
            piece_seconds=piece_seconds,
            force=force,
            on_step=on_step,
        )
    _say({"path": str(output), "pieces": len(paths), "minutes": minutes, "seed": drawn}, json=json)


@commands.command()
def doctor(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """Show versions, devices, the cache, what each command needs, and what is missing."""
    from audiogen_core.doctor import report

    cli.emit(report(), json=json)


def _say(result: dict[str, Any], *, json: bool) -> None:
    """The path alone, or everything as JSON."""
    if json:
        cli.emit(result, json=True)
    else:
        print(result["path"])


def _load(name: str, ops: str, offline: bool) -> Codec | Autoencoder:
    """The codec, fetched with notice and progress where it must be."""
    from audiogen_core import codecs, hub
    from audiogen_core.codecs.catalog import CATALOG

    if name in CATALOG and not Path(name).exists():
        with cli.progress("fetching", unit="bytes") as on_step:
            hub.fetch(CATALOG[name], offline=offline or None, on_step=on_step, notify=cli.note)
    return codecs.load(name, ops=ops)


def _codec_of(name: str, path: Path) -> str:
    """The codec's name in the catalogue, when the codes were made by one of them."""
    from audiogen_core.describe import FACTS

    if name not in FACTS:
        raise OptionError(
            f"{path}: made by {name}, which has no name in the catalogue; give its path with --codec"
        )
    return name


def _decoding(path: Path, name: str, codec: Codec | Autoencoder) -> Any:
    from audiogen_core.codecs.catalog import CATALOG
    from audiogen_core.recipe import Recipe, hash_file
    from audiogen_core.version import version

    return Recipe(
        package="audiogen-core",
        version=version(),
        model=codec.info.name,
        revision=CATALOG[name].revision if name in CATALOG else "",
        seed=None,
        settings={"command": "decode"},
        inputs={"codes": hash_file(path)},
    )


def main() -> None:
    """Run the command line."""
    cli.run(commands)
