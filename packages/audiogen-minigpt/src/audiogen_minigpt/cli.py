"""The `audiogen-minigpt` command."""

from __future__ import annotations

import shlex
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from audiogen_core import cli
from audiogen_core.cli import (
    DebugOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    OutputOption,
    PlayOption,
    QuietOption,
    SeedOption,
)
from audiogen_minigpt import options

if TYPE_CHECKING:
    from audiogen_core.audio import Audio

commands = cli.app(
    "audiogen-minigpt",
    "audiogen-minigpt",
    "A folder of audio in, a small GPT trained on its codes, new audio out.",
)


@commands.command()
def run(
    folder: options.AudioFolder,
    output: OutputOption,
    time: options.Time = None,
    steps: options.Steps = None,
    codec: options.MaybeCodec = None,
    size: options.Size = None,
    preset: options.Preset = None,
    layout: options.Layout = None,
    codebooks: options.Codebooks = None,
    seed: options.TrainSeed = None,
    config: options.Config = None,
    workers: options.Workers = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Encode, train, judge and make sounds, with a page to show for it. Goes on where it was stopped."""
    from audiogen_minigpt.run import run
    from audiogen_minigpt.status import Stages

    shape = {"preset": preset, "layout": layout, "codebooks": codebooks}
    wanted = options.settings(config, shape, size, time=time, steps=steps, seed=seed)
    with Stages(quiet or json) as stages:
        result = run(
            folder,
            output,
            codec=codec,
            settings=wanted,
            workers=workers,
            on_stage=stages.begin,
            on_record=stages.status.on_record,
        )
    if not result.done:
        cli.note(f"{output}: everything was done already")
    _result({"path": str(result.page or result.run), "step": result.step, "done": list(result.done)}, json)
    _leave(result.signal)


@commands.command()
def encode(
    folder: options.AudioFolder,
    output: OutputOption,
    codec: options.Codec = "demo",
    ops: options.Ops = "numpy",
    codebooks: options.Stored = None,
    stereo: options.Stereo = "mix",
    level: options.Level = "none",
    silence: options.Silence = 2.0,
    val_permille: options.Permille = 50,
    split_by: options.SplitBy = "file",
    workers: options.Workers = None,
    engine: options.Engine = "local",
    verify: options.Verify = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn a folder of audio into a folder of codes. Goes on where it was stopped."""
    from audiogen_minigpt.encode import encode
    from audiogen_minigpt.encode import verify as verify_data
    from audiogen_minigpt.prepare import Options

    prepared = Options(stereo=stereo, level=level, silence=silence, codebooks=codebooks)
    with cli.progress("encoding", unit="shards", quiet=quiet or json) as on_step:
        report = encode(
            folder,
            output,
            codec=codec,
            ops=ops,
            engine=engine,
            workers=workers,
            options=prepared,
            val_permille=val_permille,
            split_by=split_by,
            on_step=on_step,
        )
    if verify:
        cli.note(f"checked: {verify_data(output)} frames are as they were written")
    if report.skips:
        cli.note(f"left out: {len(report.skips)} files; the reasons are in {output / 'report.jsonl'}")
    if report.tails:
        cli.note("held out: the last tenth of the music, for there is nothing else to hold out")
    result = {"path": str(output), "tracks": report.tracks, "seconds": report.seconds}
    _result({**result, "val_seconds": report.val_seconds, "left_out": len(report.skips)}, json)


@commands.command()
def train(
    data: options.DataFolder,
    output: OutputOption,
    resume: options.Resume = False,
    config: options.Config = None,
    time: options.Time = None,
    steps: options.Steps = None,
    size: options.Size = None,
    preset: options.Preset = None,
    layout: options.Layout = None,
    codebooks: options.Codebooks = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    optimizer: options.Optimizer = None,
    seed: options.TrainSeed = None,
    device: options.MaybeDevice = None,
    dtype: options.Dtype = None,
    compile: options.Compile = None,
    shard: options.Shard = False,
    codec: options.MaybeCodec = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a model on a folder of codes; alone, or as one of the processes of torchrun."""
    from audiogen_minigpt.settings import Settings, load_config
    from audiogen_minigpt.shards import Meta
    from audiogen_minigpt.status import Status
    from audiogen_minigpt.train import train

    given = options.settings(
        config,
        {"preset": preset, "layout": layout, "codebooks": codebooks},
        size,
        time=time,
        steps=steps,
        batch=batch,
        lr=lr,
        optimizer=optimizer,
        seed=seed,
        device=device,
        dtype=dtype,
        compile=compile,
        shard=shard or None,
        codec=codec,
    )
    given = Settings({"data": str(data), "run": str(output)}).over(given)
    facts, before = Meta.load(data).facts, load_config(output) if resume else None
    settings = given.resumed(before, facts) if before else given.config(facts)
    if dry_run:
        cli.emit(settings.to_dict(), json=json)
        return
    status = Status(quiet or json)
    try:
        result = train(settings, resume=resume, on_step=status.on_step, on_record=status.on_record)
    finally:
        status.clear()
    if result.ran == 0 and result.finished:
        cli.note(f"{output}: trained already, {result.step} updates; ask for more --steps or --time to go on")
    if result.checkpoint:  # only in the first process
        facts = {"path": str(output), "step": result.step, "steps": result.steps, "loss": result.loss}
        _result({**facts, "checkpoint": str(result.checkpoint)}, json)
    _leave(result.signal)


@commands.command()
def generate(
    model: options.ModelFolder,
    output: OutputOption,
    seconds: options.Seconds = 10.0,
    prompt_audio: options.Prompt = None,
    only_new: options.OnlyNew = False,
    number: options.Number = 1,
    seed: SeedOption = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    best: options.Best = False,
    codec: options.MaybeCodec = None,
    device: options.Device = "auto",
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make sound with a trained model."""
    from audiogen_minigpt.checkpoint import sampling_of
    from audiogen_minigpt.make import Order, make

    outputs = cli.require_new_each(output, number, force)
    seed = cli.choose_seed(seed)
    sampling = options.sampling(sampling_of(model), temperature, top_k, top_p, min_p, seed)
    order = Order(model, seconds, sampling, prompt_audio, only_new, codec)
    began = clock.monotonic()
    with cli.progress("generating", unit="frames", quiet=quiet or json) as on_step:
        clips = make(order, outputs, which=_which(best), device=device, on_step=on_step)
    took = clock.monotonic() - began
    for row, (path, audio) in enumerate(zip(outputs, clips, strict=True)):
        again = f"audiogen-minigpt replay {shlex.quote(str(path))} -o AGAIN{path.suffix}"
        _finished(path, audio, took / len(clips), seed + row, again, json)


@commands.command()
def replay(
    file: options.SoundFile,
    output: OutputOption,
    model: options.MovedRun = None,
    prompt_audio: options.Prompt = None,
    codec: options.MaybeCodec = None,
    device: options.Device = "auto",
    play: PlayOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a generated file again, from the recipe it carries."""
    from audiogen_minigpt.make import make, order_again

    cli.require_new(output, force)
    order = order_again(file, model=model, prompt_audio=prompt_audio, codec=codec)
    began = clock.monotonic()
    with cli.progress("generating", unit="frames", quiet=quiet or json) as on_step:
        clips = make(order, [output], device=device, on_step=on_step)
    took = clock.monotonic() - began
    _finished(output, clips[0], took, order.sampling.seed, None, json)


@commands.command("eval")
def evaluate(
    model: options.ModelFolder,
    data: options.MaybeData = None,
    best: options.Best = False,
    windows: options.Windows = 256,
    clips: options.Clips = 3,
    seconds: options.ClipSeconds = 10.0,
    seed: options.EvalSeed = 0,
    codec: options.MaybeCodec = None,
    device: options.Device = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Judge a model on held-out codes, beside what counting codes achieves."""
    from audiogen_minigpt.evaluate import evaluate

    with cli.progress("judging", unit="parts", quiet=quiet or json) as on_step:
        result = evaluate(
            model,
            data,
            which=_which(best),
            windows=windows,
            clips=clips,
            seconds=seconds,
            seed=seed,
            codec=codec,
            device=device,
            on_step=on_step,
        )
    cli.emit(result.to_dict(), json=json)


@commands.command()
def export(
    model: options.ModelFolder,
    output: OutputOption,
    format: options.Format = "auto",
    best: options.Best = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a model for use elsewhere: for transformers' GPT-2, as safetensors, or light for `generate`."""
    from audiogen_minigpt.export import export

    _result({"path": str(export(model, output, format, which=_which(best)))}, json)


@commands.command()
def info(
    path: options.AnyPath,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what is in a folder or file."""
    from audiogen_minigpt.info import info

    cli.emit(info(path), json=json)


@commands.command()
def doctor(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """Show versions, devices, the cache, what each command needs, and what is missing."""
    from audiogen_minigpt.doctor import report

    cli.emit(report(), json=json)


def _finished(path: Path, made: Audio, took: float, seed: int | None, again: str | None, json: bool) -> None:
    """The end of a command that made a clip."""
    cli.finished(path, seconds=made.duration, took=took, seed=seed, replay=again, picture=True, json=json)


def _which(best: bool) -> str:
    return "best" if best else "last"


def _result(result: dict[str, Any], json: bool) -> None:
    """The path alone, or everything as JSON."""
    if json:
        cli.emit(result, json=True)
    else:
        print(result["path"])


def _leave(signal: int | None) -> None:
    """Exit as a process that a signal ended."""
    if signal is not None:
        raise typer.Exit(128 + signal)


def main() -> None:
    """Run the command line."""
    cli.run(commands)
