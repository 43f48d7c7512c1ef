"""The command line, in this process, with a model that needs no files."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from audiogen_core import commands
from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.recipe import Recipe
from audiogen_onnx import cli, jobs
from audiogen_onnx.exporter import export
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.options import Asked, Options, VampOptions
from support.commands import call
from support.vampnet_fakes import fake_vampnet

FAST = ("--steps", 2, "--fine-steps", 1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a stereo clip at another rate than the codec's, and a model under any name."""
    music = compose(3, seconds=2).audio.resample(32_000).mix(1).samples
    Audio(np.concatenate([music, music * 0.5]), 32_000).save(tmp_path / "in.wav")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Vampnet, "load", lambda *_, **__: fake_vampnet())
    monkeypatch.setattr(export, "to_fetch", lambda *_, **__: None)
    return tmp_path


def test_vamp_keeps_rate_channels_and_length(place):
    done = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 3, *FAST)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == "out.wav"
    assert "seed 3" in done.stderr and "replay out.wav" in done.stderr
    before, after = Audio.load("in.wav"), Audio.load("out.wav")
    assert (after.sample_rate, after.samples.shape) == (before.sample_rate, before.samples.shape)


def test_the_recipe_tells_what_was_asked_for(place):
    call(cli.cli, "vamp", "in.wav", "-o", "out.flac", "--seed", 3, "--infill", "0.5:1", "--top-p", 0.9, *FAST)
    recipe = Recipe.read("out.flac")
    assert recipe.package == "audiogen-onnx" and recipe.seed == 3
    assert recipe.settings["options"] == {"infill": [0.5, 1.0], "top_p": 0.9, "steps": 2, "fine_steps": 1}
    assert recipe.settings["audio"] == "in.wav" and recipe.settings["sample_rate"] == 32_000
    assert set(recipe.inputs) == {"audio"}


def test_replay_gives_the_same_bytes(place):
    np.save("mask.npy", np.arange(150) % 3 > 0)
    asked = ("--mask", "mask.npy", "--temperature", 0.8, "--sample-rate", 24_000)
    made = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 4, *asked, *FAST)
    assert made.exit_code == 0, made.stderr
    again = call(cli.cli, "replay", "out.wav", "-o", "again.wav")
    assert again.exit_code == 0, again.stderr
    assert (place / "again.wav").read_bytes() == (place / "out.wav").read_bytes()


def test_replay_finds_what_was_moved_and_refuses_what_was_changed(place):
    call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 4, *FAST)
    shutil.move("in.wav", "moved.wav")
    lost = call(cli.cli, "replay", "out.wav", "-o", "again.wav")
    assert lost.exit_code == 1 and "in.wav" in lost.stderr
    found = call(cli.cli, "replay", "out.wav", "-o", "again.wav", "--audio", "moved.wav")
    assert found.exit_code == 0, found.stderr
    other = call(cli.cli, "replay", "out.wav", "-o", "b.wav", "--audio", "out.wav")
    assert other.exit_code == 1 and "not the file that went in as audio" in other.stderr


def test_variations_are_files_of_their_own_and_replay(place):
    done = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 8, "--variations", 2, *FAST)
    assert done.stdout.split() == ["out-1.wav", "out-2.wav"]
    assert {Recipe.read(f"out-{n}.wav").seed for n in (1, 2)} == {8, 9}
    again = call(cli.cli, "replay", "out-2.wav", "-o", "again.wav")
    assert again.exit_code == 0
    assert (place / "again.wav").read_bytes() == (place / "out-2.wav").read_bytes()


def test_numbers_of_variations_are_of_one_width(place):
    done = call(
        cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 8, "--variations", 10, "--dry-run", "--json"
    )
    names = json.loads(done.stdout)["output"]
    assert names == [f"out-{number:02}.wav" for number in range(1, 11)]


def test_a_mask_is_saved_as_it_is_used(place):
    asked = ("--period", 5, "--roll", 0, "--keep", 2)
    done = call(cli.cli, "vamp", "in.wav", "-o", "a.wav", "--save-mask", "m.npy", "--seed", 1, *asked, *FAST)
    assert done.exit_code == 0, done.stderr
    mask = np.load("m.npy")
    assert mask.shape == (8, 150) and mask[2:].all()
    assert np.array_equal(mask[0], np.arange(150) % 5 != 0)


def test_a_preview_is_a_picture_and_nothing_else(place):
    done = call(cli.cli, "vamp", "in.wav", "-o", "a.wav", "--preview", "p.png", "--seed", 1, *FAST)
    assert done.exit_code == 0 and done.stdout.strip() == "p.png", done.stderr
    assert (place / "p.png").read_bytes().startswith(b"\x89PNG") and not (place / "a.wav").exists()


def test_dry_run_makes_nothing(place):
    done = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--dry-run", "--json", "--seed", 1, "--loop")
    plan = json.loads(done.stdout)
    assert plan["channels"] == 2 and plan["frames"] == 150 and plan["options"] == {"loop": True}
    assert plan["steps"] > 0 and not (place / "out.wav").exists()


def gathered(asked: dict[str, object]) -> Asked:
    return commands.gathered(Options, {"audio": "in.wav", **asked})


def test_what_was_asked_for_becomes_options():
    asked = {
        "infill": "1:2", "roll": "4", "beats": "0.5, 1", "loop": False, "upbeats": False, "steps": None,
        "period": 0, "output": "x.wav",
    }  # fmt: skip
    expected = VampOptions(infill=(1, 2), roll=4, beats=(0.5, 1), upbeats=False, period=0)
    assert VampOptions.of(gathered(asked).chosen()) == expected


def test_every_option_of_a_vamp_can_be_asked_for():
    shown = {each.name for each in cli.cli.commands["vamp"].params}
    assert {field.name for field in fields(VampOptions)} <= shown


def test_beats_from_a_file(tmp_path):
    (tmp_path / "beats.txt").write_text("0.25\t1\n0.75\t2\n")
    chosen = gathered({"beats": str(tmp_path / "beats.txt")}).chosen()
    assert chosen == {"beats": (0.25, 0.75), "downbeat_times": (0.25,)}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--steps", 0), "steps"),
        (("--temperature", -1), "temperature"),
        (("--infill", "abc"), "START:END"),
        (("--infill", "9:10"), "ends at"),
        (("--roll", "often"), "--roll"),
        (("--beats", "one"), "not a time"),
        (("--beats", "1 2", "--track-beats"), "one of"),
        (("--loop", "--outpaint-left", 1), "loop"),
        (("--compat", "original"), "compat"),
        (("--mask", "in.wav"), "mask"),
        (("--mask", "short.npy"), "another length"),
        (("--sample-rate", 3), "sample rates"),
    ],
)
def test_one_line_for_what_is_wrong_and_nothing_written(place, asked, says):
    np.save("short.npy", np.ones(7, bool))
    if asked == ("--mask", "in.wav"):
        Audio.load("in.wav").trim(0.5).save("short.wav")
        asked = ("--mask", "short.wav")
    done = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 1, *asked)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not (place / "out.wav").exists()


@pytest.mark.parametrize("bad", ["missing.wav", "empty.wav", "noise.wav"])
def test_input_that_is_no_sound(place, bad):
    (place / "empty.wav").touch()
    (place / "noise.wav").write_bytes(bytes(range(256)) * 4)
    done = call(cli.cli, "vamp", bad, "-o", "out.wav", "--seed", 1, *FAST)
    assert done.exit_code == 1 and bad in done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["empty.wav", "in.wav", "noise.wav"]


def test_samples_that_are_no_numbers(place):
    import soundfile

    soundfile.write("nan.wav", np.array([0.1, np.nan, 0.2], np.float32), 24_000, subtype="FLOAT")
    done = call(cli.cli, "vamp", "nan.wav", "-o", "out.wav", "--seed", 1, *FAST)
    assert done.exit_code == 1 and "nan.wav" in done.stderr and done.stderr.count("\n") == 1
    assert not (place / "out.wav").exists()


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 1)])
def test_a_run_that_is_stopped_leaves_the_old_file(place, monkeypatch, stop, code):
    def run(codes: np.ndarray) -> np.ndarray:
        raise stop

    vampnet = fake_vampnet()
    broken = replace(vampnet, fine=replace(vampnet.fine, run=run))
    monkeypatch.setattr(Vampnet, "load", lambda *_, **__: broken)
    (place / "out.wav").write_bytes(b"old")
    done = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 1, "--force", *FAST)
    assert done.exit_code == code
    assert (place / "out.wav").read_bytes() == b"old"
    assert sorted(path.name for path in place.iterdir()) == ["in.wav", "out.wav"]


def test_nothing_is_written_over_unless_asked(place):
    (place / "out.wav").write_bytes(b"old")
    refused = call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 1, *FAST)
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert (place / "out.wav").read_bytes() == b"old"
    assert call(cli.cli, "vamp", "in.wav", "-o", "out.wav", "--seed", 1, "-f", *FAST).exit_code == 0


def test_a_dry_run_says_what_would_be_fetched_and_fetches_nothing(tmp_path, monkeypatch):
    compose(3, seconds=0.2).audio.save(tmp_path / "in.wav")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOGEN_ONNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Vampnet, "load", lambda *_, **__: pytest.fail("opened in vain"))
    asked = ("vamp", "in.wav", "-o", "out.wav", "--dry-run")
    offline = call(cli.cli, *asked, "--offline")
    assert offline.exit_code == 1 and offline.stderr.count("error: ") == 1
    todo = SimpleNamespace(bytes=7, folder=tmp_path / "hub", wanted=("codec.pth",))
    monkeypatch.setattr("audiogen_core.hub.plan", lambda spec, offline: todo)
    plan = json.loads(call(cli.cli, *asked, "--json").stdout)
    assert plan["model"] == "vampnet" and plan["license"] == "CC-BY-NC-SA-4.0" and plan["download_bytes"] == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav"]


def test_the_job_says_what_it_can_be_asked():
    schema = jobs.VAMP.schema()
    assert schema["required"] == ["audio"]
    assert schema["properties"]["audio"]["contentMediaType"] == "audio/*"
    assert {field.name for field in fields(VampOptions)} <= set(schema["properties"])
    steps = schema["properties"]["steps"]
    assert steps["minimum"] == 1 and steps["description"].endswith("[12]")
    assert [entry.name for entry in jobs.VAMP.models()] == ["demo", "vampnet"]


def test_a_job_that_was_opened_makes_takes(place):
    model = jobs.VAMP.open(model="demo")
    asked = jobs.VAMP.options.of({"audio": "in.wav", "steps": 2, "fine_steps": 1, "seed": 3})
    takes = list(model.takes(asked, 2))
    assert sorted(take.seed for take in takes) == [3, 4]
    assert takes[0].confidence >= takes[1].confidence
    assert takes[0].settings["options"] == {"steps": 2, "fine_steps": 1}
    assert sum(piece.samples.shape[1] for piece in takes[0].pieces) == 2 * 32_000


def test_models():
    found = json.loads(call(cli.cli, "models", "--json").stdout)
    names = [model["name"] for model in found]
    assert names[:4] == ["demo", "vampnet", "demo", "musicgen-small"] and names[-1] == "audio-magnet-medium"
    assert "non-commercial" in found[1]["note"].lower() and found[0]["licence"] == "Apache-2.0"
