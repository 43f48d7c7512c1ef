"""The `audiogen-onnx` command: options, load, verb, save."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from audiogen_core import cli as shared
from audiogen_core import commands
from audiogen_core.devices import HELP
from audiogen_core.errors import OptionError
from audiogen_core.jobs import Run, Shown, Writing
from audiogen_core.options import Described, Place, argument, option, place
from audiogen_core.threads import MOST as MOST_THREADS
from audiogen_core.training.command import Into, carry_out
from audiogen_onnx.jobs import MAGNET, MUSICGEN, VAMP, estimate, plan
from audiogen_onnx.vampnet.options import Asked, Load, Options
from audiogen_onnx.vampnet.tune_options import Tuning

if TYPE_CHECKING:
    from audiogen_onnx.manifest import Exported as Exports
    from audiogen_onnx.vampnet.generate import Vampnet

cli = shared.Program(
    "audiogen-onnx", "audiogen-onnx", "VampNet, MusicGen and MAGNeT in ONNX: export, check and run."
)


@dataclass(frozen=True, kw_only=True)
class MaskFiles(Described):
    """What `vamp` shows of its mask."""

    save_mask: Annotated[Path | None, option("Write the mask as .npy or .png.", metavar="PATH")] = None
    preview: Annotated[
        Path | None, option("Draw the mask over the codes, and make nothing.", metavar="PNG")
    ] = None


@commands.command(cli, VAMP.name, Options, Load, Run, MaskFiles)
def vamp(options: Asked, load: Load, run: Run, files: MaskFiles) -> None:
    """New sound out of a clip: of its length and loudness, around what is kept of it."""
    from audiogen_onnx.vampnet.mask_file import check_suffix

    ready = commands.prepared(VAMP, options, load, run)
    masks = [path for path in (files.save_mask, files.preview) if path is not None]
    for path in masks:
        check_suffix(shared.require_new(path, run.force))
    if files.preview is not None and files.preview.suffix.lower() != ".png":
        raise OptionError(f"{files.preview}: pictures are written as .png; choose such a name")
    asked = cast("Asked", ready.options)
    told = {"output": [str(path) for path in ready.outputs], "seed": asked.seed}
    if run.dry_run and not masks:
        shared.emit(estimate(load, asked, offline=run.offline) | told, json=run.json)
        return
    vampnet = commands.opened(VAMP, ready.load)
    if masks:
        _show_mask(vampnet, asked, files)
    if files.preview is not None:
        shared.emit({"path": str(files.preview)}, json=True) if run.json else print(files.preview)
    elif run.dry_run:
        shared.emit(plan(vampnet, load, asked) | told, json=run.json)
    else:
        commands.make(VAMP, vampnet, ready, run)


def _show_mask(vampnet: Vampnet, options: Asked, files: MaskFiles) -> None:
    """Write the mask of the first variation, or draw it over the codes of the first channel."""
    clip, own = vampnet.prepared(options)
    mask, info = clip.mask(own, options.seed or 0), vampnet.codec.info
    if files.save_mask is not None:
        from audiogen_onnx.vampnet.mask_file import save_mask

        save_mask(mask, files.save_mask)
    if files.preview is not None:
        from audiogen_onnx.vampnet.mask_picture import save_mask_picture

        save_mask_picture(
            mask,
            files.preview,
            frame_rate=info.frame_rate,
            codes=clip.codes[0],
            codebook_size=info.codebook_size,
            title=str(options.audio),
        )


commands.add_job(cli, MUSICGEN)
commands.add_job(cli, MAGNET)
commands.add_replay(cli, VAMP, MUSICGEN, MAGNET)
commands.add_info(cli, VAMP, MUSICGEN, MAGNET)
commands.add_models(cli, VAMP, MUSICGEN, MAGNET)


@dataclass(frozen=True, kw_only=True)
class Tracked(Shown):
    """What `beats` takes."""

    audio: Annotated[Path, argument("Audio file.", metavar="IN")]
    model: Annotated[str, place("Catalogue name, hub id or path.", "-m", metavar="NAME|PATH")] = "vampnet"
    output: Annotated[Path | None, option("Text file; printed when absent.", "-o", metavar="PATH")] = None
    device: Annotated[str, option(HELP)] = "auto"
    provider: Annotated[
        tuple[str, ...], option("onnxruntime's execution provider; more than once for a choice.")
    ] = ()
    offline: Annotated[bool, option("Never use the network.")] = False
    force: Annotated[bool, option("Write over what is there.", "-f")] = False


@commands.command(cli, "beats", Tracked)
def beats(asked: Tracked) -> None:
    """The beats of a clip, one a line, as `vamp --beats` takes them: seconds, place in the bar."""
    from audiogen_core.audio import Audio
    from audiogen_core.files import atomic_path
    from audiogen_onnx.exporter.export import exported
    from audiogen_onnx.session import providers_of
    from audiogen_onnx.vampnet.wavebeat import BeatTracker

    if asked.output is not None:
        shared.require_new(asked.output, asked.force)
    fetch = commands.fetching(asked.offline, asked.quiet or asked.json)
    folder = exported(asked.model, notify=shared.note, fetch=fetch)
    tracked = BeatTracker.of(folder, providers_of(asked.device, asked.provider)).track(
        Audio.load(asked.audio)
    )
    if asked.output is not None:
        with atomic_path(asked.output) as temporary:
            temporary.write_text(tracked.text(), encoding="utf-8")
    if asked.json:
        times = {"beats": tracked.times.tolist(), "downbeat_times": tracked.times[tracked.downbeats].tolist()}
        shared.emit(times, json=True)
    elif asked.output is None:
        print(tracked.text(), end="")
    else:
        print(asked.output)


@commands.command(cli, "tune", Tuning, Writing, Into)
def tune(asked: Tuning, writing: Writing, into: Into) -> None:
    """Learn the sound of a folder of clips beside a VampNet: a LoRA, and a page. Again, it goes on. Needs the
    [train] extra."""
    from audiogen_onnx.exporter.export import require_train

    require_train()
    from audiogen_onnx.exporter.tune import tune as learn

    carry_out(
        learn, VAMP, asked, writing, into, unlisted=asked.unlisted, use="--lora ADAPTER", captioned=False
    )


@commands.command(cli, "doctor", Shown)
def doctor(shown: Shown) -> None:
    """Show versions, onnxruntime's providers, the cache, what each command needs, and what is missing."""
    from audiogen_onnx.doctor import report

    shared.emit(report(), json=shown.json)


# Exported folders


@dataclass(frozen=True, kw_only=True)
class Exported(Shown):
    """What `export` takes."""

    checkpoints: Annotated[
        str,
        argument(
            "A folder of VampNet's, MusicGen's or MAGNeT's checkpoints, or a name.",
            "--model",
            "-m",
            metavar="CHECKPOINTS",
        ),
    ]
    output: Annotated[Path, option("Where the result goes.", "-o", metavar="PATH")]
    dtype: Annotated[str, option("Of the weights.", choices=("float32", "float16", "int8", "int4"))] = (
        "float32"
    )
    lora: Annotated[
        str | None,
        option("What tune has learned beside a VampNet, and how strongly.", metavar="FOLDER[:STRENGTH]"),
    ] = None
    coarse_lora: Annotated[
        str | None,
        option("Or a lora.pth for the coarse network.", metavar="PATH[:STRENGTH]"),
    ] = None
    fine_lora: Annotated[
        str | None,
        option("A lora.pth for the fine network.", metavar="PATH[:STRENGTH]"),
    ] = None
    beats: Annotated[
        bool, option("The beat tracker too, where there is a wavebeat.pth.", no="--no-beats")
    ] = True
    check: Annotated[bool, option("Compare every graph with torch, or with numpy.", no="--no-check")] = True
    t5: Annotated[Place | None, place("Folder of the text encoder, where there is one.", advanced=True)] = (
        None
    )
    tokenizer: Annotated[Place | None, place("Its tokenizer.json.", advanced=True)] = None
    codec: Annotated[Place | None, place("The codec, but VampNet's.", metavar="NAME|PATH", advanced=True)] = (
        None
    )
    mert: Annotated[Place | None, place("Folder of the MERT that hears styles.", advanced=True)] = None
    force: Annotated[bool, option("Write over what was exported there before.", "-f")] = False
    offline: Annotated[bool, option("Never use the network.")] = False
    unlisted: Annotated[bool, option("Allow hub ids outside the catalogue.", advanced=True)] = False


@commands.command(cli, "export", Exported)
def export(asked: Exported) -> None:
    """Write a folder that onnxruntime runs, from a model's checkpoints. Needs the [export] extra."""
    from audiogen_core.files import require_new_folder, require_room
    from audiogen_core.musicgen.files import Files, Places
    from audiogen_onnx.exporter import export as exporter
    from audiogen_onnx.exporter import kinds
    from audiogen_onnx.exporter.musicgen import export as musicgen
    from audiogen_onnx.manifest import over

    adapted = any(each is not None for each in (asked.lora, asked.coarse_lora, asked.fine_lora))
    kind = None if adapted else kinds.kind_of(asked.checkpoints)  # only a VampNet takes one here
    exporter.require_export() if kind is None else musicgen.require_onnx()
    require_new_folder(asked.output, over(asked.force))
    require_room(asked.output)
    fetch = commands.fetching(asked.offline, asked.quiet or asked.json, asked.unlisted)
    if kind is not None:
        places = Places(asked.t5, asked.tokenizer, asked.codec, asked.mert, fetch)
        files = Files.find(kind.catalog, asked.checkpoints, places, unlisted=asked.unlisted)
        made = kind.export(files, asked.output, dtype=asked.dtype, check=asked.check, force=asked.force)
        _written(made, asked.output, asked.json)
        return
    manifest = exporter.export(
        exporter.checkpoints(asked.checkpoints, fetch, unlisted=asked.unlisted),
        asked.output,
        dtype=asked.dtype,
        check=asked.check,
        lora=asked.lora,
        coarse_lora=asked.coarse_lora,
        fine_lora=asked.fine_lora,
        beats=asked.beats,
        force=asked.force,
        fetch=fetch,
    )
    _written(manifest, asked.output, asked.json)


@dataclass(frozen=True, kw_only=True)
class Quantized(Shown):
    """What `quantize` takes."""

    folder: Annotated[str, argument("Exported folder.", "--model", "-m", metavar="DIR")]
    output: Annotated[Path, option("Where the result goes.", "-o", metavar="PATH")]
    dtype: Annotated[str, option("Of the weights.", choices=("float16", "int8", "int4"))] = "int8"
    force: Annotated[bool, option("Write over what was exported there before.", "-f")] = False


@commands.command(cli, "quantize", Quantized)
def quantize(asked: Quantized) -> None:
    """Write a smaller copy of a float32 folder. Needs the [export] extra."""
    from audiogen_onnx.exporter.export import quantize

    _written(quantize(asked.folder, asked.output, asked.dtype, force=asked.force), asked.output, asked.json)


def _written(manifest: Exports, output: Path, json: bool) -> None:
    """The end of a command that wrote a folder."""
    size = sum(stored.size for stored in manifest.files.values())
    shared.emit({"path": str(output), "dtype": manifest.dtype, "bytes": size}, json=json)


@dataclass(frozen=True, kw_only=True)
class Verified(Shown):
    """What `verify` takes."""

    folder: Annotated[str, argument("Exported folder.", "--model", "-m", metavar="DIR")]
    against: Annotated[Path | None, option("The float32 folder it was quantised from.", metavar="DIR")] = None


@commands.command(cli, "verify", Verified)
def verify(asked: Verified) -> None:
    """Check the hash of every file, run every graph, and compare with a float32 folder."""
    from audiogen_onnx.catalog import located
    from audiogen_onnx.magnet.verify import verify as verify_magnet
    from audiogen_onnx.manifest import family_of
    from audiogen_onnx.musicgen.verify import verify as verify_musicgen
    from audiogen_onnx.vampnet.verify import verify as verify_vampnet

    checks = {"musicgen": verify_musicgen, "magnet": verify_magnet}
    check = checks.get(family_of(located(asked.folder)), verify_vampnet)
    rows = [asdict(graph) for graph in check(asked.folder, asked.against)]
    if asked.against is None:
        rows = [{"graph": row["graph"], "size": row["size"]} for row in rows]
    shared.emit(rows, json=asked.json)


@dataclass(frozen=True, kw_only=True)
class Site(Shown):
    """What `web` takes."""

    models: Annotated[
        tuple[str, ...],
        argument("Exported folders; demo: those that come along.", "--model", "-m", metavar="DIR..."),
    ] = ("demo",)
    output: Annotated[Path, option("Folder of the page.", "-o", metavar="SITE")]
    runtime: Annotated[
        Path | None, option("Where onnxruntime-web is; without it npm fetches it, once.", metavar="FOLDER")
    ] = None
    force: Annotated[bool, option("Write over a page that was written there before.", "-f")] = False
    offline: Annotated[bool, option("Never use the network.")] = False


@commands.command(cli, "web", Site)
def web(asked: Site) -> None:
    """Write a page that makes music in the browser of whoever opens it. Needs the [export] extra."""
    from audiogen_onnx.web.site import write_site

    models = write_site(
        asked.models,
        asked.output,
        runtime_dir=asked.runtime,
        offline=asked.offline,
        force=asked.force,
        notify=shared.note,
        fetch=commands.fetching(asked.offline, asked.quiet or asked.json),
    )
    size = sum(path.stat().st_size for path in asked.output.rglob("*") if path.is_file())
    names = [str(model["name"]) for model in models]
    shared.emit({"path": str(asked.output), "models": names, "bytes": size}, json=asked.json)
    shared.note(f"to see it: python -m http.server -d {asked.output}, and open the address it says")


@dataclass(frozen=True, kw_only=True)
class Timed(Shown):
    """What `bench` takes."""

    folder: Annotated[str, argument("Exported folder.", "--model", "-m", metavar="DIR")]
    checkpoints: Annotated[
        Path | None, option("What DIR was exported from: to time torch as well.", metavar="PATH")
    ] = None
    seconds: Annotated[float, option("Of the clip.", unit="s", ge=0.01)] = 10.0
    repeats: Annotated[int, option("Runs of which the median is taken.", ge=1)] = 3
    threads: Annotated[
        int | None, option("Of one operator; all cores when absent.", ge=1, le=MOST_THREADS)
    ] = None
    device: Annotated[str, option(HELP)] = "auto"
    provider: Annotated[
        tuple[str, ...], option("onnxruntime's execution provider; more than once for a choice.")
    ] = ()
    offline: Annotated[bool, option("Never use the network.")] = False


@commands.command(cli, "bench", Timed)
def bench(asked: Timed) -> None:
    """Time every stage of a vamp; against torch, when the checkpoints are named."""
    from audiogen_core.progress import peak_memory
    from audiogen_onnx.bench import compared, measure, torch_vampnet
    from audiogen_onnx.vampnet.generate import Vampnet

    fetch = commands.fetching(asked.offline, asked.quiet or asked.json)
    vampnet = Vampnet.load(
        asked.folder,
        device=asked.device,
        providers=asked.provider or None,
        threads=asked.threads,
        fetch=fetch,
    )
    ours, theirs = measure(vampnet, asked.seconds, asked.repeats), None
    if (memory := peak_memory()) is not None:
        shared.note(f"peak memory {memory / 1e6:.0f} MB")
    if asked.checkpoints is not None:
        peer = torch_vampnet(asked.checkpoints, vampnet, asked.threads)
        theirs = measure(peer, asked.seconds, asked.repeats)
    shared.emit(compared(ours, theirs), json=asked.json)
    shared.note(f"sampling takes {ours.loop / max(ours.vamp, 1e-9):.1%} of a vamp")


def main() -> None:
    """Entry point of the command."""
    shared.run(cli)
