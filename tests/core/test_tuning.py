"""What a tuning run keeps: what had the least loss of held-out clips, wherever it was stopped or killed."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.cli import state
from audiogen_core.errors import ModelError
from audiogen_core.training import checkpoints, metrics
from audiogen_core.training.clips import Clip, Data
from audiogen_core.training.options import Tuning
from audiogen_core.training.status import Status
from audiogen_core.training.tuning import Learner, Tuned, tune, verdict

STEPS = 32
TURN = 10
"""The update after which what is learned holds less and less for other clips."""


class Scripted(Learner):
    """It counts its updates; held-out clips cost least after `TURN` of them."""

    base, licence = "scripted", "none"

    def __init__(self) -> None:
        clip = Clip("a.wav", np.zeros((1, 8), np.int32), "")
        self.data = Data([clip], [clip], clip, [], "", 1.0, "the same")
        self.updates = np.zeros(1, np.int64)

    def update(self, step: int, share: float) -> dict[str, float]:
        assert self.updates[0] == step
        self.updates += 1
        return {"loss": 1 / (1 + step), "norm": 1.0, "learning_rate": share}

    def rehearse(self, step: int) -> None:
        raise AssertionError("a number of steps needs no time taken")

    def judge(self, clips: Sequence[Clip]) -> float:
        return 2.0 + 0.01 * abs(int(self.updates[0]) - TURN)

    def tables(self) -> dict[str, checkpoints.Table]:
        return {"updates": {"updates": self.updates}}

    def restore(self, last: checkpoints.Checkpoint) -> None:
        self.updates = last.table("updates")["updates"]

    def write(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "adapter.json").write_text(json.dumps({"updates": int(self.updates[0]), **facts}))
        return folder

    def sample(self, adapter: Path | None) -> Audio:
        return Audio(np.full((1, 800), 0.001 * (1 + int(self.updates[0])), np.float32), 8000)

    def facts(self) -> dict[str, Any]:
        return {}


class Killed(BaseException):
    pass


def tuned(run: Path, kill: int = 0, stop: int = 0) -> Tuned:
    def on_record(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == kill:
            raise Killed
        if record["kind"] == "train" and record["step"] == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    asked = Tuning(folder=run.parent, steps=STEPS, samples=1)
    return tune(asked, run, lambda on_step: Scripted(), program="test", on_record=on_record)


def kept(made: Tuned) -> dict[str, Any]:
    assert made.adapter is not None
    told: dict[str, Any] = json.loads((made.adapter / "adapter.json").read_text())
    return told


def test_the_best_update_is_what_is_kept(tmp_path: Path):
    made = tuned(tmp_path / "run")
    assert kept(made)["updates"] == TURN and made.step == STEPS
    assert made.losses == (2.1, 2.0)
    assert kept(made)["held-out loss"] == f"2.100 before; least 2.000, after {TURN} updates"
    assert f"after {TURN} of {STEPS} updates" in made.verdict
    assert "by heart (2.220 in the end)" in made.verdict
    assert made.page is not None and made.verdict.split(" (")[0] in made.page.read_text()
    clips = {path.stem: Audio.load(path).samples.max() for path in (made.run / "samples").iterdir()}
    assert clips["before"] < clips["after"] < clips["step-000016"]  # which was of its own update
    names = [path.name for path in checkpoints.listed(made.run)]
    assert names == ["step-00000032", "step-00000030", "step-00000010"]


@pytest.mark.parametrize("at", [1, 9, 10, 11, 25, 31])
def test_a_kill_changes_nothing_of_it(at: int, tmp_path: Path):
    with pytest.raises(Killed):
        tuned(tmp_path / "run", kill=at)
    made = tuned(tmp_path / "run")
    assert kept(made)["updates"] == TURN and made.losses == (2.1, 2.0)
    again = tuned(tmp_path / "run")  # all is done
    assert kept(again)["updates"] == TURN and again.verdict == made.verdict


@pytest.mark.parametrize(("at", "best"), [(1, 1), (7, 6), (10, 10), (27, 10)])
def test_a_signal_leaves_the_best_so_far(at: int, best: int, tmp_path: Path):
    made = tuned(tmp_path / "run", stop=at)
    assert made.signal == signal.SIGTERM and made.step == at and kept(made)["updates"] == best
    assert kept(tuned(tmp_path / "run"))["updates"] == TURN


def test_what_is_wrong_with_a_clip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    times = np.arange(16_000) / 8000
    notes = 0.3 * np.sin(2 * np.pi * 220 * 2 ** (times * 4 // 1 / 4) * times) * np.exp(-4 * (times * 4 % 1))
    half = np.float32([np.r_[notes, np.zeros(24_000)]])

    def sample(self: Scripted, adapter: Path | None) -> Audio:
        return Audio(half if adapter else half[:, :16_000], 8000)

    monkeypatch.setattr(Scripted, "sample", sample)
    made = tuned(tmp_path / "run")
    assert made.faults == ("silent from 2.0 to 5.0 s",)
    records = [each for each in metrics.read(made.run) if each["kind"] == "sample"]
    assert [each["faults"] for each in records] == [[], [*made.faults], [*made.faults]]
    state.clear()  # what a command that ran here before left
    for each in records:
        Status().on_record(each)
    lines = capsys.readouterr().err.splitlines()
    assert [line.endswith("; CHECK: silent from 2.0 to 5.0 s") for line in lines] == [False, True, True]
    assert (
        made.page is not None and made.page.read_text().count("<p>CHECK: silent from 2.0 to 5.0 s</p>") == 2
    )
    assert tuned(tmp_path / "run").faults == made.faults  # all is done
    assert ">When it was done: 5.00 s, 1 ch, 8 kHz, peak " in made.page.read_text()


def test_a_best_update_that_is_damaged_is_told(tmp_path: Path):
    tuned(tmp_path / "run", stop=20)
    (checkpoints.folder(tmp_path / "run", TURN) / "updates.safetensors").write_bytes(b"no more")
    with pytest.raises(ModelError, match=r"step-00000010.*damaged"):
        tuned(tmp_path / "run")


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([], "Nothing was held out"),
        ([(0, 3.0)], "It has not learned yet."),
        ([(0, 3.0), (4, 2.5), (8, 2.0)], r"It learned: held-out clips cost 2\.000 .* 3\.000 before\.$"),
        ([(0, 3.0), (4, 3.1), (8, 3.2)], "It learned little"),
        ([(0, 3.0), (4, 2.0), (8, 2.6)], "after 4 of 8 updates.* by heart"),
    ],
)
def test_verdicts(losses: list[tuple[int, float]], said: str):
    assert re.search(said, verdict(losses))
