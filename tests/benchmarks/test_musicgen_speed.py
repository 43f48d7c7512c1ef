"""One decoding step of musicgen-small at full size, random weights, float32, one clip with guidance.

Run with `uv run pytest -m benchmark -s tests/benchmarks/test_musicgen_speed.py`. Prints ratios; asserts no
time. Every contestant has a process of its own and they take turns: ours; transformers on torch; mlx-audiogen
0.2.0 as a user gets it, in an environment of its own; and the same package with the BLAS that ours loads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_mlx import blas
from audiogen_mlx.musicgen.model import attend
from support.bench import report
from support.figures import compare
from support.musicgen_models import SMALL, WindowRuns

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

THREADS = blas.threads()
TITLE = f"MusicGen small in mlx, {THREADS} threads"
ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "support" / "musicgen_steps.py"
PEER = "mlx-audiogen 0.2.0 as installed"
PEER_BLAS = "mlx-audiogen 0.2.0 with our BLAS"
ROUNDS, STEPS = 4, 25
AT = (100, 500, 1000, 1500)
READ = 4 * (14 * SMALL.width**2 * SMALL.layers + SMALL.codebooks * SMALL.codebook_size * SMALL.width)
"""Bytes of weights that a step has to read."""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with mlx-audiogen."""
    place = tmp_path_factory.mktemp("peer") / "environment"
    python = str(place / "bin" / "python")
    wanted = ["mlx-audiogen==0.2.0", *(["mlx[cpu]", "scipy-openblas32"] if sys.platform == "linux" else [])]
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(place)], check=True)
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, *wanted], check=True)
    return python


@contextmanager
def worker(
    python: str, *arguments: str, path: tuple[str, ...] = (), threads: int = THREADS
) -> Iterator[subprocess.Popen[str]]:
    """A contestant, warm."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(str(ROOT / place) for place in path),
    }
    command = [python, str(WORKER), *arguments]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        yield process


def asked(process: subprocess.Popen[str], steps: int) -> dict[str, float]:
    """Seconds per step and peak memory of a contestant."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def bandwidth(readers: int = THREADS) -> float:
    """Bytes per second that so many threads read plainly, the best of several times."""
    torch.set_num_threads(readers)
    array = torch.ones(1 << 28)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - began)
    return array.numel() * 4 / best


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """A process of the lowest priority that computes all the time."""
    if not wanted:
        yield
        return
    with subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def test_one_step_beside_peers(peer: str):
    sources = tuple(f"packages/audiogen-{name}/src" for name in ("core", "mlx"))
    fast = [] if blas.use().source == "none" else [PEER_BLAS]
    contestants = {
        "ours": (sys.executable, ("ours",), ("tests",)),
        "transformers": (sys.executable, ("transformers",), ()),
        PEER: (peer, ("mlx-audiogen",), ()),
        **dict.fromkeys(fast, (peer, ("mlx-audiogen", "--blas"), sources)),
    }
    times = dict.fromkeys(contestants, float("inf"))
    peaks = dict.fromkeys(contestants, 0.0)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(worker(python, *arguments, path=path))
            for name, (python, arguments, path) in contestants.items()
        }
        for _ in range(ROUNDS):
            for name, process in processes.items():
                found = asked(process, STEPS)
                times[name] = min(times[name], found["step"])
                peaks[name] = found["peak"]
    aims = {"transformers": 1.3, PEER: 3.4, PEER_BLAS: 1.1}
    for name in contestants:
        if name != "ours":
            pair = {"ours": times["ours"], name: times[name]}
            compare(TITLE, "one step", pair, peer=name, aims={"ours": aims[name]}, audio=0.02)
    plain = bandwidth()
    share = READ / plain / times["ours"]
    report(
        TITLE,
        [
            f"reading the weights once at the {plain / 1e9:.0f} GB/s of plain reading: "
            f"{1000 * READ / plain:.0f} ms, {share:.0%} of our step",
            "peak memory: " + ", ".join(f"{name} {peak / 2**30:.2f} GiB" for name, peak in peaks.items()),
        ],
    )
    assert set(times) == set(peaks)


WAYS = {"one thread": (1, False), "two threads": (2, False), "two, beside a busy neighbour": (2, True)}


def test_one_step_in_three_ways():
    """How near a step is to what reading allows, and what the second thread and a neighbour change."""
    title = "MusicGen small in mlx, three ways"
    ours: dict[str, float] = {}
    reading: dict[str, float] = {}
    for way, (threads, beside) in WAYS.items():
        best = dict.fromkeys(("ours", "transformers"), float("inf"))
        reading[way] = 0.0
        with ExitStack() as stack:
            processes = {
                name: stack.enter_context(worker(sys.executable, name, path=("tests",), threads=threads))
                for name in best
            }
            for _ in range(ROUNDS):
                reading[way] = max(reading[way], bandwidth(threads))
                with neighbour(beside):
                    for name, process in processes.items():
                        best[name] = min(best[name], asked(process, STEPS)["step"])
        compare(title, way, best, peer="transformers", audio=0.02)
        ours[way] = best["ours"]
    report(
        title,
        [
            f"{way}: {1000 * ours[way]:.0f} ms; its readers alone take {1000 * READ / reading[way]:.0f} ms "
            f"for the weights ({reading[way] / 1e9:.0f} GB/s): {ours[way] * reading[way] / READ:.2f} of that"
            for way in WAYS
        ],
    )
    one, two, company = ours.values()
    gain = reading["two threads"] / reading["one thread"]
    report(
        title,
        [
            f"the second thread: {one / two:.2f} times as fast, where two readers get {gain:.2f} of one",
            f"the neighbour: {company / two:.2f} of the time without it",
        ],
    )
    assert all(np.isfinite(list(ours.values())))


def attention_alone(position: int) -> float:
    """Seconds of attention to so many positions, in all layers."""
    rng = np.random.default_rng(0)
    shape = (2, SMALL.heads, position, SMALL.width // SMALL.heads)
    held = [[rng.random(shape, np.float32) for _ in range(2)] for _ in range(SMALL.layers)]
    query = rng.random((2, SMALL.heads, 1, shape[3]), np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for keys, values in held:
            attend(query, keys, values)
        best = min(best, time.perf_counter() - began)
    return best


def test_the_cost_of_a_step_along_a_clip():
    import mlx.core as mx

    runs = WindowRuns(SMALL, mx.random.normal((1, 16, SMALL.width)), 3.0, 250)
    steps: dict[int, float] = {}
    for position in AT:
        begun = position - STEPS // 2
        blocks = runs.blocks(begun + 4 * STEPS, begun)
        next(blocks)  # with the beginning
        steps[position] = float("inf")
        for _ in range(2):
            began = time.perf_counter()
            assert next(blocks).shape[2] == STEPS
            steps[position] = min(steps[position], (time.perf_counter() - began) / STEPS)
    rest = {position: took - attention_alone(position) for position, took in steps.items()}
    report(
        TITLE,
        [
            f"step {position:4}: {1000 * steps[position]:6.1f} ms, without attention to what came before "
            f"{1000 * rest[position]:6.1f} ms, {rest[position] / rest[AT[0]]:.2f} of that at step {AT[0]}"
            for position in AT
        ],
    )
    assert np.isfinite(list(rest.values())).all()
