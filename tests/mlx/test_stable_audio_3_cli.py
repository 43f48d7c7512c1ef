"""The command `stable-audio-3`: files with recipes, made again byte for byte; mistakes in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core import jobs
from audiogen_core.audio import Audio, probe
from audiogen_core.errors import AudiogenError, ModelError, OptionError, WeightsError
from audiogen_core.recipe import Recipe
from audiogen_mlx.cli import cli
from audiogen_mlx.stable_audio_3 import StableAudio3
from audiogen_mlx.stable_audio_3.options import Options

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
SMALL = str(FIXTURES / "tiny-small")
RATE = 1280
QUICK = ("--steps", "2", "--seed", "7", "-q")


@pytest.fixture(scope="module")
def model() -> StableAudio3:
    return StableAudio3.load(SMALL, low_memory=False)


def run(*arguments: object):
    return CliRunner().invoke(cli, ["stable-audio-3", *map(str, arguments)])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, RATE)).astype(np.float32)
    return Audio(noise, RATE).save(tmp_path / "clip.wav")


def test_a_file_with_its_recipe(tmp_path):
    output = tmp_path / "bell.wav"
    result = run("a bell", "-m", SMALL, "-o", output, "--seconds", "0.5", *QUICK)
    assert (result.exit_code, result.stdout.strip()) == (0, str(output))
    assert probe(output).frames == round(0.5 * RATE)
    recipe = Recipe.read(output)
    assert (recipe.package, recipe.model, recipe.seed) == ("audiogen-mlx", SMALL, 7)
    assert recipe.settings["command"] == "stable-audio-3"
    assert (recipe.settings["sampler"], recipe.settings["steps"]) == ("pingpong", 2)


CASES = {
    "plain": ["--seconds", "0.5"],
    "negative": ["--seconds", "0.5", "--negative-prompt", "noise", "--guidance-scale", "3"],
    "init": ["--init", "CLIP"],
    "inpaint": ["--init", "CLIP", "--inpaint", "0.2:0.4", "--inpaint", "0.6:0.8", "--exact"],
    "before": ["--init", "CLIP", "--outpaint-left", "0.5", "--seconds", "2"],
    "continue": ["--continue", "CLIP", "--seconds", "1.5"],
    "loop": ["--bpm", "120", "--bars", "1"],
    "upstream": ["--seconds", "0.5", "--compat", "upstream", "--codec-noise"],
    "lora": ["--seconds", "0.5", "--lora", f"{FIXTURES / 'loras' / 'bora.safetensors'}=0.8"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_made_again_byte_for_byte(name, tmp_path, clip):
    first, second = tmp_path / "first.wav", tmp_path / "second.wav"
    arguments = [str(clip) if each == "CLIP" else each for each in CASES[name]]
    result = run("a bell", "-m", SMALL, "-o", first, *arguments, *QUICK)
    assert result.exit_code == 0, result.stderr
    again = CliRunner().invoke(cli, ["replay", str(first), "-o", str(second), "-q"])
    assert again.exit_code == 0, again.stderr
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "seconds must be more than 0"),
        (["--seconds", "600"], "makes 51.20 s at most"),
        (["--inpaint", "0.2:0.4"], "give --init"),
        (["--init", "CLIP", "--inpaint", "0.4:0.2"], "an end after it"),
        (["--init", "CLIP", "--inpaint", "3:4"], "starts at 3 s, after the clip's 1.00 s"),
        (["--init", "CLIP", "--outpaint-left", "0.2", "--inpaint", "0.4:0.5"], "leave out --inpaint"),
        (["--init-noise-level", "0.5"], "give --init"),
        (["--init", "CLIP", "--init-noise-level", "0.001"], "must be 0.01 or more"),
        (["--continue", "CLIP"], "give --seconds"),
        (["--continue", "CLIP", "--seconds", "0.9"], "ask for more --seconds"),
        (["--continue", "CLIP", "--init", "CLIP"], "neither --init nor --inpaint"),
        (["--codec-noise"], "needs --compat upstream"),
        (["--exact"], "give --inpaint or --outpaint-left"),
        (["--bpm", "120"], "both --bpm and --bars"),
        (["--bpm", "20", "--bars", "40"], "bars that fit"),
        (["--guidance-interval", "0.8:0.2"], "from <= to"),
        (["--lora", "gone.safetensors"], "gone.safetensors"),
        (["--lora", "a=loud"], "PATH:STRENGTH"),
        (["--t5", "nowhere"], "T5Gemma, is not there"),
    ],
)
def test_mistakes_take_one_line_and_leave_nothing(arguments, message, tmp_path, clip):
    output = tmp_path / "out.wav"
    arguments = [str(clip) if each == "CLIP" else each for each in arguments]
    result = run("a bell", "-m", SMALL, "-o", output, *arguments, *QUICK)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()[-1]) < 500
    assert "Traceback" not in result.stderr
    assert not output.exists()


def test_a_dry_run_loads_nothing(tmp_path):
    result = run("a bell", "-m", SMALL, "-o", tmp_path / "a.wav", "--dry-run", "--json", "--seconds", "1")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["download_bytes"], facts["steps"], facts["seconds"]) == (0, 8, 1.0)
    assert not (tmp_path / "a.wav").exists()


def test_the_job_is_found_and_described():
    job = jobs.find("stable-audio-3")
    assert job.options is Options
    properties = job.schema()["properties"]
    assert {"prompt", "seconds", "inpaint", "lora", "compat"} <= set(properties)
    assert "noise" not in properties
    assert {entry.name for entry in job.models()} >= {
        f"stable-audio-3-{name}{base}"
        for name in ("small-music", "small-sfx", "medium")
        for base in ("", "-base")
    }
    assert all("Gemma" in entry.license for entry in job.models())


# The lengths of what is made


def test_long_clips_go_on_part_after_part(model, monkeypatch):
    short = replace(model.config, sample_size=2 * RATE // 128 * 128)
    monkeypatch.setattr(model, "config", short)
    with pytest.raises(OptionError, match="long goes on part after part"):
        model.generate("a bell", seconds=3, steps=1)
    pieces = list(model.stream("a bell", seconds=5.1, steps=2, seed=1, duration_padding=0.0))
    assert len(pieces) == 4
    assert sum(piece.samples.shape[1] for piece in pieces) == round(5.1 * RATE)
    whole = model.generate_long("a bell", seconds=5.1, steps=2, seed=1, duration_padding=0.0)
    joined = np.concatenate([piece.samples for piece in pieces], axis=1)
    np.testing.assert_array_equal(joined, whole.samples)


def test_loops_have_the_length_of_their_bars(model):
    for bpm, bars in ((120, 1), (97, 2), (133.3, 3)):
        loop = model.generate_loop("drums", bpm=bpm, bars=bars, steps=1, seed=1)
        assert loop.samples.shape[1] == round(bars * 4 * 60 / bpm * RATE)


def test_what_is_kept_is_kept_to_the_sample(model, clip):
    source = Audio.load(clip)
    made = model.generate("a bell", init_audio=source, inpaint=[(0.3, 0.5)], exact=True, steps=2, seed=1)
    seam = round(0.02 * RATE) + 1
    for start, stop in ((0, round(0.3 * RATE) - seam), (round(0.5 * RATE) + seam, RATE)):
        np.testing.assert_array_equal(made.samples[:, start:stop], source.samples[:, start:stop])
    before = model.generate(
        "a bell", init_audio=source, before=0.5, seconds=1.75, exact=True, steps=2, seed=1
    )
    first = round(0.5 * RATE)
    kept = slice(first + seam, first + RATE - seam)
    np.testing.assert_array_equal(before.samples[:, kept], source.samples[:, seam : RATE - seam])


def test_clips_of_a_batch_are_those_they_are_alone(model):
    pair = model.generate_batch(["a bell", "drums"], seconds=0.5, steps=2, seed=3)
    alone = model.generate("drums", seconds=0.5, steps=2, seed=4)
    np.testing.assert_allclose(pair[1].samples, alone.samples, rtol=0, atol=2e-5)
    apart = model.generate_batch(["a bell", "drums"], durations=(0.3, 0.5), steps=2, seed=3)
    np.testing.assert_allclose(apart[1].samples, alone.samples, rtol=0, atol=2e-5)
    assert apart[0].samples.shape[1] == round(0.3 * RATE)


@pytest.mark.parametrize("load", [{"dtype": "float16"}, {"bits": 8}, {"low_memory": True}])
def test_smaller_in_memory(model, load):
    made = StableAudio3.load(SMALL, **load)
    exact = model.generate("a bell", seconds=0.5, steps=2, seed=1).samples
    clip = made.generate("a bell", seconds=0.5, steps=2, seed=1).samples
    assert np.isfinite(clip).all()
    if "bits" in load:
        kinds = {type(layer).__name__ for _, layer in made._parts.dit(1.0).named_modules()}
        assert "QuantizedLinear" in kinds
        assert 0 < np.abs(clip - exact).max() < 0.1
    if "low_memory" in load:
        np.testing.assert_array_equal(clip, exact)
        assert not made._parts._dit and made._parts._text is None


# What is no model


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    return folder


def test_models_that_are_none(tmp_path):
    def refused(match: str, kind: type[AudiogenError] = ModelError) -> None:
        with pytest.raises(kind, match=match):
            StableAudio3.load(folder)

    folder = tmp_path / "empty"
    folder.mkdir()
    refused("no Stable Audio 3 in this folder")
    folder = copied(tmp_path)
    settings = json.loads((folder / "model_config.json").read_text())

    def write(path: str, value: object) -> None:
        tree = json.loads(json.dumps(settings))
        *parents, last = path.split("/")
        place = tree
        for parent in parents:
            place = place[parent]
        place[last] = value
        (folder / "model_config.json").write_text(json.dumps(tree))

    network = "model/diffusion/config"
    for path, value, match in (
        ("model_type", "diffusion_cond", "'diffusion_cond' is not supported"),
        ("model/diffusion/diffusion_objective", "v", "'v' is not supported"),
        (f"{network}/global_cond_type", "prepend", "'prepend' is not supported"),
        (f"{network}/timestep_features_type", "learned", "'learned' is not supported"),
        (f"{network}/num_heads", 5, "5 heads in 96 channels"),
        (f"{network}/new_setting", 1, "unknown settings: new_setting"),
        (f"{network}/local_add_cond_dim", 3, "only 17"),
        ("model/conditioning/configs", [], "conditioners prompt and seconds_total"),
        ("model/pretransform/config/bottleneck/type", "vae", "'vae' is not supported"),
        ("sample_size", 128, "does not hold 2 latents"),
        ("model/diffusion/sampling_distribution_shift_options", {"type": "odd"}, "type 'odd' is not known"),
    ):
        write(path, value)
        refused(match)
    (folder / "model_config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    refused(".", WeightsError)
    shutil.copy(FIXTURES / "tiny-medium" / "model.safetensors", folder / "model.safetensors")
    refused("do not fit this model", WeightsError)
    shutil.copy(folder / "t5gemma-b-b-ul2" / "model.safetensors", folder / "model.safetensors")
    refused("no whole Stable Audio 3", WeightsError)
