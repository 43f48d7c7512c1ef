"""The command `stable-audio`: files with recipes, made again byte for byte; mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core.audio import Audio, probe
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.jobs import again
from audiogen_core.recipe import Recipe, hash_file
from audiogen_mlx.cli import cli
from audiogen_mlx.jobs import STABLE_AUDIO

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
SMALL, ONE = str(FIXTURES / "tiny-small"), str(FIXTURES / "tiny-1.0")
RATE = 44100


@pytest.fixture
def run():
    runner = CliRunner()

    def invoke(*arguments: str):
        return runner.invoke(cli, ["stable-audio", *map(str, arguments)])

    return invoke


def replay(file: Path, output: Path, *more: str):
    return CliRunner().invoke(cli, ["replay", str(file), "-o", str(output), "-q", *more])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, RATE // 5)).astype(np.float32)
    return Audio(noise, RATE).save(tmp_path / "clip.wav")


QUICK = ("--seconds", "0.3", "--steps", "2", "--seed", "7", "-q")


def test_a_file_with_its_recipe(run, tmp_path: Path) -> None:
    output = tmp_path / "bell.wav"
    result = run("a bell", "-m", SMALL, "-o", output, *QUICK)
    assert (result.exit_code, result.stdout.strip()) == (0, str(output))
    assert probe(output).frames == round(0.3 * RATE)
    recipe = Recipe.read(output)
    assert (recipe.package, recipe.model, recipe.seed) == ("audiogen-mlx", SMALL, 7)
    assert recipe.settings["prompt"] == "a bell"
    assert (recipe.settings["sampler"], recipe.settings["guidance_scale"]) == ("pingpong", 1.0)


CASES = {
    "plain": [],
    "negative": ["--negative-prompt", "noise", "--guidance-scale", "3", "--guidance-rescale", "0.5"],
    "interval": ["--guidance-scale", "3", "--guidance-interval", "0.2:0.9", "--sampler", "dpmpp"],
    "init": ["--init", "CLIP", "--init-noise-level", "0.5"],
    "inpaint": ["--init", "CLIP", "--inpaint", "0.05:0.1", "--inpaint", "0.15:0.2"],
    "continue": ["--continue", "CLIP"],
    "long": ["--seconds", "0.9", "--long", "--overlap", "0.2"],
}


@pytest.mark.parametrize("name", CASES)
def test_replay_makes_the_same_bytes(run, tmp_path: Path, clip: Path, name: str) -> None:
    first, second = tmp_path / "first.flac", tmp_path / "second.flac"
    extra = [str(clip) if part == "CLIP" else part for part in CASES[name]]
    assert run("a bell", "-m", SMALL, "-o", first, *QUICK, *extra).exit_code == 0
    assert replay(first, second).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


def test_replay_of_a_loop_of_the_other_model(run, tmp_path: Path) -> None:
    first, second = tmp_path / "first.wav", tmp_path / "second.wav"
    loop = ("--bpm", "300", "--bars", "2", "--beats", "1", "--steps", "2", "--seed", "7", "-q")
    assert run("drums", "-m", ONE, "-o", first, *loop).exit_code == 0
    assert probe(first).frames == round(2 * 60 / 300 * RATE)
    assert replay(first, second).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["init", "continued"])
def test_old_names_of_options_are_read(clip: Path, tmp_path: Path, name: str) -> None:
    settings = {"command": "stable-audio", "prompt": "a bell", "seconds": 0.3, name: "gone.wav"}
    defaults = {"beats_per_bar": 4, "long": False, "dtype": "float32"}  # as version 0.1.0 kept them
    inputs = {name: hash_file(clip)}
    recipe = Recipe("audiogen-mlx", "0.1.0", SMALL, seed=1, settings=settings | defaults, inputs=inputs)
    load, options = again(STABLE_AUDIO, recipe, {name: clip})
    assert getattr(options, STABLE_AUDIO.renamed[name]) == clip
    assert (load.model, load.dtype, options.seed) == (SMALL, "float32", 1)


def test_variations_are_files_of_their_own(run, tmp_path: Path) -> None:
    output = tmp_path / "bell.wav"
    result = run("a bell", "-m", SMALL, "-o", output, *QUICK, "--variations", "2")
    paths = [tmp_path / "bell-1.wav", tmp_path / "bell-2.wav"]
    assert result.stdout.split() == [str(path) for path in paths]
    assert [Recipe.read(path).seed for path in paths] == [7, 8]
    alone = tmp_path / "alone.wav"
    run("a bell", "-m", SMALL, "-o", alone, *QUICK, "--seed", "8")
    assert alone.read_bytes() == paths[1].read_bytes()


def test_replay_wants_the_same_model_and_clips(run, tmp_path: Path, clip: Path) -> None:
    output = tmp_path / "bell.wav"
    run("a bell", "-m", SMALL, "-o", output, *QUICK, "--init", clip)
    recipe = Recipe.read(output)
    moved = replay(output, tmp_path / "again.wav", "--use", f"model={FIXTURES / 'tiny-inpaint'}")
    assert moved.exit_code == 1 and "not the model that made this file" in moved.stderr
    Audio(np.zeros((2, 9000), np.float32), RATE).save(clip, force=True)
    with pytest.raises(AudioError, match="not the file that went in as init"):
        again(STABLE_AUDIO, recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "musicgen"}, "this is audiogen-mlx stable-audio"),
        ({"colour": 3}, "settings of another version: colour"),
    ],
)
def test_recipes_of_something_else(change: dict, message: str) -> None:
    settings = {"command": "stable-audio", "prompt": "a bell", "seconds": 0.3} | change
    with pytest.raises(AudioError, match=message):
        again(STABLE_AUDIO, Recipe("audiogen-mlx", "0.1", SMALL, seed=1, settings=settings))
    with pytest.raises(AudioError, match="damaged"):
        again(
            STABLE_AUDIO, Recipe("audiogen-mlx", "0.1", SMALL, seed=1, settings={"command": "stable-audio"})
        )


def test_only_files_can_have_moved() -> None:
    recipe = Recipe("audiogen-mlx", "0.1", SMALL, seed=1, settings={"command": "stable-audio"})
    with pytest.raises(OptionError, match="nothing called melody can have moved"):
        again(STABLE_AUDIO, recipe, {"melody": "a.wav"})


def test_a_loud_clip_is_not_clipped(run, tmp_path: Path) -> None:
    output = tmp_path / "loud.wav"
    loud = ("--guidance-scale", "40", "--sampler", "euler")
    result = run("a bell", "-m", SMALL, "-o", output, *QUICK, *loud)
    assert result.exit_code == 0
    samples = np.abs(Audio.load(output).samples)
    assert 0.99 < samples.max() <= 1
    assert (samples >= 0.9999).sum() <= 4


def test_dry_run_says_what_would_be_done(run, tmp_path: Path) -> None:
    output = tmp_path / "bell.wav"
    result = run("a bell", "-m", ONE, "-o", output, "--seconds", "0.3", "--dry-run", "--json")
    facts = json.loads(result.stdout)
    assert (facts["sampler"], facts["steps"], facts["sigma_max"]) == ("dpmpp-3m-sde", 100, 500.0)
    assert facts["weight_bytes"] > 1_000_000
    assert not output.exists()


def test_every_sampler_can_be_asked_for() -> None:
    from audiogen_mlx.stable_audio.diffusion import SAMPLERS

    assert STABLE_AUDIO.schema()["properties"]["sampler"]["anyOf"][0]["enum"] == list(SAMPLERS)


def test_json_names_the_file_and_how_to_make_it_again(run, tmp_path: Path) -> None:
    output = tmp_path / "a bell.wav"
    facts = json.loads(run("a bell", "-m", SMALL, "-o", output, *QUICK, "--json").stdout)
    assert facts["path"] == str(output)
    assert facts["replay"].startswith("audiogen-mlx replay '")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", *QUICK], "the prompt is empty"),
        (["a bell", "--seconds", "60"], "--long"),
        (["a bell", "--long"], "give --seconds"),
        (["a bell", "--bpm", "120"], "both --bpm and --bars"),
        (["a bell", "--bpm", "120", "--bars", "1", "--seconds", "3"], "leave out --seconds"),
        (["a bell", "--seconds", "0.3", "--overlap", "0.1"], "add --long"),
        (["a bell", *QUICK, "--init", "CLIP", "--inpaint", "0.2:0.1"], "an end after it"),
        (["a bell", *QUICK, "--init", "CLIP", "--inpaint", "half"], "expected START:END"),
        (["a bell", *QUICK, "--init", "absent.wav"], "absent.wav"),
        (["a bell", *QUICK, "--sampler", "magic"], "one of pingpong"),
        (["a bell", *QUICK, "-m", "stable-audio-open-smal"], "did you mean stable-audio-open-small"),
        (["a bell", *QUICK, "-m", "someone/model"], "--unlisted"),
    ],
)
def test_one_sentence_for_each_mistake(
    run, tmp_path: Path, clip: Path, arguments: list[str], message: str
) -> None:
    given = [str(clip) if part == "CLIP" else part for part in arguments]
    given = given if "-m" in given else [*given, "-m", SMALL]
    result = run(*given, "-o", tmp_path / "out.wav")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "out.wav").exists()


def test_an_output_that_exists_is_kept(run, clip: Path) -> None:
    before = clip.read_bytes()
    result = run("a bell", "-m", SMALL, "-o", clip, *QUICK)
    assert result.exit_code == 1 and "--force" in result.stderr
    assert clip.read_bytes() == before
