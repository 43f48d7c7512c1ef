"""A training run of a second or two, and the same in a process of its own that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.settings import TrainConfig
from support.tokens import CODEBOOKS, SIZE

PRELOAD = ["audiogen_minigpt.trainer", "torch._dynamo", "matplotlib.backends.backend_agg"]
MODEL = ModelConfig(layers=2, heads=2, width=32, context=64, codebooks=CODEBOOKS, codebook_size=SIZE)
FACTS = {
    "codec": "demo",
    "codec_hash": "12345678",
    "sample_rate": 24000,
    "frame_rate": 75.0,
    "hop_length": 320,
    "codebooks": CODEBOOKS,
    "codebook_size": SIZE,
}
"""What a checkpoint of `MODEL` says about the codes it was trained on."""


def tiny(tokens: Path, run: Path, **changes: Any) -> TrainConfig:
    """Settings of a small run that makes no sound."""
    settings: dict[str, Any] = {
        "model": MODEL,
        "steps": 8,
        "batch": 4,
        "lr": 3e-3,
        "sample_seconds": 0.0,
        "eval_windows": 5,
        "log_every": 1,
        "dtype": "float32",
    }
    return TrainConfig(str(tokens), str(run), **{**settings, **changes})


def resume_in_process(config: TrainConfig, environment: dict[str, str] | None = None) -> ForkServerProcess:
    """Start or go on with a run in a process of its own, on one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=_resume, args=(config, environment or {}))
    process.start()
    return process


def train_on_two_ranks(config: TrainConfig) -> list[int | None]:
    """A run in two processes that speak over gloo, as torchrun would start it. Returns their exit codes."""
    processes = [resume_in_process(config, environment) for environment in two_ranks()]
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def command_in_process(arguments: list[str], environment: dict[str, str] | None = None) -> ForkServerProcess:
    """`python -m audiogen_minigpt arguments` in a process of its own, on one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=_command, args=(arguments, environment or {}))
    process.start()
    return process


def two_ranks() -> list[dict[str, str]]:
    """The variables that torchrun would set for two processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def _command(arguments: list[str], environment: dict[str, str]) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = ["audiogen-minigpt", *arguments]
    runpy.run_module("audiogen_minigpt", run_name="__main__")


def _resume(config: TrainConfig, environment: dict[str, str]) -> None:
    import torch

    os.environ.update(environment)

    from audiogen_minigpt.train import train

    torch.set_num_threads(1)
    result = train(config, resume=True)
    raise SystemExit(128 + result.signal if result.signal else 0)


def weights_of(run: Path) -> bytes:
    """The bytes of the newest checkpoint's weights."""
    from audiogen_minigpt import checkpoint

    found = checkpoint.newest(run)
    return (found.path / "model.safetensors").read_bytes() if found else b""
