"""The commands: what is told reaches training; a run of 0.1.0 is gone on with; files are made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiogen_core import hub, jobs
from audiogen_core.compose import write_folder
from audiogen_core.errors import DownloadError
from audiogen_core.models import ModelSpec
from audiogen_core.options import described
from audiogen_core.recipe import Recipe
from audiogen_minigpt.cli import commands
from audiogen_minigpt.options import Options
from audiogen_minigpt.settings import TrainConfig, load_config
from audiogen_minigpt.train import train
from support.commands import call
from support.programs import program
from support.tokens import write_tokens
from support.training import tiny


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens")


def dry_run(*arguments: object) -> dict[str, Any]:
    """The settings that `train` would train with."""
    done = call(commands, "train", *arguments, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_every_setting_of_training_is_an_option(tokens: Path) -> None:
    parameters = {each.name: each for each in program("audiogen-minigpt").commands["train"].params}
    shown = [field for field in described(TrainConfig) if field.option.role != "hidden"]
    assert {field.name for field in shown} <= set(parameters)
    assert all(
        parameters[field.name].default is None for field in shown if not field.required
    )  # or a TOML file could say nothing
    assert "8 when absent" in parameters["batch"].help


def test_without_a_model_a_sentence_says_what_there_is() -> None:
    result = call(commands, "generate", "-o", "a.wav")
    assert result.exit_code == 2
    said = "error: missing option '--model' / '-m': Folder of a run or of a checkpoint, or: demo; see "
    assert result.stderr.startswith(said)


def test_options_win_over_toml_and_toml_over_defaults(tokens: Path, tmp_path: Path) -> None:
    toml = tmp_path / "train.toml"
    toml.write_text("batch = 2\nsteps = 50\nnoise = 0.1\n[model]\nlayers = 2\n", encoding="utf-8")
    settings = dry_run(tokens, "-o", tmp_path / "run", "--config", toml, "--time", "1m30s", "--noise", "0.2")
    assert (settings["batch"], settings["noise"], settings["seconds"], settings["steps"]) == (
        2,
        0.2,
        90,
        None,
    )
    assert (settings["model"]["layers"], settings["model"]["width"], settings["keep"]) == (2, 256, 3)
    assert not (tmp_path / "run").exists()


def test_the_shape_of_the_model(tokens: Path, tmp_path: Path) -> None:
    there = (tokens, "-o", tmp_path / "run")
    assert dry_run(*there, "--preset", "seed")["model"]["preset"] == "gpt2"
    model = dry_run(*there, "--size", "small", "--layout", "flatten", "--codebooks", 2)["model"]
    assert (model["width"], model["layout"], model["codebooks"]) == (512, "flatten", 2)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch", "0", "batch must be a whole number of 1 or more, got 0"),
        ("--optimizer", "sgd", "optimizer must be one of adamw, muon, got 'sgd'"),
        ("--time", "soon", "'soon' is no duration"),
        ("--size", "huge", "unknown size 'huge'"),
        ("--layout", "delayed", "did you mean delay"),
    ],
)
def test_what_cannot_be_is_one_line(
    option: str, value: str, message: str, tokens: Path, tmp_path: Path
) -> None:
    done = call(commands, "train", tokens, "-o", tmp_path / "run", option, value)
    assert done.exit_code == 1 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_run_of_the_first_release_is_gone_on_with(tokens: Path, tmp_path: Path) -> None:
    """Its plan was stored under another name."""
    config = tiny(tokens, tmp_path / "run", steps=None, seconds=1.0)
    first = train(config)
    (tmp_path / "run" / "schedule.json").rename(tmp_path / "run" / "plan.json")
    done = call(commands, "train", tokens, "-o", tmp_path / "run", "--resume", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == first.steps  # nothing was timed anew
    assert load_config(tmp_path / "run") == config


def test_a_recipe_holds_all_that_a_clip_follows_from(tmp_path: Path) -> None:
    output = tmp_path / "a.wav"
    done = call(commands, "generate", "demo", "-o", output, "--seconds", "0.2", "--top-k", 5, "-n", 2, "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "a-1.wav"), str(tmp_path / "a-2.wav")]
    job, recipe = jobs.find("generate"), Recipe.read(tmp_path / "a-2.wav")
    assert {field.name for field in described(Options)} & set(recipe.settings) == {
        "seconds", "only_new", "temperature", "top_k", "top_p", "min_p", "normalize", "fade"
    }  # fmt: skip
    load, options = jobs.again(job, recipe)
    assert (load.revision, options.seed, options.seconds, options.top_k) == (
        recipe.revision,
        recipe.seed,
        0.2,
        5,
    )
    again = call(commands, "replay", tmp_path / "a-2.wav", "-o", tmp_path / "again.wav", "-q")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "a-2.wav").read_bytes()
    gone = call(
        commands, "replay", tmp_path / "a-2.wav", "-o", tmp_path / "b.wav", "--use", f"model={tmp_path}"
    )
    assert gone.exit_code == 1 and "is not there any more" in gone.stderr


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    done = call(
        commands, "generate", "demo", "-o", tmp_path / "a.wav", "--seconds", "2", "--dry-run", "--json"
    )
    told = json.loads(done.stdout)
    assert (told["model"], told["frames"], told["download_bytes"], told["top_k"]) == ("demo", 150, 0, 32)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_codes_is_named_after_its_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found again by that name, so that the work goes on."""
    monkeypatch.chdir(tmp_path)
    write_folder("songs", minutes=0.1, seed=3, piece_seconds=6)
    for _ in range(2):
        done = call(commands, "encode", "songs", "-q")
        assert (done.exit_code, done.stdout) == (0, "songs-codes\n"), done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["songs", "songs-codes"]


def test_a_dry_run_of_all_stages_tells_what_the_run_then_does(tmp_path: Path) -> None:
    music, out = tmp_path / "music", tmp_path / "made"
    write_folder(music, minutes=0.4, seed=1, piece_seconds=6.0)
    (music / "notes.mp3").write_text("these are notes, no sound")
    toml = tmp_path / "small.toml"
    toml.write_text(
        "sample_seconds = 0.0\nbatch = 2\n"
        "[model]\nlayers = 1\nheads = 2\nwidth = 16\ncontext = 48\ncodebooks = 2\n"
    )
    asked = ("run", music, "-o", out, "--codec", "demo", "--config", toml, "--workers", 1)

    def told(*more: object) -> dict[str, Any]:
        done = call(commands, *asked, *more, "--dry-run", "--json")
        assert done.exit_code == 0, done.output
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    for limit in (("--time", "2m"), ("--steps", 3)):
        plan = told(*limit)
        assert not out.exists()
    assert (plan["files"], plan["updates"], plan["training_seconds"], plan["run"]) == (4, 3, None, str(out))
    assert plan["left_out"] == [{"file": "notes.mp3", "why": "no audio"}]
    assert plan["to_encode_seconds"] == plan["seconds"] == pytest.approx(24, abs=0.5)
    timed = told("--time", "2m")
    assert timed["updates"] is None and 60 < timed["training_seconds"] < 110
    shown = call(commands, *asked, "--steps", 3, "--dry-run")
    assert "notes.mp3  no audio" in shown.stdout and "to do: encode 24 s" in shown.stderr
    assert not out.exists()

    assert call(commands, *asked, "--steps", 3).exit_code == 0
    config, kept = load_config(out), sorted(out.rglob("*"))
    assert config is not None and config.model is not None
    assert plan["model"] == config.model.to_dict() and plan["batch"] == config.batch
    assert plan["codec"] == config.codec
    again = told("--steps", 5)
    assert (again["updates"], again["to_encode_seconds"]) == (2, 0)
    (music / "notes.mp3").unlink()
    (music / "piece-00000.wav").unlink()
    assert told("--steps", 5, "--new-data")["files"] == 3
    assert sorted(out.rglob("*")) == kept  # not even the plan of the folder
    assert told("--time", "4m")["updates"] > 0  # by the pace it had


def test_a_dry_run_names_a_codec_that_would_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(spec: ModelSpec, policy: hub.Policy) -> hub.Plan:
        if policy.offline:
            raise DownloadError(f"{spec.name} is not here")
        return hub.Plan(spec, (hub.Wanted("model.safetensors", 93_000_000, None),), tmp_path)

    monkeypatch.setattr(hub, "plan", plan)
    music = tmp_path / "music"
    write_folder(music, minutes=0.1, seed=1, piece_seconds=6.0)
    asked = ("run", music, "-o", tmp_path / "made", "--codec", "encodec-24khz", "--dry-run", "--json")
    done = call(commands, *asked)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["codec"], told["start"]) == ("encodec-24khz", None)
    assert told["download_bytes"] == 93_000_000
    offline = call(commands, *asked, "--offline")
    assert offline.exit_code == 1 and "encodec-24khz" in json.loads(offline.stdout)["error"]
    assert not (tmp_path / "made").exists()
