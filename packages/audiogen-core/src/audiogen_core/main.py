"""The `audiogen-core` command."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from audiogen_core import cli, jobs
from audiogen_core.commands import (
    Replay,
    add,
    command,
    fetching,
    gathered,
    model_rows,
    replayed,
    to_replay,
)
from audiogen_core.dataset.options import Coder, Division, Preparation
from audiogen_core.devices import Computing
from audiogen_core.errors import AudioError, MissingDependency, OptionError
from audiogen_core.jobs import Channel, Shown, Sounding, Writing, Written
from audiogen_core.options import Described, argument, described, option, place
from audiogen_core.output import Output, Sound
from audiogen_core.present import printable

if TYPE_CHECKING:
    from audiogen_core.codec import Autoencoder, Codec
    from audiogen_core.models import Fetch
    from audiogen_core.recipe import Recipe

commands = cli.Program(
    "audiogen-core", "audiogen-core", "Neural audio codecs: sound to codes and back, and tools around them."
)


@dataclass(frozen=True, kw_only=True)
class Encoding(Coder, Writing):
    """What `encode` takes of a file; of a folder there is more."""

    audio: Annotated[Path, argument("Audio file, or folder of them, at any depth.", metavar="IN")]
    channel: Channel = None
    output: Annotated[
        Path | None,
        option("Where the codes go. A name that is free when absent.", "-o", metavar="PATH"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Decoding(Computing):
    """What `decode` takes."""

    codes: Annotated[Path, argument("File that `encode` wrote.", metavar="CODES")]
    codec: Annotated[
        str | None, place("The codec; the one named in CODES when absent.", "-m", metavar="NAME|PATH")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Named(Shown):
    """What `info` takes."""

    path: Annotated[str, argument("Audio, codes, a checkpoint, a codec's folder or name.", metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class Listened(Shown):
    """What `check` takes."""

    files: Annotated[tuple[Path, ...], argument("Audio files, or folders of them.", metavar="FILE...")]


@dataclass(frozen=True, kw_only=True)
class Drawn(Shown):
    """What `plot` takes."""

    path: Annotated[Path, argument("Audio or codes.", metavar="FILE")]
    output: Annotated[Path | None, option("The PNG; in the terminal when absent.", "-o", metavar="PATH")] = (
        None
    )
    kind: Annotated[str, option("What to draw of a sound.", choices=("waveform", "spectrogram", "both"))] = (
        "both"
    )
    force: Annotated[bool, option("Write over what is there.", "-f")] = False


@dataclass(frozen=True, kw_only=True)
class Composing(Described):
    """What `compose` takes."""

    minutes: Annotated[float, option("How much music in all.", unit="min", gt=0)] = 10.0
    seed: Annotated[int | None, option("Seed of the music; drawn and shown when absent.", ge=0)] = None
    style: Annotated[tuple[str, ...], option("Style to use; give it again for more. All when absent.")] = ()
    piece_seconds: Annotated[float, option("Length of one piece.", unit="s", gt=0)] = 60.0


@dataclass(frozen=True, kw_only=True)
class Checked(Shown):
    """What `verify` takes."""

    model: Annotated[str, argument("A codec's name or path; or a file of codes.", "-m", metavar="NAME|PATH")]
    offline: Annotated[bool, option("Never use the network.")] = False


@dataclass(frozen=True, kw_only=True)
class Serving(Shown):
    """What `serve` takes."""

    host: Annotated[str, option("Address to be reached at; one of other machines needs --token.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, option("Port to be reached at; 0: any that is free.", ge=0, le=65535)] = 7860
    library: Annotated[
        Path | None, option("Folder of clips and queue; one of the user's when absent.", metavar="FOLDER")
    ] = None
    token: Annotated[str | None, option("What others must show; `new` draws one and shows it.")] = None
    allow_paths: Annotated[
        tuple[str, ...],
        option("Folder whose files requests may name; give it again for more.", metavar="FOLDER"),
    ] = ()
    queue: Annotated[int, option("Jobs that may wait.", ge=1, le=100_000)] = 100
    patience: Annotated[
        float, option("How long a model may give no sign before it is ended.", unit="s", gt=0)
    ] = 900.0
    offline: Annotated[bool, option("Never use the network.")] = False


_OF_A_FOLDER = tuple(
    replace(field, option=replace(field.option, group="Of a folder"))
    for field in (*described(Preparation), *described(Division))
    if field.name != "codebooks"
)


def encode(**given: Any) -> None:
    """Turn an audio file into codes, or latents where the codec is an autoencoder; or a folder into shards.

    Of a folder, what was encoded already is not encoded again: stopped at any moment, it goes on.
    """
    asked, preparation = gathered(Encoding, given), gathered(Preparation, given)
    if asked.audio.is_dir():
        _encode_folder(asked, preparation, gathered(Division, given))
        return
    if names := [field.name for field in _OF_A_FOLDER if given[field.name] != field.default]:
        raise OptionError(f"{asked.audio} is no folder, and this is for folders alone", *names)
    _encode_file(asked, preparation.codebooks)


add(
    commands,
    "encode",
    encode,
    [
        *described(Encoding),
        *(field for field in described(Preparation) if field.name == "codebooks"),
        *_OF_A_FOLDER,
    ],
    encode.__doc__,
)


def _encode_folder(asked: Encoding, preparation: Preparation, division: Division) -> None:
    from audiogen_core.codes import FOREIGN
    from audiogen_core.dataset.command import carry_out

    output = asked.output
    if asked.channel is not None:
        raise OptionError(f"{asked.audio} is a folder: --stereo says what becomes of channels", "channel")
    if asked.force:
        raise OptionError(f"{asked.audio} is a folder: its codes are added to, never written over", "force")
    if output and output.suffix.lower() in FOREIGN | {".codes", ".safetensors"} and not output.is_dir():
        raise OptionError(
            f"{output}: {output.suffix} is the name of a file, and a folder of codes is made of a folder; "
            "choose a name without",
            "output",
        )
    carry_out(asked.audio, output, asked, preparation, division, _fetching(asked), asked)


def _encode_file(asked: Encoding, codebooks: int | None) -> None:
    from audiogen_core import codecs, coding
    from audiogen_core.audio import probe
    from audiogen_core.codes import check_name
    from audiogen_core.describe import facts_of
    from audiogen_core.files import require_room

    output = asked.output or cli.free_name(asked.audio.stem, ".codes")
    check_name(output)
    cli.require_new(output, asked.force)
    info = probe(asked.audio)
    seconds, facts = info.frames / info.sample_rate, facts_of(asked.codec)
    if facts is not None:
        require_room(output, coding.coded_size(facts, seconds, codebooks))
    codec = codecs.load(asked.codec, asked.on, _fetching(asked))
    if facts is None:
        require_room(output, coding.coded_size(codec.info, seconds, codebooks))
    if change := coding.conversion(info, codec) if asked.channel is None else "":
        cli.note(f"{asked.audio}: {change}")
    started = time.monotonic()
    with cli.progress("encoding", unit="s") as on_step:
        codes = coding.encode_file(
            asked.audio, codec, codebooks=codebooks, channel=asked.channel, on_step=on_step
        )
    codes.save(output, force=asked.force)
    seconds = codes.values.shape[1] / codes.frame_rate
    cli.finished(output, seconds=seconds, took=time.monotonic() - started, json=asked.json)


@command(commands, "decode", Decoding, Output, Sounding)
def decode(asked: Decoding, made: Output, written: Sounding) -> None:
    """Turn codes or latents into an audio file; its suffix chooses the format."""
    from audiogen_core import codecs, coding, finish
    from audiogen_core.codes import Codes
    from audiogen_core.describe import facts_of

    made = made.standard()
    output = written.output or cli.free_name(asked.codes.stem, ".wav")
    cli.require_new(output, written.force)
    read = coding.load_coded(asked.codes)
    maker = read.codec if isinstance(read, Codes) else read.autoencoder
    name = asked.codec or _codec_of(maker, asked.codes)
    seconds = int(read.values.shape[1]) / read.frame_rate
    facts = facts_of(name)
    rate, channels = (None, None) if facts is None else (facts.sample_rate, facts.channels)
    finish.check(made, Sound(rate, channels, seconds), [output])
    codec = codecs.load(name, asked.on, _fetching(written))
    recipe = _decoding(asked.codes, maker, codec, made)
    started = time.monotonic()
    with cli.progress("decoding", unit="s") as on_step:
        saved = coding.decode_file(read, codec, output, made, recipe=recipe, on_step=on_step)
    if saved.resampled:
        cli.note(f"{output}: {saved.resampled}")
    took = time.monotonic() - started
    cli.finished(
        output, seconds=saved.seconds, took=took, faults=saved.faults, picture=True, json=written.json
    )


@command(commands, "info", Named)
def info(asked: Named) -> None:
    """Say what a file is and what is in it."""
    from audiogen_core.describe import describe

    cli.emit(describe(asked.path), json=asked.json)


@command(commands, "check", Listened)
def check(asked: Listened) -> None:
    """Say which sounds are silent for long, clipped, shifted, one tone or noise; exit code 1 if one is.

    Of several, one that cannot be read does not stop the others.
    """
    from audiogen_core.audio import probe, stream
    from audiogen_core.check import Listener
    from audiogen_core.dataset.folder import scan

    rows: list[dict[str, Any]] = []
    paths: list[Path] = []
    for path in asked.files:
        found = [path / name for name in scan(path)[0]] if path.is_dir() else [path]
        if not found:
            raise AudioError(f"{path}: no audio files in this folder")
        paths += found
    for path in paths:
        try:
            info = probe(path)
            listener = Listener(info.sample_rate, info.channels)
            for block in stream(path):
                listener.add(block)
        except (AudioError, MissingDependency) as error:
            if len(paths) == 1:
                raise
            rows.append({"path": str(path), "faults": [], "error": str(error).removeprefix(f"{path}: ")})
        else:
            rows.append({"path": str(path), "faults": listener.faults()})
    if asked.json:
        told = [{**row, "faults": [{**vars(one), "says": str(one)} for one in row["faults"]]} for row in rows]
        cli.emit(told, json=True)
    else:
        for row in rows:
            told_of = row.get("error") or "; ".join(map(str, row["faults"])) or "nothing found"
            print(printable(f"{row['path']}: {told_of}"))
    if any(row["faults"] or "error" in row for row in rows):
        raise SystemExit(1)


@command(commands, "plot", Drawn)
def plot(asked: Drawn) -> None:
    """Draw a sound or codes as a PNG, or a sound's spectrogram in the terminal."""
    from audiogen_core import describe, plot, terminal_picture
    from audiogen_core.audio import Audio
    from audiogen_core.codes import Codes

    path, output = asked.path, asked.output
    if output is None:
        terminal_picture.show(Audio.load(path), sys.stdout)
        return
    if output.suffix.lower() != ".png":
        raise OptionError(f"{output}: pictures are written as .png; choose such a name")
    cli.require_new(output, asked.force)
    if describe.is_safetensors(path):
        plot.codes(Codes.load(path), output, title=path.name)
    else:
        kinds = plot.KINDS if asked.kind == "both" else (asked.kind,)
        plot.overview(Audio.load(path), output, kinds=kinds, title=path.name)
    _say({"path": str(output)}, json=asked.json)


@command(commands, "codecs", Shown)
def list_codecs(shown: Shown) -> None:
    """List the codecs that have names."""
    from audiogen_core.describe import catalogue

    names = ("name", "sample_rate", "hop_length", "codebooks", "codebook_size", "license", "cached")
    rows = catalogue()
    cli.emit(rows if shown.json else [{key: row[key] for key in names} for row in rows], json=shown.json)


@command(commands, "models", Shown)
def models(shown: Shown) -> None:
    """List the models and codecs that all installed packages can open by name, and their licences."""
    from audiogen_core.describe import catalogue

    codecs = [
        {
            "name": row["name"],
            "job": "codec",
            "here": row["cached"],
            "bytes": None,
            "licence": row["license"],
            "repository": row["source"],
            "note": "",
        }
        for row in catalogue()
    ]
    cli.emit([*model_rows(jobs.every()), *codecs], json=shown.json)


@command(commands, "verify", Checked)
def verify(asked: Checked) -> None:
    """Check a codec: that all its tensors are there, in shape and finite; or a file of codes or latents."""
    from audiogen_core import codecs, coding
    from audiogen_core.codec import Codec
    from audiogen_core.codes import Codes
    from audiogen_core.describe import autoencoder_facts, codec_facts, describe, is_safetensors

    path = Path(asked.model)
    if path.is_file() and is_safetensors(path) and describe(path)["kind"] in ("codes", "latents"):
        read = coding.load_coded(path)
        kind = "codes" if isinstance(read, Codes) else "latents"
        cli.emit({"kind": kind, "path": str(path), "frames": read.values.shape[1]}, json=asked.json)
        return
    codec = codecs.load(asked.model, fetch=fetching(asked.offline, asked.quiet or asked.json))
    facts = codec_facts(codec.info) if isinstance(codec, Codec) else autoencoder_facts(codec.info)
    cli.emit({"kind": "codec", **facts}, json=asked.json)


@command(commands, "replay", Replay)
def replay(asked: Replay) -> None:
    """Make a file again that any of the installed packages made, from the recipe it carries."""
    recipe, output = to_replay(asked)
    if recipe.package != "audiogen-core":
        replayed(asked, recipe, output, jobs.every(), asked.moved, {})
        return
    started = time.monotonic()
    again = _composed if recipe.model == "compose" else _decoded
    seconds = again(asked, recipe, output)
    cli.finished(output, seconds=seconds, took=time.monotonic() - started, picture=True, json=asked.json)


def _composed(asked: Replay, recipe: Recipe, output: Path) -> float:
    """Compose a piece again; its seconds. Its length is the file's: the recipe may say anything."""
    from audiogen_core.audio import probe
    from audiogen_core.compose import compose

    info, told = probe(asked.file), recipe.settings
    seconds, style = told.get("seconds"), told.get("style")
    if not (isinstance(seconds, int | float) and isinstance(style, str) and recipe.seed is not None):
        raise AudioError(f"{asked.file}: the recipe is damaged")
    if abs(seconds - info.frames / info.sample_rate) > 1:
        raise AudioError(f"{asked.file}: the recipe is of a piece of {seconds:g} s, which this file is not")
    piece = compose(recipe.seed, seconds=seconds, style=style)
    piece.audio.save(output, recipe=recipe, force=asked.force)
    return piece.audio.duration


def _decoded(asked: Replay, recipe: Recipe, output: Path) -> float:
    """Decode codes again; the seconds of sound."""
    from audiogen_core import codecs, coding, finish
    from audiogen_core.recipe import hash_file

    if "codes" not in asked.moved:
        raise OptionError(f"{asked.file}: made of codes; say where they are by codes=FILE", "use")
    codes = asked.moved["codes"]
    if hash_file(codes) != recipe.inputs.get("codes"):
        raise AudioError(f"{codes}: not the file that went in as codes; its hash is another")
    fetch = fetching(asked.offline, asked.quiet or asked.json)
    try:
        made = Output.of({name: value for name, value in recipe.settings.items() if name != "command"})
    except OptionError as error:
        raise AudioError(f"{asked.file}: the recipe is damaged ({error})") from error
    codec, read = codecs.load(recipe.model, fetch=fetch), coding.load_coded(codes)
    seconds = read.values.shape[1] / read.frame_rate
    finish.check(made, Sound(codec.info.sample_rate, codec.info.channels, seconds), [output])
    with cli.progress("decoding", unit="s", quiet=asked.json) as on_step:
        return coding.decode_file(read, codec, output, made, recipe=recipe, on_step=on_step).seconds


@command(commands, "compose", Composing, Written)
def compose(asked: Composing, written: Written) -> None:
    """Write a folder of captioned, licence-free music to try things on."""
    from audiogen_core.compose.folder import CAPTIONS, write_folder

    seed = cli.draw_seed() if asked.seed is None else asked.seed
    with cli.progress("composing", unit="pieces") as on_step:
        paths = write_folder(
            written.output,
            minutes=asked.minutes,
            seed=seed,
            styles=list(asked.style) or None,
            piece_seconds=asked.piece_seconds,
            force=written.force,
            on_step=on_step,
        )
    if asked.seed is None:
        cli.show_seed(seed)
    told = {"path": str(written.output), "pieces": len(paths), "minutes": asked.minutes, "seed": seed}
    _say(told, json=written.json)
    cli.note(f"{len(paths)} pieces, {asked.minutes:g} min; what each is stands in {CAPTIONS}")


@dataclass(frozen=True, kw_only=True)
class Showing(Serving):
    """What `studio` takes."""

    open: Annotated[bool, option("Open the page in a browser.", no="--no-open")] = True


@command(commands, "studio", Showing)
def studio(asked: Showing) -> None:
    """A page for all installed packages, on this machine, with the HTTP service behind it."""
    _serve(asked, page=True, opened=asked.open)


@command(commands, "serve", Serving)
def serve(asked: Serving) -> None:
    """An HTTP service over the jobs of all installed packages, on this machine."""
    _serve(asked)


def _serve(asked: Serving, *, page: bool = False, opened: bool = False) -> None:
    from audiogen_core.studio.serve import serve

    serve(
        host=asked.host,
        port=asked.port,
        folder=asked.library,
        token=asked.token,
        allowed=[Path(each) for each in asked.allow_paths],
        most_waiting=asked.queue,
        patience=asked.patience,
        offline=asked.offline,
        page=page,
        opened=opened,
    )


@command(commands, "doctor", Shown)
def doctor(shown: Shown) -> None:
    """Show versions, devices, the cache, what each command needs, and what is missing."""
    from audiogen_core.doctor import report

    cli.emit(report(), json=shown.json)


def _say(result: dict[str, Any], *, json: bool) -> None:
    """The path alone, or everything as JSON."""
    if json:
        cli.emit(result, json=True)
    else:
        print(result["path"])


def _fetching(written: Writing) -> Fetch:
    return fetching(written.offline, written.quiet or written.json)


def _codec_of(name: str, path: Path) -> str:
    """The codec's name in the catalogue, when the codes were made by one of them."""
    from audiogen_core.describe import FACTS

    if name not in FACTS:
        raise OptionError(
            f"{path}: made by {name}, which has no name in the catalogue; give its path with --codec"
        )
    return name


def _decoding(path: Path, name: str, codec: Codec | Autoencoder, made: Output) -> Recipe:
    from audiogen_core.codecs.catalog import CATALOG
    from audiogen_core.recipe import Recipe, hash_file
    from audiogen_core.version import version

    return Recipe(
        package="audiogen-core",
        version=version(),
        model=codec.info.name,
        revision=CATALOG[name].revision if name in CATALOG else "",
        seed=None,
        settings={"command": "decode", **made.output()},
        inputs={"codes": hash_file(path)},
    )


def main() -> None:
    """Run the command line."""
    cli.run(commands)
