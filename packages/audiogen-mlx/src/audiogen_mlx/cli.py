"""The `audiogen-mlx` command: options, load, verb, save."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from audiogen_core import cli as shared
from audiogen_core import commands
from audiogen_core.jobs import Shown, Writing, Written
from audiogen_core.musicgen.options import DTYPES, Located
from audiogen_core.options import argument, option, place
from audiogen_core.training.command import Into, carry_out
from audiogen_mlx import jobs
from audiogen_mlx.musicgen.tune_options import Tuning

if TYPE_CHECKING:
    from audiogen_core.musicgen.files import Places

cli = shared.Program("audiogen-mlx", "audiogen-mlx", "MusicGen, Stable Audio Open and Stable Audio 3 in MLX.")
commands.add_job(cli, jobs.MUSICGEN)
commands.add_job(cli, jobs.STABLE_AUDIO)
commands.add_job(cli, jobs.STABLE_AUDIO_3)
commands.add_replay(cli, jobs.MUSICGEN, jobs.STABLE_AUDIO, jobs.STABLE_AUDIO_3)
commands.add_info(cli, jobs.MUSICGEN, jobs.STABLE_AUDIO, jobs.STABLE_AUDIO_3)
commands.add_models(cli, jobs.MUSICGEN, jobs.STABLE_AUDIO, jobs.STABLE_AUDIO_3)


@dataclass(frozen=True, kw_only=True)
class Converted(Located):
    """What `convert` takes."""

    model: Annotated[str, argument("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = field()
    dtype: Annotated[str, option("float32, bfloat16 or float16.", choices=DTYPES)] = "float32"
    bits: Annotated[int | None, option("4 or 8: quantise the linear layers.")] = None


@dataclass(frozen=True, kw_only=True)
class Checked(Located):
    """What `verify` takes."""

    model: Annotated[str, argument("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = field()
    offline: Annotated[bool, option("Never use the network.")] = False


@commands.command(cli, "convert", Converted, Written)
def convert(asked: Converted, written: Written) -> None:
    """Write a MusicGen or a Stable Audio as a self-contained folder, smaller if wanted, with LoRAs in it."""
    from audiogen_core import lora
    from audiogen_core.errors import OptionError
    from audiogen_mlx.convert import check_folder
    from audiogen_mlx.families import located

    check_folder(written.output, written.force)
    silent = written.quiet or written.json
    places = _places(asked, written.offline, silent)
    kind, _ = located(asked.model, places.fetch, unlisted=asked.unlisted)
    stray = next((name for name in ("tokenizer", "codec", "mert") if getattr(asked, name) is not None), None)
    if kind != "musicgen" and stray:
        raise OptionError(f"{stray} is a part of a MusicGen, and {asked.model} is none; leave it out")
    if kind == "stable-audio" and not (asked.lora and asked.dtype == "float32" and asked.bits is None):
        raise OptionError(
            f"{asked.model}: a Stable Audio Open, which runs as it is; nothing is converted, but a lora put "
            "into it in float32"
        )
    wanted = [lora.Asked.of(each) for each in places.lora]
    how: dict[str, Any] = {"force": written.force}
    if kind != "stable-audio":
        how |= {"dtype": asked.dtype, "bits": asked.bits}
    with shared.progress("converting", unit="bytes", quiet=silent) as on_step:
        if kind == "stable-audio":
            from audiogen_mlx.stable_audio.convert import convert as write_open
            from audiogen_mlx.stable_audio.load import locate as locate_open
            from audiogen_mlx.stable_audio.load import locate_text

            files = locate_open(asked.model, fetch=places.fetch, unlisted=asked.unlisted)
            text = locate_text(files, files.read_config(), asked.t5, fetch=places.fetch)
            files = replace(files, adapters=tuple(lora.read(each) for each in wanted))
            folder = write_open(files, text, written.output, on_step=on_step, **how)
        elif kind == "stable-audio-3":
            from audiogen_mlx.stable_audio_3.convert import convert as write
            from audiogen_mlx.stable_audio_3.load import locate
            from audiogen_mlx.stable_audio_3.lora import Lora
            from audiogen_mlx.stable_audio_3.options import Load

            load = Load(asked.model, t5=asked.t5, unlisted=asked.unlisted)
            how["loras"] = [Lora.read(each) for each in wanted]
            folder = write(locate(load, fetch=places.fetch), written.output, on_step=on_step, **how)
        else:
            from audiogen_mlx.convert import convert as write_musicgen
            from audiogen_mlx.musicgen.load import find_files

            musicgen = find_files(asked.model, places, unlisted=asked.unlisted)
            folder = write_musicgen(musicgen, written.output, on_step=on_step, **how)
    if written.json:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shared.emit({"path": str(folder), "bytes": size, "dtype": asked.dtype, "bits": asked.bits}, json=True)
    else:
        print(folder)


@commands.command(cli, "tune", Tuning, Writing, Into)
def tune(asked: Tuning, writing: Writing, into: Into) -> None:
    """Learn the sound of a folder of clips beside a MusicGen: a LoRA, and a page. Again, it goes on."""
    from audiogen_mlx.musicgen.tune import tune as learn

    carry_out(learn, jobs.MUSICGEN, asked, writing, into, unlisted=asked.unlisted, use="--lora ADAPTER")


@commands.command(cli, "verify", Checked, Shown)
def verify(asked: Checked, shown: Shown) -> None:
    """Check a model's files: hashes where they are known, every tensor's name, shape and values."""
    from audiogen_mlx.verify import verify as check

    places = _places(asked, asked.offline, shown.quiet or shown.json)
    shared.emit(check(asked.model, places, unlisted=asked.unlisted), json=shown.json)


@dataclass(frozen=True, kw_only=True)
class Asked(Shown):
    """What `prompts` takes."""

    model: Annotated[str, place("Catalogue name or folder.", "-m", metavar="NAME|PATH")] = "demo"


@commands.command(cli, "prompts", Asked)
def prompts(asked: Asked) -> None:
    """The words that a small model understands, and what it takes others for."""
    from audiogen_core.errors import OptionError
    from audiogen_core.models import find
    from audiogen_core.prompts import Prompts
    from audiogen_mlx.catalog import CATALOG

    found = find(CATALOG, asked.model)
    places = (found, found / "t5") if isinstance(found, Path) else ()
    words = next(filter(None, map(Prompts.read, places)), None)
    if words is None:
        raise OptionError(
            f"{asked.model}: lists no words; it reads any text, so describe what is to be heard"
        )
    shared.emit(words.table() if asked.json else words.shown(), json=asked.json)


def _places(asked: Located, offline: bool, silent: bool) -> Places:
    from audiogen_core.lora import local
    from audiogen_core.musicgen.files import Places

    fetch = commands.fetching(offline, silent, asked.unlisted)
    adapters = local(asked.lora or (), fetch)
    return Places(asked.t5, asked.tokenizer, asked.codec, asked.mert, fetch, adapters)


@dataclass(frozen=True, kw_only=True)
class Examined(Shown):
    """What `doctor` takes."""

    measure: Annotated[bool, option("Time a matrix product.")] = False


@commands.command(cli, "doctor", Examined)
def doctor(asked: Examined) -> None:
    """Show versions, the device, the matrix library, the cache, what each command needs, what is missing."""
    from audiogen_mlx.doctor import report

    shared.emit(report(measure=asked.measure), json=asked.json)


def main() -> None:
    """Entry point of the command."""
    shared.run(cli)
