"""Tuning: what is learned from, that it is learned, that runs go on to the same bits, what comes of them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core.audio import Audio
from audiogen_core.compose import write_folder
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.musicgen.melody import chroma, repeated
from audiogen_core.training import checkpoints, metrics
from audiogen_core.training.tuning import Tuned, preview
from audiogen_minigpt.generate import Generator
from audiogen_minigpt.settings import TrainConfig, save_config
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.cli import cli
from audiogen_mlx.convert import convert
from audiogen_mlx.musicgen import MusicGen, tune_data
from audiogen_mlx.musicgen.tune import tune
from audiogen_mlx.musicgen.tune_options import Tuning

MODELS = Path(__file__).parents[1] / "fixtures" / "musicgen"
CODEC = MODELS.parent / "encodec" / "32k"
MONO = MODELS / "musicgen-mono"
STEPS = 8
SILENCE = b"RIFF$\x7d\0\0WAVEfmt \x10\0\0\0\1\0\1\0\0\x7d\0\0\0\xfa\0\0\2\0\x10\0data\0\x7d\0\0" + bytes(
    32_000
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of tones with captions, one of silence, and one that is no sound."""
    folder = tmp_path_factory.mktemp("clips")
    times = np.arange(int(2.5 * 32_000)) / 32_000
    for index, pitch in enumerate((220, 330, 440)):
        Audio(np.float32([0.3 * np.sin(2 * np.pi * pitch * times)]), 32_000).save(
            folder / f"tone {index}.wav"
        )
        (folder / f"tone {index}.txt").write_text("a slow banjo\n")
    Audio(np.zeros((1, 32_000), np.float32), 32_000).save(folder / "nothing.wav")
    (folder / "broken.wav").write_bytes(b"RIFF....WAVE")
    return folder


def asked(folder: Path, **more: Any) -> Tuning:
    told: dict[str, Any] = {
        "model": MONO, "tokenizer": MODELS / "tokenizer", "seconds": 1.0, "rank": 4, "batch": 2,
        "accumulate": 2, "steps": STEPS, "lr": 0.02, "threads": 1, "samples": 0,
    }  # fmt: skip
    return Tuning.of({"folder": folder, **told, **more})


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A run from end to end."""
    return tune(asked(clips, samples=1), tmp_path_factory.mktemp("runs") / "whole")


def test_it_learns(whole: Tuned):
    before, after = whole.losses
    assert before is not None and after is not None and after < before
    assert (whole.step, whole.steps, whole.signal) == (STEPS, STEPS, None)
    records = metrics.read(whole.run)
    trained = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(trained) == STEPS and trained[-1] < trained[0]
    made = [Path(record["path"]).name for record in records if record["kind"] == "sample"]
    assert made == ["before.wav", "step-000004.wav", "after.wav"]


def test_the_page_and_the_card_tell_of_it(whole: Tuned):
    assert whole.page is not None and whole.adapter is not None
    page, card = whole.page.read_text(), (whole.adapter / "README.md").read_text()
    for text in ("held-out loss", "silence from end to end", "broken.wav", "3 from a text file"):
        assert text in page
    assert page.count("<audio") == 3 or page.count('class="clip"') == 3
    assert "library_name: peft" in card and "held-out loss" in card


def test_the_adapter_is_what_was_learned(whole: Tuned):
    """Opened with it, the model is the one of the run's least loss."""
    assert whole.adapter is not None
    said = json.loads((whole.adapter / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], said["peft_type"]) == (4, 4.0, "LORA")
    best = checkpoints.read(checkpoints.folder(whole.run, least(whole)))
    plain, music = (
        MusicGen.load(MONO, tokenizer=MODELS / "tokenizer", lora=lora)._parts.transformer
        for lora in (None, [whole.adapter])
    )
    name = "decoder.model.decoder.layers.0.self_attn.q_proj"
    table = best.table("factors")
    delta = table[f"{name}.lora_B"] @ table[f"{name}.lora_A"]
    grown = np.array(music.blocks[0].qkv.weight[:48]) - np.array(plain.blocks[0].qkv.weight[:48])
    np.testing.assert_allclose(grown, delta, rtol=0, atol=1e-6)
    assert np.abs(delta).max() > 1e-3


def least(made: Tuned) -> int:
    """After how many updates held-out clips cost least."""
    judged = [record for record in metrics.read(made.run) if record["kind"] == "eval" and record["step"]]
    return int(min(judged, key=lambda record: record["loss"])["step"])


class Killed(BaseException):
    pass


def bits(made: Tuned) -> bytes:
    assert made.adapter is not None
    return (made.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_run_that_was_killed_ends_in_the_same_bits(clips: Path, whole: Tuned, tmp_path: Path, at: int):
    def kill(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        tune(asked(clips), tmp_path / "run", on_record=kill)
    made = tune(asked(clips), tmp_path / "run")
    assert bits(made) == bits(whole)
    steps = [record["step"] for record in metrics.read(tmp_path / "run") if record["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))


def test_a_signal_ends_it_after_the_update(clips: Path, whole: Tuned, tmp_path: Path):
    def ask(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    made = tune(asked(clips), tmp_path / "run", on_record=ask)
    assert (made.signal, made.step) == (signal.SIGTERM, 2) and made.adapter is not None
    assert made.page is None and not (made.run / "report.html").exists()  # which says that all is done
    assert bits(tune(asked(clips), tmp_path / "run")) == bits(whole)
    again = tune(asked(clips), tmp_path / "run")  # all is done
    assert again.step == STEPS and bits(again) == bits(whole)


def test_a_damaged_checkpoint_is_passed_over(clips: Path, whole: Tuned, tmp_path: Path):
    def ask(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    made = tune(asked(clips), tmp_path / "run", on_record=ask)
    newest = sorted((made.run / "ckpt").iterdir())[-1]
    with (newest / "factors.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    last = checkpoints.newest(made.run)
    assert last is not None and last.step == 2
    assert bits(tune(asked(clips), tmp_path / "run")) == bits(whole)


def test_other_settings_or_clips_are_another_run(clips: Path, tmp_path: Path):
    tune(asked(clips, steps=1), tmp_path / "run")
    with pytest.raises(OptionError, match="rank: 4 in the run, 8 in what is asked now"):
        tune(asked(clips, rank=8), tmp_path / "run")
    (tmp_path / "clips").mkdir()
    for path in clips.iterdir():
        (tmp_path / "clips" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "clips" / "tone 0.txt").write_text("something else")
    config = json.loads((tmp_path / "run" / "config.json").read_text()) | {"folder": str(tmp_path / "clips")}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(OptionError, match="other clips or captions"):
        tune(asked(tmp_path / "clips", steps=1), tmp_path / "run")


def test_what_it_is_to_keep_is_shown_with_the_rest(clips: Path, whole: Tuned, tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "kept").mkdir()
    for index in range(2):
        noise = rng.normal(0, 0.1, (1, 40_000)).astype(np.float32)
        Audio(noise, 32_000).save(tmp_path / "kept" / f"{index}.wav")
        (tmp_path / "kept" / f"{index}.txt").write_text("an old sound")

    def kill(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        tune(asked(clips, keep=tmp_path / "kept"), tmp_path / "run", on_record=kill)
    made = tune(asked(clips, keep=tmp_path / "kept"), tmp_path / "run")
    assert bits(made) == bits(tune(asked(clips, keep=tmp_path / "kept"), tmp_path / "again"))
    assert bits(made) != bits(whole) and made.losses[0] == whole.losses[0]  # of the clips it is to learn
    never = tune(asked(clips, keep=tmp_path / "kept", keep_share=0.0), tmp_path / "never")
    assert made.adapter is not None and never.losses != made.losses
    assert "2 clips, 30% of all" in (made.adapter / "README.md").read_text()
    (tmp_path / "kept" / "0.txt").write_text("another sound")
    with pytest.raises(OptionError, match="other clips or captions"):
        tune(asked(clips, keep=tmp_path / "kept"), tmp_path / "run")
    with pytest.raises(AudioError, match="nothing"):
        tune(asked(clips, keep=tmp_path / "nothing"), tmp_path / "other")


def test_a_time_makes_a_plan(clips: Path, tmp_path: Path):
    made = tune(asked(clips, steps=None, time=0.4), tmp_path / "run")
    assert made.step == made.steps >= 1
    events = [record["message"] for record in metrics.read(made.run) if record["kind"] == "event"]
    assert "updates fit into" in events[0]


def test_one_clip_of_a_second_has_nothing_held_out(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    Audio(rng.normal(0, 0.1, (1, 32_000)).astype(np.float32), 32_000).save(
        tmp_path / "in" / "01 white_noise.wav"
    )
    made = tune(asked(tmp_path / "in", steps=2), tmp_path / "run")
    assert made.losses == (None, None) and made.step == 2
    assert made.page is not None and "1 from a file name" in made.page.read_text()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing to learn from"),
        ({"a.wav": b"RIFF"}, r"nothing to learn from: a.wav: .*"),
        ({"a.dsf": b""}, "convert the file"),
        ({"a.m4a": b""}, "nothing to learn from: a.m4a: the file is empty"),
        ({"a.wav": SILENCE}, "nothing to learn from: a.wav: silence from end to end"),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, files: dict[str, bytes], message: str):
    (tmp_path / "in").mkdir()
    for name, payload in files.items():
        (tmp_path / "in" / name).write_bytes(payload)
    with pytest.raises(AudioError, match=message):
        tune(asked(tmp_path / "in"), tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"targets": ("nothing",)}, "targets: the model has no modules called nothing"),
        ({"seconds": 59.0}, "seconds must be at most"),
        ({"steps": 3, "time": 3.0}, "not both"),
        ({"warmup": 0.9, "cooldown": 0.9}, "together at most 1"),
        ({"lora": ("x",)}, "tune the model without it"),
        ({"rank": 0}, "rank"),
    ],
)
def test_settings_that_do_not_fit(clips: Path, tmp_path: Path, more: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        tune(asked(clips, **more), tmp_path / "run")


FOLLOWING = {
    "melody": {"model": MODELS / "musicgen-melody", "seconds": 1.0},
    "style": {
        "model": MODELS / "audiocraft-style", "mert": MODELS / "audiocraft-style" / "mert",
        "t5": MODELS / "t5", "codec": CODEC, "seconds": 3.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWING)
def test_models_that_follow_a_clip(name: str, tmp_path: Path):
    """Each clip is its own melody or style, in half of the cases; too short a one has no style."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for index, seconds in enumerate((3.1, 3.2, 6.5, 1.5)):
        samples = rng.normal(0, 0.1, (1, round(seconds * 32_000))).astype(np.float32)
        Audio(samples, 32_000).save(tmp_path / "in" / f"noise {'abcd'[index]}.wav")
    records: list[dict[str, Any]] = []
    made = tune(
        asked(tmp_path / "in", steps=6, **FOLLOWING[name]), tmp_path / "run", on_record=records.append
    )
    before, after = made.losses
    assert before is not None and after is not None and after < before and made.page is not None
    assert ("too short for an excerpt" in made.page.read_text()) == (name == "style")
    again = tune(asked(tmp_path / "in", steps=6, **FOLLOWING[name]), tmp_path / "again")  # the same draws
    assert bits(made) == bits(again)
    where = {key: value for key, value in FOLLOWING[name].items() if key != "seconds"}
    music = MusicGen.load(**where, tokenizer=MODELS / "tokenizer", lora=[made.adapter])
    assert music.generate("noise", seconds=0.1, seed=0).samples.any()


def test_the_clip_itself_is_what_is_followed(tmp_path: Path):
    """A melody that is shown is the clip's, and one that is not is none."""
    music = MusicGen.load(MODELS / "musicgen-melody", tokenizer=MODELS / "tokenizer")
    times = np.arange(32_000) / 32_000
    (tmp_path / "in").mkdir()
    tone = Audio(np.float32([0.3 * np.sin(2 * np.pi * 440 * times)]), 32_000)
    tone.save(tmp_path / "in" / "a.wav", subtype="FLOAT")
    data, _ = tune_data.prepare(music._parts, tmp_path / "in", tmp_path, 1.0)
    (clip,) = data.train
    network = music._parts.transformer
    heard = repeated(chroma(tone, music.config.chroma), music.config.melody_frames)
    shown, other = tune_data.ahead(network, clip, 3), tune_data.ahead(network, clip, None)
    np.testing.assert_allclose(shown, np.array(network.project_melody(mx.array(heard))), rtol=0, atol=1e-6)
    assert other is not None and np.ptp(other, axis=0).max() == 0  # the same in every frame


def test_words_of_captions_are_not_put_in_those_of_the_model(tmp_path: Path):
    """The demo takes an organ for a piano; with an adapter it may know better, and piano stays what it is."""
    tokenizer = MusicGen.load("demo")._parts.tokenizer
    piano, organ = (tokenizer.encode([f"slow {word}"])[0] for word in ("piano", "organ"))
    np.testing.assert_array_equal(piano, organ)
    made = tokenizer.literal()
    assert made.encode(["slow organ"])[0].tolist() != organ.tolist()
    np.testing.assert_array_equal(made.encode(["slow pianoforte"])[0], piano)  # which it means
    write_folder(tmp_path / "in", minutes=2 / 60, piece_seconds=1.0, seed=1, styles=["organ hymn"])
    run = tune(asked(tmp_path / "in", model="demo", tokenizer=None, steps=1), tmp_path / "run")
    music = MusicGen.load("demo", lora=[run.adapter])
    assert music._parts.tokenizer.unknown("slow organ") == ["organ"]
    convert(Files.find(MUSICGEN, "demo", Places(lora=(str(run.adapter),))), tmp_path / "made")
    assert MusicGen.load(tmp_path / "made")._parts.tokenizer.unknown("slow organ") == ["organ"]


def test_samples_are_of_a_caption_that_says_something(tmp_path: Path):
    first, *_ = write_folder(tmp_path / "in", minutes=3 / 60, piece_seconds=1.0, seed=1)
    first.rename(tmp_path / "in" / "00 My Holiday Jam.wav")
    made = tune(asked(tmp_path / "in", model="demo", tokenizer=None, steps=1), tmp_path / "run")
    assert made.page is not None
    (about,) = re.findall("after the same: (.*?)</p>", made.page.read_text())
    assert "Holiday" not in about and MusicGen.load("demo")._parts.tokenizer.understands(about)


def test_a_converted_folder_learns_as_the_original(clips: Path, whole: Tuned, tmp_path: Path):
    """To the same bits; and what is merged into it is what is merged into that."""
    files = Files.find(MUSICGEN, MONO, Places(tokenizer=MODELS / "tokenizer"))
    folder = convert(files, tmp_path / "made")
    run = tune(asked(clips, model=folder, tokenizer=None), tmp_path / "run")
    assert run.adapter is not None and whole.adapter is not None
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()
    merged = Files.find(MUSICGEN, folder, Places(lora=(str(run.adapter),)))
    again = MusicGen.load(convert(merged, tmp_path / "merged"))
    expected = MusicGen.load(MONO, tokenizer=MODELS / "tokenizer", lora=[run.adapter])
    told: dict[str, Any] = {"seconds": 0.5, "seed": 1}
    one, other = (music.generate_codes("a slow banjo", **told).values for music in (again, expected))
    np.testing.assert_array_equal(one, other)


def test_a_dora_is_learned(clips: Path, tmp_path: Path):
    made = tune(asked(clips, dora=True), tmp_path / "run")
    before, after = made.losses
    assert before is not None and after is not None and after < before and made.adapter is not None
    assert json.loads((made.adapter / "adapter_config.json").read_text())["use_dora"] is True
    last = checkpoints.newest(made.run)
    assert last is not None
    name = "decoder.model.decoder.layers.0.self_attn.q_proj"
    table = last.table("factors")
    plain, music = (
        np.array(
            MusicGen.load(MONO, tokenizer=MODELS / "tokenizer", lora=lora)
            ._parts.transformer.blocks[0]
            .qkv.weight
        )
        for lora in (None, [made.adapter])
    )
    lengths = np.linalg.norm(music[:48], axis=1)
    np.testing.assert_allclose(lengths, table[f"{name}.lora_magnitude_vector"], rtol=1e-5)
    assert np.abs(lengths - np.linalg.norm(plain[:48], axis=1)).max() > 1e-3


def test_the_command(clips: Path, tmp_path: Path):
    arguments = ["tune", clips, "-m", MONO, "--tokenizer", MODELS / "tokenizer", "-o", tmp_path / "run"]
    arguments += ["--steps", "2", "--seconds", "1", "--rank", "2", "--targets", "attention", "--samples", "0"]
    made = CliRunner().invoke(cli, [str(each) for each in (*arguments, "--threads", "1", "--json")])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["step"] == 2 and told["path"] == str(tmp_path / "run" / "adapter")
    assert mx.load(str(tmp_path / "run" / "adapter" / "adapter_model.safetensors"))


def test_the_command_tells_what_it_found_and_when_it_ends(clips: Path, tmp_path: Path):
    line = ["tune", clips, "-m", MONO, "--tokenizer", MODELS / "tokenizer", "-o", tmp_path / "run"]
    line += ["--time", "1s", "--seconds", "1", "--rank", "2", "--samples", "0", "--threads", "1"]

    def told(*more: str) -> list[str]:
        made = CliRunner().invoke(cli, [*map(str, line), *more])
        assert made.exit_code == 0, made.output
        return made.stderr.splitlines()

    lines = told()
    assert lines[:3] == [
        "4 files, 8 s; 1 left out: broken.wav (cut off)",
        "captions: 3 from a text file, 1 from a file name",
        "to do: open the model, encode what is not encoded yet, and train 1s",
    ]
    assert "left out as well, silent: nothing.wav" in lines
    assert "6 clips; held out to judge by: tone 0.wav (1), tone 2.wav (1)" in lines
    assert any(re.search(r"^\d+ updates? to come, .*; ends about \d\d:\d\d:\d\d$", each) for each in lines)
    assert not told("--quiet") and not (tmp_path / "other").exists()
    (tmp_path / "empty").mkdir()
    line[1], line[line.index("-o") + 1] = tmp_path / "empty", tmp_path / "other"
    refused = CliRunner().invoke(cli, list(map(str, line)))
    assert "nothing to learn from" in refused.stderr and not (tmp_path / "other").exists()


def test_a_run_is_known_wherever_it_is_given(whole: Tuned, tmp_path: Path):
    """Its folder stands for its adapter, and other commands say what it is."""
    (adapter,) = Files.find(MUSICGEN, MONO, Places(lora=(f"{whole.run}:0.5",))).adapters
    assert (adapter.path, adapter.strength) == (whole.adapter, 0.5)
    told = f"beside {MONO}; use it with: audiogen-mlx musicgen -m {MONO} --lora {whole.run}"
    with pytest.raises(ModelError, match=told):
        MusicGen.load(whole.run)
    with pytest.raises(ModelError, match=told):
        Generator.load(whole.run)
    save_config(TrainConfig(data="data", run=str(tmp_path), model=None))
    with pytest.raises(ModelError, match="is a run of audiogen-minigpt; use it with: audiogen-minigpt gen"):
        MusicGen.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not readable as JSON"):
        MusicGen.load(tmp_path)


def test_the_command_names_its_run_and_a_model_that_is_here(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOGEN_CACHE", str(tmp_path / "cache"))
    made = CliRunner().invoke(cli, ["tune", str(clips), "--offline", "--dry-run", "--json"])
    assert json.loads(made.stdout)["run"] == f"{clips.name}-tuned"
    made = CliRunner().invoke(cli, ["tune", str(clips), "--offline"])
    assert made.exit_code == 1 and (tmp_path / f"{clips.name}-tuned").is_dir()
    hint = "hint: musicgen-small has to be fetched or exported first; -m demo is here already"
    assert hint in made.stderr.splitlines()


def test_a_command_that_is_stopped_says_how_it_goes_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    line = ["tune", clips, "-m", MONO, "--tokenizer", MODELS / "tokenizer", "-o", tmp_path / "run"]
    line += ["--steps", "4", "--seconds", "1", "--rank", "2", "--samples", "0", "--threads", "1"]
    write = metrics.Metrics.write

    def ask(self: metrics.Metrics, record: dict[str, Any]) -> None:
        write(self, record)
        if record["kind"] == "train" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(metrics.Metrics, "write", ask)
        made = CliRunner().invoke(cli, list(map(str, line)))
    assert made.exit_code == 130
    assert made.stderr.splitlines()[-1] == "stopped after 2 of 4 updates; the same command goes on from here"
    made = CliRunner().invoke(cli, list(map(str, line)))
    assert made.exit_code == 0 and "goes on after 2 of 4 updates" in made.stderr.splitlines()
    first = next(each for each in metrics.read(tmp_path / "run") if each["kind"] == "train")
    assert "step 4/4, 0:00 left, loss" in made.stderr and f"(began at {first['loss']:.3f})" in made.stderr


def test_a_dry_run_tells_and_writes_nothing(clips: Path, whole: Tuned, tmp_path: Path):
    out = tmp_path / "run"

    def told(run: Path, *more: object) -> dict[str, Any]:
        line = ["tune", str(clips), "-m", "demo", "-o", str(run), *map(str, more), "--dry-run", "--json"]
        done = CliRunner().invoke(cli, line)
        assert done.exit_code == 0, done.output
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    plan = told(out, "--steps", 7)
    assert (plan["files"], plan["updates"], plan["training_seconds"], plan["model"]) == (4, 7, None, "demo")
    assert plan["seconds"] == 3 * 2.5 + 1  # that one of them is silent is found when it is encoded
    assert [(each["file"], each["why"]) for each in plan["left_out"]] == [("broken.wav", "cut off")]
    assert plan["captions"].startswith("3 from")
    timed = told(out, "--time", "10m")
    assert (timed["updates"], timed["training_seconds"]) == (None, 600)
    assert not out.exists()
    kept = sorted(whole.run.rglob("*"))
    refused = CliRunner().invoke(cli, ["tune", str(clips), "-m", "demo", "-o", str(whole.run), "--dry-run"])
    assert refused.exit_code == 1 and "was begun with other settings" in refused.stderr
    on = preview(asked(clips, steps=STEPS + 3), whole.run, captioned=True)
    assert on["updates"] == 3
    longer = preview(asked(clips, steps=None, time=3600.0), whole.run, captioned=True)
    assert longer["updates"] > 3  # by the pace it had
    assert sorted(whole.run.rglob("*")) == kept
