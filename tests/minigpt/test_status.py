"""What is shown while a model trains: lines on a pipe, one changing line on a terminal."""

from __future__ import annotations

import pytest

from audiogen_core.cli import state
from audiogen_core.training.status import Status

TRAIN = {
    "kind": "train",
    "codebook_losses": [2.0, 3.0],
    "bits_per_second": 541.2,
    "frames_per_second": 300.0,
    "share_of_peak": 0.25,
}


def _shown(status: Status, steps: int) -> None:
    state.clear()  # what a command that ran here before left
    status.on_record({"kind": "event", "step": 0, "message": "about 40 updates fit into 2m"})
    for step in range(1, steps + 1):
        left = 3.0 * (steps - step)
        status.on_record({**TRAIN, "step": step, "loss": 3.0 - step / steps, "seconds_left": left})
        status.on_step(step, steps)
        if step == steps // 2:
            status.on_record({"kind": "eval", "step": step, "loss": 2.5, "bits_per_second": 500.0})
            status.on_record({"kind": "sample", "step": step, "path": "run/samples/a.wav"})
    status.clear()


def test_on_a_pipe_there_are_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    _shown(Status(), 40)
    lines = capsys.readouterr().err.splitlines()
    assert not any(mark < " " for line in lines for mark in line)
    assert lines[0] == "step 0: about 40 updates fit into 2m"
    assert "step 20: loss 2.500 on held-out data, 500 bits for a second of audio" in lines
    assert "  hear it: run/samples/a.wav" in lines
    trained = [line for line in lines if " left, loss " in line]
    assert len(trained) == 10  # one for each tenth
    assert trained[-1].startswith("step 40/40, 0:00 left, loss 2.000 (began at 2.975), 541 bits/s")


def test_on_a_terminal_one_line_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    _shown(Status(), 4)
    parts = capsys.readouterr().err.split("\r\x1b[2K")
    live = [part for part in parts if " left, loss " in part]
    assert len(live) == 4 and live[1].startswith("step 2/4, 0:06 left, loss 2.500")
    assert all(len(part) < 60 and "\n" not in part for part in live)


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _shown(Status(quiet=True), 4)
    assert capsys.readouterr().err == ""
