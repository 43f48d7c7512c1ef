"""Training that is killed, stopped, or loses a checkpoint ends with the very weights it would have had."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from audiogen_core.training import metrics
from audiogen_minigpt import checkpoint
from audiogen_minigpt.settings import TrainConfig
from support.figures import tell
from support.tokens import write_tokens
from support.training import resume_in_process, tiny, weights_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

STEPS = 40


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens")


@pytest.fixture(scope="module")
def undisturbed(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The final weights of a run that nothing happens to."""
    config = _config(tokens, tmp_path_factory.mktemp("undisturbed") / "run")
    assert _finish(config) == 0
    return weights_of(Path(config.run))


def test_weights_after_kills_are_bit_identical(tokens: Path, undisturbed: bytes, tmp_path: Path) -> None:
    _check_kills(tokens, undisturbed, tmp_path, kills=3)


@pytest.mark.slow
def test_weights_after_twenty_kills(tokens: Path, undisturbed: bytes, tmp_path: Path) -> None:
    _check_kills(tokens, undisturbed, tmp_path, kills=20)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_weights_after_a_hundred_kills(tokens: Path, undisturbed: bytes, tmp_path: Path) -> None:
    _check_kills(tokens, undisturbed, tmp_path, kills=100)


def test_damaged_newest_checkpoint_is_passed_over(tokens: Path, undisturbed: bytes, tmp_path: Path) -> None:
    config = _config(tokens, tmp_path / "run")
    process = resume_in_process(config)
    _wait_for_checkpoint(tmp_path / "run", step=12)
    process.kill()
    process.join()
    newest = checkpoint.listed(config.run)[0]
    damaged = bytearray((newest / "model.safetensors").read_bytes())
    damaged[-100] ^= 1
    (newest / "model.safetensors").write_bytes(damaged)
    assert _finish(config) == 0
    assert weights_of(tmp_path / "run") == undisturbed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_with_a_checkpoint(
    number: signal.Signals, code: int, tokens: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    config = _config(tokens, tmp_path / "run", save_every=STEPS)
    process = resume_in_process(config)
    _wait_for_step(tmp_path / "run", 5)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == code
    stopped = checkpoint.newest(config.run)
    assert stopped is not None and 5 <= stopped.step < STEPS
    assert _finish(config) == 0
    assert weights_of(tmp_path / "run") == undisturbed


def test_file_size_limit_stands_for_a_full_disk(tokens: Path, undisturbed: bytes, tmp_path: Path) -> None:
    """With no room for checkpoints the run goes on, fails at its end with what it has, and can resume."""
    import resource

    config = _config(tokens, tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    process = resume_in_process(config)
    _wait_for_checkpoint(tmp_path / "run", step=6)
    resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (20_000, before[1]))
    process.join(60)
    assert process.exitcode == 1
    kept = checkpoint.newest(config.run)
    assert kept is not None and 6 <= kept.step < STEPS
    assert not list((tmp_path / "run" / "ckpt").glob(".tmp-*"))
    assert _finish(config) == 0
    assert weights_of(tmp_path / "run") == undisturbed


def _config(tokens: Path, run: Path, **changes: int) -> TrainConfig:
    return tiny(tokens, run, **{"steps": STEPS, "save_every": 2, "eval_every": 10, **changes})


def _check_kills(tokens: Path, undisturbed: bytes, folder: Path, kills: int) -> None:
    """Kill at random moments, every other time as soon as a checkpoint is being written."""
    rng, config = random.Random(kills), _config(tokens, folder / "run")
    inside = 0
    for number in range(kills):
        if weights_of(folder / "run") == undisturbed:  # it got through: begin anew
            config = _config(tokens, folder / f"run{number}")
        root, process = Path(config.run) / "ckpt", resume_in_process(config)
        moment = time.monotonic() + (30 if number % 2 else rng.uniform(0.25, 1.6))
        while process.is_alive() and time.monotonic() < moment:
            if number % 2 and list(root.glob(".tmp-step*")):
                time.sleep(rng.uniform(0, 0.004))
                inside += 1
                break
            time.sleep(0.0005)
        process.kill()
        process.join()
    assert _finish(config) == 0
    assert weights_of(Path(config.run)) == undisturbed
    assert inside or kills < 2
    assert not list((Path(config.run) / "ckpt").glob(".tmp-*"))
    steps = [record["step"] for record in metrics.read(config.run) if record["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    tell(
        "training",
        "kill -9 at random moments, half of them while a checkpoint is written",
        kills,
        f"final weights bit-identical to those of an undisturbed run; {inside} kills inside a checkpoint",
        promised="bit-identical (CPU)",
    )


def _finish(config: TrainConfig) -> int | None:
    process = resume_in_process(config)
    process.join(120)
    return process.exitcode


def _wait_for_checkpoint(run: Path, step: int) -> None:
    _wait(lambda: any(int(folder.name[5:]) >= step for folder in checkpoint.listed(run)))


def _wait_for_step(run: Path, step: int) -> None:
    _wait(lambda: any(record["step"] >= step for record in metrics.read(run)))


def _wait(reached) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end, "the run never got there"
        time.sleep(0.001)
