"""The `audiogen-onnx` command: options, load, verb, save."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core import cli as shared
from audiogen_core.cli import (
    DebugOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutputOption,
    PlayOption,
    QuietOption,
    SeedOption,
    VerboseOption,
)
from audiogen_core.errors import OptionError
from audiogen_onnx import cli_options as options
from audiogen_onnx.folder_commands import register

if TYPE_CHECKING:
    from audiogen_onnx.order import Opened, Order
    from audiogen_onnx.vampnet.beats import Beats
    from audiogen_onnx.vampnet.generate import Vampnet

cli = shared.app("audiogen-onnx", "audiogen-onnx", "VampNet in ONNX: export, check and run.")
register(cli)


@cli.command()
def vamp(
    audio: options.SoundIn,
    output: OutputOption,
    model: ModelOption = "vampnet",
    period: options.Period = None,
    period_width: options.PeriodWidth = None,
    roll: options.Roll = None,
    prefix: options.Prefix = None,
    suffix: options.Suffix = None,
    keep: options.Keep = None,
    onset_width: options.OnsetWidth = None,
    bpm: options.Bpm = None,
    beat_offset: options.BeatOffset = None,
    beats: options.Beats = None,
    track_beats: options.TrackBeats = False,
    before_beat: options.BeforeBeat = None,
    after_beat: options.AfterBeat = None,
    downbeats_only: options.Downbeats = False,
    dropout: options.Dropout = None,
    random_intensity: options.Intensity = None,
    infill: options.Infill = None,
    outpaint_left: options.OutpaintLeft = None,
    outpaint_right: options.OutpaintRight = None,
    loop: options.Loop = False,
    mask: options.Mask = None,
    save_mask: options.SaveMask = None,
    preview: options.Preview = None,
    steps: options.Steps = None,
    fine_steps: options.FineSteps = None,
    temperature: options.Temperature = None,
    fine_temperature: options.FineTemperature = None,
    mask_temperature: options.MaskTemperature = None,
    top_p: options.TopP = None,
    typical_mass: options.TypicalMass = None,
    typical_min_tokens: options.TypicalMin = None,
    sample_cutoff: options.Cutoff = None,
    feedback_steps: options.Feedback = None,
    time_stretch_factor: options.Stretch = None,
    context_seconds: options.Context = None,
    compat: options.Compat = None,
    variations: options.Variations = 1,
    sample_rate: options.Rate = None,
    seed: SeedOption = None,
    threads: options.Threads = None,
    provider: options.Provider = None,
    offline: OfflineOption = False,
    dry_run: DryRunOption = False,
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
) -> None:
    """New sound out of a clip: of its length and loudness, around what is kept of it."""
    asked = dict(locals())
    from audiogen_onnx.order import Order, names_of

    chosen = options.gathered(asked)
    if track_beats:
        if beats is not None or bpm is not None:
            raise OptionError("give one of --track-beats, --beats and --bpm")
        found = _track(audio, model, provider, offline)
        chosen |= options.as_options(found)
    outputs = names_of(output, variations)
    for path in (*outputs, *(path for path in (save_mask, preview) if path)):
        shared.require_new(path, force)
    vampnet = _load(model, threads, provider, offline)
    order = Order(audio, vampnet.name, vampnet.options(chosen), shared.choose_seed(seed), mask, sample_rate)
    opened = order.open(vampnet)
    if save_mask is not None:
        from audiogen_onnx.vampnet.mask_file import save_mask as write_mask

        write_mask(opened.chosen_mask(), save_mask)
    if preview is not None:
        _draw(opened, preview)
    elif dry_run:
        shared.emit(_plan(opened, outputs), json=json)
    else:
        _make(opened, outputs, json=json, quiet=quiet)


@cli.command()
def replay(
    file: options.SoundFile,
    output: OutputOption,
    audio: options.Moved = None,
    model: options.MaybeModel = None,
    mask: options.Mask = None,
    threads: options.Threads = None,
    provider: options.Provider = None,
    offline: OfflineOption = False,
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a file again, from the recipe it carries."""
    from audiogen_onnx.order import check_revision, order_again

    shared.require_new(output, force)
    order, revision = order_again(file, audio=audio, model=model, mask=mask)
    vampnet = _load(order.model, threads, provider, offline)
    check_revision(vampnet, revision)
    _make(replace(order, model=vampnet.name).open(vampnet), [output], json=json, quiet=quiet)


@cli.command()
def beats(
    audio: options.SoundIn,
    model: ModelOption = "vampnet",
    output: options.BeatsOut = None,
    provider: options.Provider = None,
    offline: OfflineOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """The beats of a clip, one a line, as `vamp --beats` takes them: seconds, place in the bar."""
    from audiogen_core.files import atomic_path

    if output is not None:
        shared.require_new(output, force)
    found = _track(audio, model, provider, offline)
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(found.text(), encoding="utf-8")
    if json:
        shared.emit(options.as_options(found), json=True)
    else:
        print(found.text() if output is None else output, end="" if output is None else "\n")


@cli.command()
def models(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """The models there are by name: fetched when they are needed, or part of the package."""
    from audiogen_onnx.catalog import CATALOG

    rows = [
        {"name": spec.name, "repository": spec.repo, "licence": spec.license, "note": spec.note}
        for spec in CATALOG.values()
    ]
    shared.emit(rows, json=json)


@cli.command()
def doctor(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """Show versions, onnxruntime's providers, the cache, what each command needs, and what is missing."""
    from audiogen_onnx.doctor import report

    shared.emit(report(), json=json)


def _load(model: str, threads: int | None, provider: list[str] | None, offline: bool) -> Vampnet:
    from audiogen_onnx.catalog import located
    from audiogen_onnx.exporter.export import exported
    from audiogen_onnx.vampnet.generate import Vampnet

    folder = exported(model, offline=offline, notify=shared.note)
    named = model if located(model) == folder else folder  # recipes name what comes with the package
    return Vampnet.load(named, providers=provider or None, threads=threads)


def _track(audio: Path, model: str, provider: list[str] | None, offline: bool) -> Beats:
    """The beats of a clip, by the tracker of an exported folder."""
    from audiogen_core.audio import Audio
    from audiogen_onnx.exporter.export import exported
    from audiogen_onnx.vampnet.wavebeat import BeatTracker

    tracker = BeatTracker.of(exported(model, offline=offline, notify=shared.note), provider or None)
    return tracker.track(Audio.load(audio))


def _make(opened: Opened, outputs: list[Path], *, json: bool, quiet: bool) -> None:
    """Make and save the variations, the surest first."""
    began = time.monotonic()
    with shared.progress("making", quiet=quiet or json) as on_step:
        made = opened.make(len(outputs), on_step)
    for result, path in zip(made, outputs, strict=True):
        opened.save(result, path)
    took = time.monotonic() - began
    for result, path in zip(made, outputs, strict=True):
        again = f"audiogen-onnx replay {shlex.quote(str(path))} -o AGAIN{path.suffix}"
        if len(outputs) > 1:
            shared.detail(f"{path}: mean log probability {result.confidence:.3f}")
        shared.finished(
            path,
            seconds=opened.seconds,
            took=took / len(outputs),
            seed=result.seed,
            replay=again,
            picture=True,
            json=json,
        )


def _draw(opened: Opened, path: Path) -> None:
    """The mask over the codes of the first channel, as a picture."""
    from audiogen_onnx.vampnet.mask_picture import save_mask_picture

    info = opened.vampnet.codec.info
    save_mask_picture(
        opened.chosen_mask(),
        path,
        frame_rate=info.frame_rate,
        codes=opened.clip.codes[0],
        codebook_size=info.codebook_size,
        title=str(opened.order.audio),
    )
    print(path)


def _plan(opened: Opened, outputs: Iterable[Path]) -> dict[str, Any]:
    """What would be done."""
    order: Order = opened.order
    mask, clip = opened.chosen_mask(), opened.clip
    return {
        "model": order.model,
        "output": [str(path) for path in outputs],
        "seconds": round(opened.seconds, 3),
        "sample_rate": opened.sample_rate,
        "channels": clip.source.channels,
        "frames": clip.layout.frames,
        "made": f"{mask.mean():.1%} of the codes",
        "steps": opened.vampnet.pair.steps(mask[None], order.options) * clip.source.channels,
        "seed": order.seed,
        "options": order.options.to_dict(),
    }


def main() -> None:
    """Entry point of the command."""
    shared.run(cli)
