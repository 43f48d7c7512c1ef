"""Updates of a LoRA beside musicgen-small at full size, random weights, clips of ten seconds.

Run with `uv run pytest -m benchmark -s tests/benchmarks/test_tune_speed.py`. Prints ratios; asserts no time.
Every contestant has a process of its own and they take turns: ours, and peft on transformers and torch; each
keeps what its gradients need, or works layers out again (gradient checkpointing). The losses of both fall.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from audiogen_mlx import blas
from support.bench import report
from support.figures import compare

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

THREADS = blas.threads()
TITLE = f"Tuning MusicGen small, {THREADS} threads"
TESTS = Path(__file__).parents[1]
WORKER = TESTS / "support" / "tuning_steps.py"
ROUNDS, SECONDS = 3, 10.0
WAYS = {"keeping": (), "working layers out again": ("--checkpoint",)}


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with peft, for the torch and transformers that are here."""
    folder = tmp_path_factory.mktemp("peft")
    wanted = ["peft==0.21.2", "accelerate==1.15.0"]
    command = ["uv", "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", str(folder)]
    subprocess.run([*command, *wanted], check=True)
    return folder


@contextmanager
def worker(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A contestant, which has its model."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(path)}
    command = [sys.executable, str(WORKER), *arguments]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        yield process


def asked(process: subprocess.Popen[str], updates: int = 1) -> dict[str, float]:
    """Seconds of an update, the loss, and peak memory of a contestant."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{updates}\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


@pytest.mark.parametrize("way", WAYS)
def test_an_update_beside_peft(way: str, peft: Path):
    places = {"ours": TESTS, "peft": peft}
    times = dict.fromkeys(places, float("inf"))
    losses: dict[str, list[float]] = {name: [] for name in places}
    peaks: dict[str, float] = {}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(worker(path, name, "small", "--seconds", str(SECONDS), *WAYS[way]))
            for name, path in places.items()
        }
        for _ in range(ROUNDS + 1):  # the first one is not like the others, and its time is forgotten
            for name, process in processes.items():
                found = asked(process)
                if losses[name]:
                    times[name] = min(times[name], found["step"])
                losses[name].append(found["loss"])
                peaks[name] = found["peak"]
    compare(TITLE, f"an update, {way}", times, peer="peft", aims={"ours": 1.5}, audio=SECONDS)
    tokens = 4 * 50 * SECONDS
    report(
        TITLE,
        [
            f"{way}: {name} {tokens / times[name]:.0f} tokens/s, peak {peaks[name] / 2**30:.2f} GiB"
            for name in times
        ],
    )
    assert all(own[-1] < own[0] for own in losses.values())
