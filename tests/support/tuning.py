"""A small tuning of the demo model, and the same in a process of its own that can be killed."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from audiogen_core.compose import write_folder


def tiny_clips(folder: Path) -> Path:
    """Four clips of two seconds, with captions."""
    write_folder(folder, minutes=8 / 60, piece_seconds=2.0, seed=3, styles=["organ hymn"])
    return folder


def tune_in_process(clips: Path, run: Path, steps: int) -> SpawnProcess:
    """Begin or go on with a run in a process of its own, on one thread."""
    process = multiprocessing.get_context("spawn").Process(target=_tune, args=(clips, run, steps))
    process.start()
    return process


def adapter_of(run: Path) -> bytes:
    """The bytes of the weights of the adapter that a run ended with, or none."""
    path = run / "adapter" / "adapter_model.safetensors"
    return path.read_bytes() if path.is_file() else b""


def _tune(clips: Path, run: Path, steps: int) -> None:
    from audiogen_mlx.musicgen.tune import tune
    from audiogen_mlx.musicgen.tune_options import Tuning

    told: dict[str, Any] = {
        "folder": clips, "model": "demo", "seconds": 1.0, "rank": 2, "batch": 2, "accumulate": 1,
        "steps": steps, "threads": 1, "samples": 0,
    }  # fmt: skip
    made = tune(Tuning.of(told), run)
    raise SystemExit(128 + made.signal if made.signal else 0)
