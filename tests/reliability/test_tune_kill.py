"""Tuning that is killed ends with the very adapter it would have had."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from audiogen_core.training import checkpoints, metrics
from support.figures import tell
from support.tuning import adapter_of, tiny_clips, tune_in_process

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.timeout(1200),
]

STEPS = 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter of a run that nothing happens to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    _finish(clips, run)
    return adapter_of(run)


@pytest.mark.slow
def test_an_adapter_after_three_kills(clips: Path, undisturbed: bytes, tmp_path: Path):
    _check_kills(clips, undisturbed, tmp_path, kills=3)


@pytest.mark.soak
def test_an_adapter_after_twenty_kills(clips: Path, undisturbed: bytes, tmp_path: Path):
    _check_kills(clips, undisturbed, tmp_path, kills=20)


def _check_kills(clips: Path, undisturbed: bytes, folder: Path, kills: int) -> None:
    """Kill while clips are encoded, while a checkpoint is written, and some updates further on, in turn."""
    rng = random.Random(kills)
    counts = {"encoding": 0, "a checkpoint": 0, "an update": 0}
    runs = [folder / "run0"]
    for number in range(kills):
        if adapter_of(runs[-1]):  # it got through: begin anew
            runs.append(folder / f"run{number}")
        run = runs[-1]
        process = tune_in_process(clips, run, STEPS)
        if not (run / "data").is_dir():
            what, reached = "encoding", lambda: any((run / "data").glob("*"))  # noqa: B023
        elif number % 2:
            what, reached = "a checkpoint", lambda: any((run / "ckpt").glob(".tmp-*"))  # noqa: B023
        else:
            what, step = "an update", _steps(run) + rng.randrange(1, 4)
            reached = lambda: _steps(run) >= step  # noqa: E731, B023
        if _wait(process, reached):
            time.sleep(rng.uniform(0, 0.004 if what == "a checkpoint" else 0.2))
            counts[what] += process.is_alive()
        process.kill()
        process.join()
    for run in runs:
        _finish(clips, run)
        assert adapter_of(run) == undisturbed
        assert not [*run.glob(".tmp-*"), *(run / "ckpt").glob(".tmp-*")]
        steps = [record["step"] for record in metrics.read(run) if record["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1))
    assert sum(counts.values()) >= kills - len(runs)
    tell(
        "tuning",
        "kill -9 while clips are encoded, inside checkpoints and between updates",
        kills,
        "final adapter bit-identical to that of an undisturbed run; "
        + ", ".join(f"{count} in {what}" for what, count in counts.items()),
        promised="bit-identical (CPU)",
    )


def _steps(run: Path) -> int:
    """How many updates the newest checkpoint has, and the diary where it is further."""
    last = checkpoints.newest(run)
    done = [record["step"] for record in metrics.read(run) if record["kind"] == "train"]
    return max([last.step if last else 0, *done])


def _wait(process: SpawnProcess, reached: Callable[[], bool]) -> bool:
    """Whether it came to that before it ended."""
    end = time.monotonic() + 120
    while process.is_alive() and not reached():
        assert time.monotonic() < end, "the run never got there"
        time.sleep(0.0005)
    return process.is_alive()


def _finish(clips: Path, run: Path) -> None:
    process = tune_in_process(clips, run, STEPS)
    process.join(300)
    assert process.exitcode == 0
