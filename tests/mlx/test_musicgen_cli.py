"""The command `musicgen`: files with recipes, made again byte for byte; mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core import cli as shared
from audiogen_core import commands
from audiogen_core.audio import Audio, probe
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.jobs import again
from audiogen_core.musicgen.options import Options
from audiogen_core.options import option
from audiogen_core.recipe import Recipe
from audiogen_mlx import blas
from audiogen_mlx.cli import cli
from audiogen_mlx.jobs import MUSICGEN
from support.commands import call

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"
MONO, STEREO, TUNE = (str(FIXTURES / f"musicgen-{name}") for name in ("mono", "stereo", "melody"))
STYLE = (
    *("-m", FIXTURES / "audiocraft-style", "--t5", FIXTURES / "t5"),
    *("--codec", FIXTURES.parent / "encodec" / "32k"),
)
QUICK = ("--seconds", "0.5", "--seed", "7", "-q", "--tokenizer", str(FIXTURES / "tokenizer"))


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 32000)).astype(np.float32)
    return Audio(noise, 32000).save(tmp_path / "clip.wav")


@pytest.mark.parametrize(
    ("model", "more"),
    [
        (MONO, []),
        (MONO, ["--guidance-scale", "1", "--temperature", "0"]),
        (MONO, ["--negative-prompt", "noise", "--top-k", "0", "--top-p", "0.9"]),
        (MONO, ["--continue", "CLIP", "--seconds", "1.5"]),
        (STEREO, []),
        (TUNE, ["--melody", "CLIP"]),
    ],
    ids=["plain", "greedy", "negative", "continued", "stereo", "melody"],
)
def test_a_file_is_made_again_byte_for_byte(model: str, more: list[str], clip: Path, tmp_path: Path) -> None:
    output, again = tmp_path / "a.wav", tmp_path / "again.wav"
    options = [str(clip) if option == "CLIP" else option for option in more]
    result = run("musicgen", "slow piano", "-m", model, "-o", output, *QUICK, *options)
    assert (result.exit_code, result.stdout.strip()) == (0, str(output)), result.output
    recipe = Recipe.read(output)
    assert (recipe.package, recipe.model, recipe.seed) == ("audiogen-mlx", model, 7)
    assert recipe.settings["prompt"] == "slow piano"
    assert run("replay", output, "-o", again, "-q").exit_code == 0
    assert again.read_bytes() == output.read_bytes()


def test_length_and_channels(tmp_path: Path) -> None:
    run("musicgen", "slow piano", "-m", STEREO, "-o", tmp_path / "a.wav", *QUICK)
    facts = probe(tmp_path / "a.wav")
    codec_rate = json.loads((FIXTURES / "musicgen-stereo" / "config.json").read_text())["audio_encoder"]
    assert facts.sample_rate == codec_rate["sampling_rate"]
    assert facts.channels == 2
    assert facts.frames / facts.sample_rate == pytest.approx(0.5, abs=0.03)


def test_variations_have_the_seeds_that_follow(tmp_path: Path) -> None:
    common = ("musicgen", "slow piano", "-m", MONO, *QUICK)
    assert run(*common, "-o", tmp_path / "a.wav", "--variations", 2).exit_code == 0
    assert run(*common, "-o", tmp_path / "single.wav", "--seed", 8).exit_code == 0
    second, alone = Audio.load(tmp_path / "a-2.wav"), Audio.load(tmp_path / "single.wav")
    np.testing.assert_array_equal(second.samples, alone.samples)
    assert not np.array_equal(Audio.load(tmp_path / "a-1.wav").samples, second.samples)


WRONG = {
    "blank prompt": (["musicgen", "  ", "-m", MONO], "the prompt is empty"),
    "no seconds": (["musicgen", "x", "-m", MONO, "--seconds", 0], "seconds must be more than 0"),
    "too many seconds": (["musicgen", "x", "-m", MONO, "--seconds", 4000], "at most 3600"),
    "temperature": (["musicgen", "x", "-m", MONO, "--temperature", -1], "temperature must be 0"),
    "top-k": (["musicgen", "x", "-m", MONO, "--top-k", -1], "--top-k must"),
    "top-p": (["musicgen", "x", "-m", MONO, "--top-p", 2], "--top-p must"),
    "guidance": (["musicgen", "x", "-m", MONO, "--guidance-scale", "nan"], "--guidance-scale must"),
    "unknown": (["musicgen", "x", "-m", "musicgen-smal"], "musicgen-small"),
    "unlisted": (["musicgen", "x", "-m", "somebody/music"], "unlisted"),
    "no melody model": (
        ["musicgen", "x", "-m", MONO, "--melody", "CLIP"],
        "--melody: this model does not follow one; musicgen-melody does (--dry-run asks the hub",
    ),
    "no style model": (
        ["musicgen", "x", "-m", MONO, "--style", "CLIP"],
        "--style: this model does not follow one; musicgen-style does (3.07 GB to fetch)",
    ),
    "missing melody": (["musicgen", "x", "-m", TUNE, "--melody", "gone.wav"], "gone.wav"),
    "silent melody": (["musicgen", "x", "-m", TUNE, "--melody", "SILENT"], "silent"),
    "short melody": (["musicgen", "x", "-m", TUNE, "--melody", "SHORT"], "too short"),
    "melody that is no audio": (["musicgen", "x", "-m", TUNE, "--melody", "TEXT"], "text.wav"),
    "missing style": (["musicgen", "x", *STYLE, "--style", "gone.wav"], "gone.wav"),
    "silent style": (["musicgen", "x", *STYLE, "--style", "SILENT"], "silent"),
    "short style": (["musicgen", "x", *STYLE, "--style", "SHORT"], "3 s"),
    "style that is no audio": (["musicgen", "x", *STYLE, "--style", "TEXT"], "text.wav"),
    "missing beginning": (["musicgen", "x", "-m", MONO, "--continue", "gone.wav"], "gone.wav"),
    "no room to go on": (
        ["musicgen", "x", "-m", MONO, "--continue", "CLIP", "--seconds", 0.5],
        "more --seconds",
    ),
    "precision": (["musicgen", "x", "-m", MONO, "--dtype", "int8"], "dtype must be one of"),
    "bits": (["musicgen", "x", "-m", MONO, "--bits", 3], "bits must be one of"),
    "another family": (["musicgen", "x", "-m", FIXTURES / "t5"], "config.json"),
    "not a recipe": (["replay", "CLIP"], "carries no recipe"),
}


def useless_clips(folder: Path) -> dict[str, Path]:
    silent = Audio(np.zeros((1, 128_000), np.float32), 32_000).save(folder / "silent.wav")
    short = Audio(np.full((1, 1_000), 0.1, np.float32), 32_000).save(folder / "short.wav")
    (folder / "text.wav").write_text("not audio")
    return {"SILENT": silent, "SHORT": short, "TEXT": folder / "text.wav"}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_take_one_sentence(
    arguments: list[object], message: str, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.wav"
    clips = {"CLIP": clip, **useless_clips(tmp_path)}
    given = [clips.get(str(argument), argument) for argument in arguments]
    tokenizer = ["--tokenizer", FIXTURES / "tokenizer"] if given[0] == "musicgen" else []
    result = run(*given, "-o", output, "-q", *tokenizer)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert not output.exists()


def test_what_exists_is_kept(clip: Path, tmp_path: Path) -> None:
    before = clip.read_bytes()
    result = run("musicgen", "x", "-m", MONO, "-o", clip, *QUICK)
    assert result.exit_code == 1 and "--force" in result.stderr
    assert clip.read_bytes() == before
    assert run("musicgen", "x", "-m", MONO, "-o", tmp_path, *QUICK).exit_code == 1


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    result = run("musicgen", "x", "-m", MONO, "-o", tmp_path / "none" / "a.wav", *QUICK)
    assert result.exit_code == 1 and "does not exist; make it first" in result.stderr


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def stopped_by_the_user(*args: object, **options: object) -> Iterator[Callable[..., None]]:
        def on_step(done: float, total: float) -> None:
            assert list(tmp_path.iterdir())  # the file that is being written
            raise KeyboardInterrupt

        yield on_step

    monkeypatch.setattr(shared, "progress", stopped_by_the_user)
    result = run("musicgen", "x", "-m", MONO, "-o", tmp_path / "a.wav", *QUICK)
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_slow_blas_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = blas.Blas("", "wheel", hint="matrix products are slow")
    monkeypatch.setattr(blas, "use", lambda: slow)
    common = ("musicgen", "slow piano", "-m", MONO, "--variations", 2, *QUICK)
    loud = [option for option in common if option != "-q"]
    assert run(*loud, "-o", tmp_path / "a.wav").stderr.count("hint: matrix products are slow") == 1
    assert "hint" not in run(*common, "-o", tmp_path / "b.wav").stderr


def test_a_long_prompt_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the model reads the first 512"):
        result = run("musicgen", "piano " * 600, "-m", MONO, "-o", tmp_path / "a.wav", *QUICK)
    assert result.exit_code == 0


def test_dry_run_tells_and_makes_nothing(tmp_path: Path) -> None:
    asked = ("musicgen", "x", "-m", MONO, "-o", tmp_path / "a.wav", "--dry-run", "--json")
    facts = json.loads(run(*asked, "--tokenizer", FIXTURES / "tokenizer").stdout)
    assert facts["download_bytes"] == 0 and facts["weight_bytes"] > 100_000
    assert "tokenizer" in json.loads(run(*asked).stdout)["error"]  # as the run would say
    assert not list(tmp_path.iterdir())


def test_another_input_is_no_replay(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.wav"
    assert run("musicgen", "x", "-m", TUNE, "-o", output, "--melody", clip, *QUICK).exit_code == 0
    recipe = Recipe.read(output)
    Audio(np.zeros((1, 32000), np.float32), 32000).save(clip, force=True)
    with pytest.raises(AudioError, match="another"):
        again(MUSICGEN, recipe)


def test_one_more_option_is_one_line(tmp_path: Path) -> None:
    """A field of the dataclass is all it takes: command, Python, schema, recipe and replay read it there."""

    @dataclass(frozen=True)
    class More(Options):
        throw_away: Annotated[int, option("To be thrown away.", ge=0)] = 1

    job = replace(MUSICGEN, options=More)
    app = shared.Program("audiogen-mlx", "audiogen-mlx", "As the program, with one more option.")
    commands.add_job(app, job)
    commands.add_replay(app, job)
    assert "--throw-away NUMBER" in call(app, "musicgen", "--help").stdout
    assert job.schema()["properties"]["throw_away"]["minimum"] == 0
    with pytest.raises(OptionError, match="throw_away must be a whole number of 0 or more"):
        More.of({"prompt": "x", "throw_away": -1})
    output, again_ = tmp_path / "a.wav", tmp_path / "b.wav"
    made = call(app, "musicgen", "x", "-m", MONO, "-o", output, *QUICK, "--throw-away", 5)
    assert made.exit_code == 0, made.stderr
    assert Recipe.read(output).settings["throw_away"] == 5
    assert again(job, Recipe.read(output))[1].throw_away == 5
    assert call(app, "replay", output, "-o", again_, "-q").exit_code == 0
    assert again_.read_bytes() == output.read_bytes()


def test_whoever_cannot_fetch_a_model_is_told_of_the_one_that_is_here() -> None:
    done = run("musicgen", "slow piano", "--offline")
    assert done.exit_code == 1
    hint, error = done.stderr.splitlines()[-2:]
    assert hint == "hint: musicgen-small has to be fetched or exported first; -m demo is here already"
    assert error.startswith("error: musicgen-small: ")


def test_models_and_doctor() -> None:
    rows = json.loads(run("models", "--json").stdout)
    assert {"musicgen-small", "stable-audio-open-1.0"} <= {row["name"] for row in rows}
    assert all(row["licence"] for row in rows)
    assert json.loads(run("doctor", "--json").stdout)
