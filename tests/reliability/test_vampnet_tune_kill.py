"""Tuning of a VampNet that is killed ends with the very LoRAs it would have had."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.training import metrics
from support.figures import tell
from support.tiny_vampnet import tune_in_process, write_tiny_vampnet

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

STEPS = 24


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for index, pitch in enumerate((220, 330, 440)):
        times = np.arange(24_000) / 24_000
        Audio(np.float32([0.3 * np.sin(2 * np.pi * pitch * times)]), 24_000).save(folder / f"{index}.wav")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vampnet(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.slow
def test_loras_after_kills_are_bit_identical(clips: Path, model: Path, tmp_path: Path) -> None:
    _check_kills((clips, model), tmp_path, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_loras_after_twenty_kills(clips: Path, model: Path, tmp_path: Path) -> None:
    _check_kills((clips, model), tmp_path, kills=20)


def _check_kills(given: tuple[Path, Path], folder: Path, kills: int) -> None:
    """Kill some updates on, and every other time as soon as a checkpoint is being written."""
    _finish(given, folder / "undisturbed")
    undisturbed, run = _learned(folder / "undisturbed"), folder / "run"
    rng, inside = random.Random(kills), 0
    for number in range(kills):
        if _learned(run) == undisturbed:  # it got through: begin anew
            run = folder / f"run{number}"
        before, steps = set((run / "ckpt").glob(".tmp-*")), len(metrics.read(run)) + rng.randint(1, 5)
        process = tune_in_process(*given, run, STEPS)
        while process.is_alive():
            if number % 2 and set((run / "ckpt").glob(".tmp-*")) - before:
                time.sleep(rng.uniform(0, 0.004))
                inside += 1
                break
            if not number % 2 and len(metrics.read(run)) >= steps:
                time.sleep(rng.uniform(0, 0.05))
                break
            time.sleep(0.0005)
        process.kill()
        process.join()
    _finish(given, run)
    assert _learned(run) == undisturbed
    assert inside
    assert not list((run / "ckpt").glob(".tmp-*"))
    steps = [record["step"] for record in metrics.read(run) if record["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    tell(
        "training",
        "kill -9 of a VampNet's tuning after some updates, half of them while a checkpoint is written",
        kills,
        f"final LoRAs bit-identical to those of an undisturbed run; {inside} kills inside a checkpoint",
        promised="bit-identical (CPU)",
    )


def _learned(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / "adapter").glob("*/lora.pth"))]


def _finish(given: tuple[Path, Path], run: Path) -> None:
    process = tune_in_process(*given, run, STEPS)
    process.join(120)
    assert process.exitcode == 0
