"""The commands about exported folders: export, quantize, verify, bench."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from audiogen_core import cli as shared
from audiogen_core.cli import DebugOption, JsonOption, OfflineOption, OutputOption, QuietOption
from audiogen_onnx import cli_options as options

if TYPE_CHECKING:
    import typer

    from audiogen_onnx.manifest import Manifest


def register(commands: typer.Typer) -> None:
    """Add the commands of this file to a command line."""
    for command in (export, quantize, verify, bench):
        commands.command()(command)


def export(
    checkpoints: options.Checkpoints,
    output: OutputOption,
    dtype: options.Dtype = "float32",
    coarse_lora: options.CoarseLora = None,
    fine_lora: options.FineLora = None,
    beats: options.WithBeats = True,
    check: options.Check = True,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a folder that onnxruntime runs, from VampNet's checkpoints. Needs the [export] extra."""
    from audiogen_onnx.exporter import export as exporting

    exporting.require_export()
    manifest = exporting.export(
        exporting.checkpoints(checkpoints, offline=offline, notify=shared.note),
        output,
        dtype=dtype,
        check=check,
        coarse_lora=coarse_lora,
        fine_lora=fine_lora,
        beats=beats,
    )
    _written(manifest, output, json)


def quantize(
    folder: options.Exported,
    output: OutputOption,
    dtype: options.SmallDtype = "int8",
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a smaller copy of a float32 folder. Needs the [export] extra."""
    from audiogen_onnx.exporter.export import quantize

    _written(quantize(folder, output, dtype), output, json)


def verify(
    folder: options.Exported,
    against: options.Against = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the hash of every file, run every graph, and compare with a float32 folder."""
    from audiogen_onnx.vampnet.verify import verify

    rows = [asdict(graph) for graph in verify(folder, against)]
    if against is None:
        rows = [{"graph": row["graph"], "size": row["size"]} for row in rows]
    shared.emit(rows, json=json)


def bench(
    folder: options.Exported,
    checkpoints: options.BenchCheckpoints = None,
    seconds: options.BenchSeconds = 10.0,
    repeats: options.Repeats = 3,
    threads: options.Threads = None,
    provider: options.Provider = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Time every stage of a vamp; against torch, when the checkpoints are named."""
    from audiogen_onnx.bench import compared, measure, torch_vampnet
    from audiogen_onnx.vampnet.generate import Vampnet

    vampnet = Vampnet.load(folder, providers=provider or None, threads=threads)
    ours, theirs = measure(vampnet, seconds, repeats), None
    if (memory := shared.peak_memory()) is not None:
        shared.note(f"peak memory {memory / 1e6:.0f} MB")
    if checkpoints is not None:
        theirs = measure(torch_vampnet(checkpoints, vampnet, threads), seconds, repeats)
    shared.emit(compared(ours, theirs), json=json)
    shared.note(f"sampling takes {ours.loop / max(ours.vamp, 1e-9):.1%} of a vamp")


def _written(manifest: Manifest, output: Path, json: bool) -> None:
    """The end of a command that wrote a folder."""
    size = sum(stored.size for stored in manifest.files.values())
    shared.emit({"path": str(output), "dtype": manifest.dtype, "bytes": size}, json=json)
