"""Settings from TOML and flags, the plan of a run, and durations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core.errors import OptionError
from audiogen_core.times import parse_time, shown_time
from audiogen_core.training.schedule import Plan, read_plan, write_plan
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.settings import Settings, TrainConfig, check_resumable, load_config, save_config

FACTS = {"codebooks": 8, "codebook_size": 1024}


@given(st.integers(1, 3000), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_rate_rises_stays_and_falls(steps: int, warmup: float, cooldown: float) -> None:
    plan = Plan.of(steps, warmup, cooldown)
    rates = [plan.rate(step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    middle = rates[plan.warmup : steps - plan.cooldown]
    assert middle == [1.0] * len(middle)
    assert rates[: plan.warmup] == sorted(rates[: plan.warmup])
    end = rates[steps - plan.cooldown :]
    assert end == sorted(end, reverse=True)
    if plan.cooldown and not plan.warmup:
        assert rates[-1] == pytest.approx(1 / plan.cooldown)
    assert plan.rate(steps) == 0 or plan.cooldown == 0


def test_a_plan_in_time() -> None:
    plan = Plan.in_time(600, [0.9, 1.0, 5.0], 0.03, 0.3)
    assert plan.steps == 552 and plan.cooldown == 166 and plan.warmup == 17
    assert Plan.in_time(0.1, [2.0], 0.03, 0.3).steps == 1
    early = plan.cool_from(100, 40)
    assert (early.steps, early.cooldown) == (140, 40) and early.rate(99) == 1.0 and early.rate(139) == 1 / 40


def test_a_plan_holds_for_what_was_asked(tmp_path: Path) -> None:
    assert read_plan(tmp_path, {"steps": 5}) is None
    write_plan(tmp_path, {"steps": 5}, Plan(5, 1, 2))
    assert read_plan(tmp_path, {"steps": 5}) == Plan(5, 1, 2)
    assert read_plan(tmp_path, {"steps": 6}) is None
    (tmp_path / "schedule.json").write_text("{")
    with pytest.raises(OptionError, match="delete it to plan anew"):
        read_plan(tmp_path, {"steps": 5})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2m5s", 125), (" 3M ", 180)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1s"), (45.4, "45s"), (60, "1m"), (119, "2m"), (5400, "1h30m"), (7200, "2h"), (40000, "11h")],
)
def test_durations_are_shown_as_they_are_typed(seconds: float, text: str) -> None:
    assert shown_time(seconds) == text
    assert parse_time(text) == pytest.approx(seconds, abs=max(1.0, 0.02 * seconds))


@pytest.mark.parametrize("text", ["90", "1.5", " 10 "])
def test_a_number_without_a_unit_is_no_duration(text: str) -> None:
    with pytest.raises(OptionError, match=rf"no duration without a unit; write {text.strip()}s, "):
        parse_time(text)


@pytest.mark.parametrize("text", ["", "ten", "5x", "-3m", "0", "1.2.3s", "10 m s", "s", "nan", "1h30"])
def test_no_durations(text: str) -> None:
    with pytest.raises(OptionError, match="no duration"):
        parse_time(text)


def _toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(text)
    return path


def test_toml_and_flags(tmp_path: Path) -> None:
    path = _toml(tmp_path, 'size = "tiny"\nsteps = 500\nlr = 1\n[model]\nlayers = 2\nlayout = "flatten"\n')
    flags = Settings({"data": "d", "run": "r", "seconds": 60.0}, {"layers": 3})
    config = flags.over(Settings.read(path)).config(FACTS)
    assert (config.steps, config.seconds, config.lr) == (None, 60.0, 1.0)
    assert config.model == ModelConfig.size("tiny", layers=3, layout="flatten", codebooks=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stpes = 5", "unknown setting 'stpes'; did you mean steps"),
        ('lr = "high"', "lr must be float, got 'high'"),
        ("model = 3", "model must be a table"),
        ("batch = 0", "batch must be a whole number of 1 or more"),
        ("steps = 5\nseconds = 3.0", "not both"),
        ("warmup = 0.9", "whose sum is at most 1"),
        ('optimizer = "sgd"', "optimizer must be one of adamw, muon, got 'sgd'"),
        ('shard = true\noptimizer = "muon"', "muon needs whole matrices"),
        ("seed = -1", "seed must be a whole number from 0 to"),
        ("noise = 1.5", "noise must be from 0 to 1"),
        ("lr = nan", "lr must be 0 or more"),
    ],
)
def test_bad_toml(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        Settings.read(_toml(tmp_path, text))


def test_bad_model_in_toml(tmp_path: Path) -> None:
    settings = Settings.read(_toml(tmp_path, "[model]\nlayerz = 2"))
    with pytest.raises(OptionError, match="layerz"):
        settings.over(Settings({"data": "d", "run": "r"})).config(FACTS)


def test_named_sizes_take_what_the_data_has() -> None:
    assert Settings(size="base").model(FACTS).codebooks == 8
    assert Settings(size="base").model({**FACTS, "codebooks": 2}).codebooks == 2
    assert Settings(shape={"layout": "first"}).model(FACTS).codebooks == 1
    assert Settings(size="seed").model(FACTS) == ModelConfig.seed_preset()


def test_resuming_keeps_what_is_not_said(tmp_path: Path) -> None:
    before = TrainConfig("data", str(tmp_path), ModelConfig(), steps=50, lr=0.01, seed=7)
    save_config(before)
    assert load_config(tmp_path) == before
    now = Settings({"seconds": 30.0}).resumed(before, FACTS)
    assert (now.seconds, now.steps, now.lr, now.seed, now.model) == (30.0, None, 0.01, 7, before.model)
    check_resumable(before, now)
    changed = Settings({"seed": 8}, {"width": 512}).resumed(before, FACTS)
    with pytest.raises(OptionError, match=r"seed: 7 in the run, 8 in the new settings;\n +model\.width"):
        check_resumable(before, changed)


def test_damaged_config(tmp_path: Path) -> None:
    assert load_config(tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OptionError, match=r"config\.json: not readable"):
        load_config(tmp_path)
