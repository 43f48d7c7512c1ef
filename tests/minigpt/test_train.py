"""Training learns, resumes exactly, does not depend on the number of processes, and survives accidents."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audiogen_core.errors import CodesError, OptionError
from audiogen_core.training import metrics
from audiogen_core.training.errors import DiskFull, Diverged
from audiogen_core.training.lock import lock
from audiogen_core.training.schedule import read_plan
from audiogen_minigpt import checkpoint
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.measures import baselines
from audiogen_minigpt.model import GPT
from audiogen_minigpt.settings import Settings, TrainConfig
from audiogen_minigpt.train import TrainResult, train
from audiogen_minigpt.trainer import Trainer, noisy
from support.tokens import write_tokens
from support.training import FACTS, MODEL, tiny, train_on_two_ranks, weights_of


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens")


def _interrupted(config: TrainConfig, step: int, number: int = signal.SIGTERM) -> TrainResult:
    """A run that gets a signal after an update."""

    def on_step(done: int, total: int) -> None:
        if done == step:
            signal.raise_signal(number)

    return train(config, resume=True, on_step=on_step)


def test_it_learns_more_than_pairs_tell(tokens: Path, tmp_path: Path) -> None:
    result = train(tiny(tokens, tmp_path / "run", steps=150, eval_every=50, log_every=25))
    assert result.finished and result.ran == 150 and result.best_step == 150
    known = baselines(tokens)
    assert result.loss is not None
    assert result.loss < 0.75 * sum(known.bigram) / 4 < sum(known.unigram) / 4


def test_diary(tokens: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    config = tiny(tokens, tmp_path / "run", steps=9, log_every=2, eval_every=4)
    train(config, on_record=seen.append)
    records = metrics.read(tmp_path / "run")
    assert records == seen
    assert [record["step"] for record in records if record["kind"] == "train"] == [2, 4, 6, 8, 9]
    assert [record["step"] for record in records if record["kind"] == "eval"] == [4, 8, 9]
    one = records[0]
    assert one["loss"] == pytest.approx(sum(one["codebook_losses"]) / 4)
    assert one["bits_per_second"] == pytest.approx(50 * sum(one["codebook_losses"]) / math.log(2))
    assert one["frames_per_second"] > 0 and one["gradient_norm"] > 0 and one["share_of_peak"] > 0
    assert one["audio_seconds_per_second"] == pytest.approx(one["frames_per_second"] / 50)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "muon"},
        {"model": ModelConfig(**{**MODEL.to_dict(), "dropout": 0.2})},
        {"model": ModelConfig(**{**MODEL.to_dict(), "preset": "gpt2", "layout": "flatten"})},
        {"dtype": "bfloat16"},
        {"micro_batch": 3},
        {"noise": 0.3},
    ],
    ids=["adamw", "muon", "dropout", "flatten", "bfloat16", "passes", "noise"],
)
def test_resumed_run_is_bit_identical(changes: dict[str, Any], tokens: Path, tmp_path: Path) -> None:
    whole = tiny(tokens, tmp_path / "whole", eval_every=3, **changes)
    train(whole)
    parts = tiny(tokens, tmp_path / "parts", **changes)
    first = _interrupted(parts, 5)
    assert first.signal == signal.SIGTERM and first.step == 5 and not first.finished
    second = train(parts, resume=True)
    assert second.finished and second.ran == 3
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    steps = [record["step"] for record in metrics.read(parts.run) if record["kind"] == "train"]
    assert steps == list(range(1, 9))


def test_noise_takes_codes_of_other_frames() -> None:
    codes = torch.arange(2 * 200 * 4).view(2, 200, 4)
    codes[:, 0] = 5000  # BOS
    torch.manual_seed(0)
    shown = noisy(codes, 0.5, 5000)
    changed = shown != codes
    shares = changed.float().mean(dim=(1, 2))
    assert (shares > 0.0).all() and (shares < 0.5).all() and shares[0] != shares[1]
    assert not changed[:, 0].any() and (shown == 5000).sum() == 8
    for row in range(2):
        for book in range(4):
            assert set(shown[row, 1:, book].tolist()) <= set(codes[row, 1:, book].tolist())
    assert noisy(codes, 0.0, 5000) is codes


def test_noise_changes_what_is_learned(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "clean", steps=2))
    train(tiny(tokens, tmp_path / "noisy", steps=2, noise=0.5))
    assert weights_of(tmp_path / "clean") != weights_of(tmp_path / "noisy")


def test_finished_run_is_left_alone(tokens: Path, tmp_path: Path) -> None:
    config = tiny(tokens, tmp_path / "run", steps=3)
    train(config)
    before = weights_of(tmp_path / "run")
    again = train(config, resume=True)
    assert again.finished and again.ran == 0
    assert weights_of(tmp_path / "run") == before


def test_extended_run_goes_on(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "run", steps=3))
    longer = train(tiny(tokens, tmp_path / "run", steps=5), resume=True)
    assert longer.ran == 2 and longer.step == 5


@pytest.mark.parametrize("shard", [False, True], ids=["replicated", "sharded"])
def test_two_processes_give_the_weights_of_one(shard: bool, tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "one", steps=4, lr=1e-3))
    assert train_on_two_ranks(tiny(tokens, tmp_path / "two", steps=4, lr=1e-3, shard=shard)) == [0, 0]
    one, two = checkpoint.newest(tmp_path / "one"), checkpoint.newest(tmp_path / "two")
    assert one is not None and two is not None and one.step == two.step == 4
    for mine, theirs in (
        (one.model_tensors(), two.model_tensors()),
        (one.training_tensors(), two.training_tensors()),
    ):
        assert set(mine) == set(theirs)
        for name, tensor in mine.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-6)
    assert two.state["val_loss"] == pytest.approx(one.state["val_loss"], abs=1e-6)
    resumed = train(tiny(tokens, tmp_path / "two", steps=5, lr=1e-3), resume=True)  # by one process alone
    assert resumed.ran == 1


def test_a_run_that_starts_from_a_model(tokens: Path, tmp_path: Path) -> None:
    """It begins with those weights, and is bit for bit the same when it is stopped and gone on with."""
    first = train(tiny(tokens, tmp_path / "first"))
    config = tiny(tokens, tmp_path / "second", start=str(tmp_path / "first"))
    _interrupted(config, 3)
    assert train(config, resume=True).step == 8
    train(tiny(tokens, tmp_path / "whole", start=str(tmp_path / "first")))
    assert weights_of(tmp_path / "second") == weights_of(tmp_path / "whole")
    assert weights_of(tmp_path / "whole") != weights_of(tmp_path / "first")
    begun = metrics.read(tmp_path / "whole")[0]
    assert (begun["kind"], begun["step"]) == ("eval", 0)
    assert begun["loss"] == pytest.approx(first.loss)


def test_a_model_to_start_from_must_fit_the_data(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "first", steps=1))
    other = write_tokens(tmp_path / "other", codec="another")
    with pytest.raises(OptionError, match=r"codec: nothing in .*first, another in .*other"):
        train(tiny(other, tmp_path / "second", start=str(tmp_path / "first")))
    with pytest.raises(OptionError, match="has its shape"):
        Settings({"start": "demo"}, {"layers": 1}).config(FACTS)


def test_validation_does_not_disturb_training(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "often", eval_every=1, save_every=8))
    train(tiny(tokens, tmp_path / "never", eval_every=8, save_every=1))
    assert weights_of(tmp_path / "often") == weights_of(tmp_path / "never")


def test_the_callers_random_numbers_are_untouched(tokens: Path, tmp_path: Path) -> None:
    before, handler = torch.random.get_rng_state(), signal.getsignal(signal.SIGTERM)
    train(tiny(tokens, tmp_path / "run", steps=2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_time_budget_becomes_a_plan_that_stays(tokens: Path, tmp_path: Path) -> None:
    config = tiny(tokens, tmp_path / "run", steps=None, seconds=1.5)
    first = _interrupted(config, 3)
    plan = json.loads((tmp_path / "run" / "schedule.json").read_text())["plan"]
    assert first.steps == plan["steps"] > 3
    second = train(config, resume=True)
    assert second.finished and second.steps <= plan["steps"]
    if second.steps == plan["steps"]:  # else the machine became slower and the cool-down began early
        train(tiny(tokens, tmp_path / "same", steps=plan["steps"]))
        assert weights_of(tmp_path / "same") == weights_of(tmp_path / "run")


def test_slow_machine_cools_down_early(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Trainer.tick

    def slow(self: Trainer) -> None:
        ticks(self)
        self.progress.elapsed += 100.0

    config = tiny(tokens, tmp_path / "run", steps=None, seconds=1000.0)
    monkeypatch.setattr(
        "audiogen_minigpt.trainer.Trainer.time_steps", lambda self, seconds: [1000 * 0.92 / 100]
    )
    monkeypatch.setattr(Trainer, "tick", slow)
    result = train(config)
    assert 8 < result.steps < 20 and result.finished
    assert any("cool-down begins early" in r.get("message", "") for r in metrics.read(tmp_path / "run"))


class _Clock:
    """A clock that only work moves on: so many seconds for each piece of it, as it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.time, self.seconds = 100.0, seconds
        for name in seconds:
            monkeypatch.setattr(Trainer, name, self._taking(name, getattr(Trainer, name)))

    def __call__(self) -> float:
        return self.time

    def _taking(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(trainer: Trainer, *given: Any) -> Any:
            self.time += self.seconds[name]
            return work(trainer, *given)

        return done


@pytest.mark.parametrize("slower", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("outer", [False, True])
def test_no_update_is_begun_that_does_not_fit_with_all_the_end_needs(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower: float, outer: bool
) -> None:
    """Updates become slower on the way, as on a machine that gets other work to do."""
    clock = _Clock(monkeypatch, update=4.0, evaluate=7.0, _write_checkpoint=2.0)
    end = clock.time + 400.0
    budget = 10_000.0 if outer else 400.0 - 7 * 4.0  # what is timed for the plan is no part of the run

    def on_step(done: int, total: int) -> None:
        if done == 20:
            clock.seconds["update"] *= slower

    config = tiny(tokens, tmp_path / "run", steps=None, seconds=budget, eval_every=15)
    result = train(config, on_step=on_step, until=(lambda: end) if outer else None, now=clock)
    assert result.finished and result.step > 20
    assert clock.time <= end
    assert clock.time >= end - 80 - clock.seconds["update"]  # nor is much left over
    records = metrics.read(tmp_path / "run")
    assert [each["step"] for each in records if each["kind"] == "eval"][-1] == result.step
    plan = read_plan(tmp_path / "run", config.goal)
    assert plan is not None and plan.steps == result.step


def test_the_end_of_a_budget_may_move(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch, update=4.0)
    config = tiny(tokens, tmp_path / "run", steps=None, seconds=1000.0)
    result = train(config, until=lambda: 1100.0 if clock.time < 300 else 400.0, now=clock)
    assert result.finished and 392 < clock.time <= 400
    told = [each.get("message", "") for each in metrics.read(tmp_path / "run")]
    assert any("there is no time for another update" in each or "slower than" in each for each in told)


@pytest.mark.parametrize("left", [1000.0, 0.0])
def test_when_time_is_over_no_sample_is_made(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    made: list[int] = []
    monkeypatch.setattr("audiogen_minigpt.clips.Samples.make", lambda _, model, step: made.append(step))
    clock = _Clock(monkeypatch, update=4.0)
    config = tiny(tokens, tmp_path / "run", steps=None, seconds=20.0)
    result = train(config, until=lambda: 100.0 + left, now=clock)
    assert result.finished and result.loss is not None
    assert (made[-1:] == [result.step]) == (left > 0)
    assert left > 0 or result.step == 1


class _Poison:
    """Makes the loss infinite in some of the training passes, counted from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
        self.calls, original = 0, GPT.loss_sums

        def loss_sums(model: GPT, *args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sums, counts = original(model, *args)
            if model.training:
                self.calls += 1
                if self.calls in bad:
                    return sums * math.inf, counts
            return sums, counts

        monkeypatch.setattr(GPT, "loss_sums", loss_sums)


def test_single_bad_update_is_skipped(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Poison(monkeypatch, {3, 4, 6})
    result = train(tiny(tokens, tmp_path / "run"))
    assert result.finished and result.loss is not None and math.isfinite(result.loss)
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert found.state["progress"]["skipped"] == 3 and found.state["progress"]["restarts"] == 0
    assert all(tensor.isfinite().all() for tensor in found.model_tensors().values())
    messages = [record["message"] for record in metrics.read(result.run) if record["kind"] == "event"]
    assert len(messages) == 3 and "update 3 was skipped" in messages[0]


def test_three_bad_updates_go_back_with_half_the_rate(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Poison(monkeypatch, {5, 6, 7})
    result = train(tiny(tokens, tmp_path / "run", save_every=2, eval_every=8))
    assert result.finished
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert found.state["progress"]["restarts"] == 1 and found.state["progress"]["lr_scale"] == 0.5
    records = metrics.read(result.run)
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, 9))
    assert any("back to step 4" in record.get("message", "") for record in records)


def test_divergence_ends_the_run(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Poison(monkeypatch, set(range(4, 50)))
    with pytest.raises(Diverged, match="again after a restart") as caught:
        train(tiny(tokens, tmp_path / "run", save_every=2))
    assert caught.value.exit_code == 5
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None and found.step <= 3


def _no_room(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    save = checkpoint.save

    def full(run: Any, step: int, *rest: Any) -> Path:
        if step in steps:
            raise DiskFull("no room")
        return save(run, step, *rest)

    monkeypatch.setattr(checkpoint, "save", full)


def test_full_disk_is_survived(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _no_room(monkeypatch, {4, 6})
    result = train(tiny(tokens, tmp_path / "run", save_every=2, eval_every=8))
    assert result.finished and result.checkpoint is not None
    assert [folder.name[-1] for folder in checkpoint.listed(result.run)] == ["8", "2"]
    assert "no room; training goes on" in caplog.text


def test_full_disk_at_the_end_is_an_error(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_room(monkeypatch, {8})
    with pytest.raises(DiskFull) as caught:
        train(tiny(tokens, tmp_path / "run", save_every=4, eval_every=8))
    assert caught.value.exit_code == 4
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None and found.step == 4


def test_without_validation_tracks(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens", train=2, val=0)
    result = train(tiny(data, tmp_path / "run", steps=3))
    assert result.finished and result.loss is None and result.best_step is None


def test_folder_that_holds_a_run(tokens: Path, tmp_path: Path) -> None:
    config = tiny(tokens, tmp_path / "run", steps=2)
    train(config)
    with pytest.raises(OptionError, match="holds a run already"):
        train(config)
    with pytest.raises(OptionError, match=r"lr: 0.003 in the run, 0.1 in the new settings"):
        train(tiny(tokens, tmp_path / "run", steps=4, lr=0.1), resume=True)
    wider = ModelConfig(**{**MODEL.to_dict(), "width": 64})
    with pytest.raises(OptionError, match=r"model\.width: 32 in the run, 64 in the new"):
        train(tiny(tokens, tmp_path / "run", steps=4, model=wider), resume=True)


def test_other_data_is_refused_fact_by_fact(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "run", steps=2))
    other = write_tokens(tmp_path / "other", codec="somebody-else")
    with pytest.raises(OptionError, match=r"codec: nothing in .*run, somebody-else in .*other"):
        train(tiny(other, tmp_path / "run", steps=4), resume=True)


def test_other_codes_need_permission(tokens: Path, tmp_path: Path) -> None:
    train(tiny(tokens, tmp_path / "run", steps=2))
    moved = shutil.copytree(tokens, tmp_path / "moved")
    assert train(tiny(moved, tmp_path / "run", steps=3), resume=True).step == 3
    other = write_tokens(tmp_path / "other", frames=601)
    for steps in (3, 5):  # finished, and with more to do
        with pytest.raises(OptionError, match=r"other: other codes than .*run was trained on.*--new-data"):
            train(tiny(other, tmp_path / "run", steps=steps), resume=True)
    assert train(tiny(other, tmp_path / "run", steps=5), resume=True, new_data=True).step == 5
    (event,) = (record for record in metrics.read(tmp_path / "run") if record["kind"] == "event")
    assert event["step"] == 3 and f"goes on with other codes, those in {other}" in event["message"]
    assert train(tiny(other, tmp_path / "run", steps=6), resume=True).step == 6


def test_a_changed_byte_is_found_before_training(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens")
    content = bytearray((data / "shard-00001.u16").read_bytes())
    content[100] ^= 1
    (data / "shard-00001.u16").write_bytes(content)
    with pytest.raises(CodesError, match=r"shard-00001\.u16: the codes of .* have changed"):
        train(tiny(data, tmp_path / "run"))


@pytest.mark.parametrize("change", ["cut", "flipped"])
def test_a_shard_that_changes_while_training_reads_it_ends_the_run(change: str, tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens")

    def on_step(done: int, total: int) -> None:
        if done == 2:
            for path in data.glob("*.u16"):
                with path.open("r+b") as file:
                    file.truncate(100) if change == "cut" else file.write(b"\x05\x00")

    with pytest.raises(CodesError, match=r"shard-0000\d\.u16: has changed while it was in use"):
        train(tiny(data, tmp_path / "run", save_every=1), on_step=on_step)
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None and found.step == 2


def _events(run: Path) -> list[str]:
    return [record["message"] for record in metrics.read(run) if record["kind"] == "event"]


def test_a_loss_that_cannot_be_learning_is_told_once(tokens: Path, tmp_path: Path) -> None:
    model = ModelConfig(**{**MODEL.to_dict(), "preset": "gpt2"})
    train(tiny(tokens, tmp_path / "wild", lr=1.0, model=model, steps=6))
    (message,) = _events(tmp_path / "wild")
    assert "where guessing costs 2.8: this is not learning" in message and "--lr" in message
    train(tiny(tokens, tmp_path / "tame", steps=6))
    assert _events(tmp_path / "tame") == []


@pytest.mark.parametrize(
    ("frames", "amount"), [(20, "less than one window"), (200, r"3\.2 batches")], ids=["window", "batches"]
)
def test_hopelessly_little_data_is_told_once(frames: int, amount: str, tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens", frames=frames, train=1 if frames == 20 else 4)
    train(tiny(data, tmp_path / "run", steps=2))
    train(tiny(data, tmp_path / "run", steps=3), resume=True)
    (message,) = _events(tmp_path / "run")
    assert re.search(rf"s to train on, {amount}: the model will know them by heart", message)


def test_folder_in_use(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run"), pytest.raises(OptionError, match="in use by process"):
        train(tiny(tokens, tmp_path / "run"))


def test_impossible_wishes(tokens: Path, tmp_path: Path) -> None:
    more = ModelConfig(**{**MODEL.to_dict(), "codebooks": 8})
    with pytest.raises(OptionError, match="the model has 8 codebooks, the data 4"):
        train(tiny(tokens, tmp_path / "run", model=more))
    larger = ModelConfig(**{**MODEL.to_dict(), "codebook_size": 1024})
    with pytest.raises(OptionError, match="1024 entries, the data of 16"):
        train(tiny(tokens, tmp_path / "run", model=larger))
    with pytest.raises(CodesError, match="not a folder of codes"):
        train(tiny(tmp_path / "nowhere", tmp_path / "run"))
    empty = write_tokens(tmp_path / "empty", train=0, val=1)
    with pytest.raises(CodesError, match="nothing to train on"):
        train(tiny(empty, tmp_path / "run"))


def test_model_follows_the_data_when_none_is_given(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens", codebooks=2, frames=700)
    train(tiny(data, tmp_path / "run", model=None, steps=1, batch=1))
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None
    assert found.config == ModelConfig.size("tiny", codebooks=2, codebook_size=16)


def test_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"]
    dead = {"pid": 2**22 + 5, "host": socket.gethostname(), "started": 1}
    (tmp_path / ".lock").write_text(json.dumps(dead))
    with lock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()
    (tmp_path / ".lock").write_text(json.dumps({**dead, "host": "elsewhere"}))
    with pytest.raises(OptionError, match=r"in use by process .* on elsewhere"), lock(tmp_path):
        pass
