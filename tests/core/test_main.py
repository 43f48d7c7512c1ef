"""The audiogen-core command, end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs, coding, describe, doctor
from audiogen_core.audio import Audio, probe
from audiogen_core.codecs.catalog import CATALOG
from audiogen_core.codes import Codes, Latents
from audiogen_core.dataset.encode import encode
from audiogen_core.dataset.options import Preparation
from audiogen_core.errors import CodesError
from audiogen_core.main import commands
from audiogen_core.recipe import Recipe, hash_file
from support.commands import call as commands_call
from support.kills import contents
from support.noise_files import noise
from support.programs import program
from support.sounds import tone

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encodec"
CODEC = str(FIXTURES / "24k")
OPTIONS = Preparation(stereo="split", level="peak")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def sound(tmp_path) -> Path:
    return tone(1.2, sample_rate=24_000).save(tmp_path / "in.wav")


@pytest.fixture
def codes(tmp_path, sound) -> Path:
    path = tmp_path / "in.codes"
    codecs.load(CODEC).encode(Audio.load(sound)).save(path)
    return path


def call(*arguments, code: int = 0):
    result = commands_call(commands, *arguments)
    assert result.exit_code == code, result.stderr
    return result


# -- encode and decode -------------------------------------------------------------------------------


def test_encode_gives_the_codes_of_the_library(tmp_path, sound):
    result = call("encode", sound, "-o", tmp_path / "a.codes", "--codec", CODEC)
    assert result.stdout == f"{tmp_path / 'a.codes'}\n"
    assert "s of audio in" in result.stderr
    made, expected = Codes.load(tmp_path / "a.codes"), codecs.load(CODEC).encode(Audio.load(sound))
    np.testing.assert_array_equal(made.values, expected.values)
    assert (made.codec, made.length) == (expected.codec, expected.length)


@pytest.mark.parametrize("name", ["a.wav", "a.NPZ", "a.json", "a.txt", "a.flac", "a.pt", "a.onnx", "a.png"])
def test_codes_are_not_given_the_name_of_another_kind(tmp_path, sound, monkeypatch, name):
    monkeypatch.setattr(codecs, "load", None)  # told before a codec is opened
    (tmp_path / name).write_text("mine")
    result = call("encode", sound, "-o", tmp_path / name, "--codec", CODEC, "--force", code=1)
    assert f"{Path(name).suffix} is the name of another kind of file" in result.stderr
    values = np.zeros((2, 3))
    for coded in (Codes(values.astype(int), 4, 75.0, "x"), Latents(values, 75.0, "x")):
        with pytest.raises(CodesError, match="another kind"):
            coded.save(tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


def test_encode_conforms_visibly(tmp_path):
    path = tone(0.7, sample_rate=44_100, channels=2).save(tmp_path / "in.flac")
    result = call("encode", path, "-o", tmp_path / "a.codes", "--codec", CODEC, "--codebooks", "2")
    assert (
        "resampled from 44100 Hz to 24000 Hz and mixed from stereo to mono for encodec-24khz" in result.stderr
    )
    audio = Audio.load(path, sample_rate=24_000, channels=1)
    np.testing.assert_array_equal(
        Codes.load(tmp_path / "a.codes").values, codecs.load(CODEC).encode(audio, codebooks=2).values
    )


@pytest.fixture
def songs(tmp_path, monkeypatch) -> Path:
    """A folder of two sounds, one of them with a caption, below the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs").mkdir()
    noise(1.2, 1).save(tmp_path / "songs" / "a.wav")
    noise(1.5, 2).save(tmp_path / "songs" / "low_tone.wav")
    (tmp_path / "songs" / "a.txt").write_text("a hum")
    return Path("songs")


def test_a_folder_becomes_a_folder_of_codes_and_is_gone_on_with(songs):
    asked = ("encode", songs, "-m", CODEC, "--codebooks", 2, "--val-permille", 0, "--workers", 1)
    result = call(*asked, "--verify")
    assert result.stdout == "songs-codes\n"
    assert "checked: 203 frames are as they were written" in result.stderr
    assert "captions: 1 from a text file, 1 from a file name" in result.stderr
    shards = {path.name: path.read_bytes() for path in Path("songs-codes").glob("shard-*")}
    noise(1.0, 3).save(songs / "new.wav")
    told = json.loads(call(*asked, "--json").stdout)
    assert (told["path"], told["tracks"], told["new"], told["changed"]) == ("songs-codes", 3, 1, 0)
    assert shards and shards.items() <= contents(Path("songs-codes")).items()


@pytest.mark.parametrize("package", ["audiogen-core", "audiogen-minigpt"])
def test_both_commands_make_the_same_folder(songs, package):
    """With the same options, which are written once."""
    options = ("-m", CODEC, "--stereo", "split", "--level", "peak", "--split-by", "parent", "--workers", "1")
    encode(songs, "expected", codec=CODEC, workers=1, split_by="parent", options=OPTIONS)
    made = commands_call(program(package), "encode", songs, "-o", "made", *options, "-q")
    assert (made.exit_code, made.stdout, made.stderr) == (0, "made\n", "")
    assert contents(Path("made")) == contents(Path("expected"))
    assert len(contents(Path("made"))) == 6  # meta, plan, report, captions, one shard of two files


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("songs/a.wav", "--stereo", "split"),
            "--stereo: songs/a.wav is no folder, and this is for",
        ),
        (("songs/a.wav", "--workers", "2", "--verify"), "--verify, --workers: songs/a.wav is no folder"),
        (
            ("songs", "--channel", "left"),
            "--channel: songs is a folder: --stereo says what becomes",
        ),
        (("songs", "--force"), "--force: songs is a folder: its codes are added to, never written over"),
        (("songs", "-o", "a.codes"), "--output: a.codes: .codes is the name of a file"),
        (("songs", "-o", "a.Safetensors"), "--output: a.Safetensors: .Safetensors is the name of a file"),
        (("songs", "-o", "a.wav"), "--output: a.wav: .wav is the name of a file"),
        (("songs", "-m", "demo-latents"), "an autoencoder, which makes latents"),
        (("songs", "--codebooks", "99"), "codebooks"),
        (("nowhere",), "nowhere: cannot be opened"),
    ],
)
def test_options_of_a_file_and_of_a_folder_are_told_apart(songs, arguments, sentence):
    result = call("encode", *arguments, code=1)
    assert sentence in result.stderr and result.stderr.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["songs"]


def test_decode_gives_the_sound_of_the_library(tmp_path, codes):
    call("decode", codes, "-o", tmp_path / "a.flac", "--codec", CODEC, "--no-normalize")
    made = Audio.load(tmp_path / "a.flac")
    expected = codecs.load(CODEC).decode(Codes.load(codes))
    assert made.samples.shape == expected.samples.shape == (1, 28_800)
    np.testing.assert_allclose(made.samples, expected.samples.clip(-1, 1 - 2**-15), atol=0.6 / 2**15)
    recipe = Recipe.read(tmp_path / "a.flac")
    assert recipe.inputs == {"codes": hash_file(codes)}
    assert recipe.model.startswith("encodec-24khz@")


def test_decode_takes_what_every_command_takes_that_makes_sound(tmp_path, codes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = codecs.load(CODEC).decode(Codes.load(codes))
    loud = made.peak
    call("decode", codes, "-o", "as.wav", "--codec", CODEC, "--subtype", "float", "--gain", "40")
    kept = Audio.load("as.wav")  # beyond full scale but for the one gain that keeps it below
    assert kept.samples.shape == made.samples.shape
    np.testing.assert_allclose(kept.samples, made.samples * (kept.peak / loud), atol=1e-6)
    assert kept.peak == pytest.approx(10 ** (-0.05 / 20), abs=1e-6)
    call("decode", codes, "-o", "b.opus", "--codec", CODEC, "--fade", "0.1:0.2", "--channels", "2")
    call("decode", codes, "-o", "c.aiff", "--codec", CODEC, "--sample-rate", "16000")
    call("decode", codes, "-o", "d.wav", "--codec", CODEC, "--loudness", "-30")
    rates = [(probe(name).sample_rate, probe(name).channels) for name in ("b.opus", "c.aiff", "d.wav")]
    assert rates == [(24_000, 2), (16_000, 1), (24_000, 1)]
    assert abs(float(Audio.load("b.opus").samples[:, 0].max())) < 0.02
    call("decode", codes, "-o", "f.wav", "--codec", CODEC, "--subtype", "float", "--gain", "-6")
    np.testing.assert_allclose(Audio.load("f.wav").samples, made.samples * 10 ** (-6 / 20), atol=1e-6)
    refused = call("decode", codes, "-o", "e.ogg", "--codec", CODEC, "--subtype", "24", code=1)
    assert "is not stored as 24" in refused.stderr and not Path("e.ogg").exists()


def test_names_are_found_where_none_is_given(tmp_path, sound, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [call("encode", "in.wav").stdout, call("encode", "in.wav").stdout] == [
        "in.codes\n",
        "in-2.codes\n",
    ]
    assert call("decode", "in.codes").stdout == "in-2.wav\n"


def test_replay_makes_again_what_core_made(tmp_path, sound, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("compose", "-o", "music", "--minutes", "0.05", "--piece-seconds", "3", "--seed", "4")
    piece = tmp_path / "music" / "piece-00000.wav"
    assert call("replay", piece).stdout == "piece-00000-again.wav\n"
    assert (tmp_path / "piece-00000-again.wav").read_bytes() == piece.read_bytes()
    call("encode", "in.wav")
    call("decode", "in.codes", "-o", "out.wav", "--gain", "-3", "--fade", "0.2", "--subtype", "24")
    assert "--use" in call("replay", "out.wav", "-o", "again.wav", code=1).stderr
    assert "its hash is another" in call("replay", "out.wav", "--use", "codes=in.wav", code=1).stderr
    call("replay", "out.wav", "-o", "again.wav", "--use", "codes=in.codes")
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_replay_composes_no_longer_than_the_file_is(tmp_path, sound):
    """A recipe may say anything."""
    facts = {
        "package": "audiogen-core",
        "version": "0.1.0",
        "model": "compose",
        "revision": "1",
        "inputs": {},
    }
    for settings, says in (
        ({"seconds": 1e7, "style": "piano"}, "which this file is not"),
        ({"seconds": "x", "style": "piano"}, "the recipe is damaged"),
        ({}, "the recipe is damaged"),
    ):
        odd = tmp_path / "odd.wav"
        Audio.load(sound).save(odd, recipe=Recipe(**facts, seed=1, settings=settings), force=True)
        assert says in call("replay", odd, "-o", tmp_path / "again.wav", code=1).stderr
    assert not (tmp_path / "again.wav").exists()


def test_verify_and_models(tmp_path, sound, codes):
    assert json.loads(call("verify", "demo", "--json").stdout)["codebooks"] == 8
    assert json.loads(call("verify", codes, "--json").stdout)["kind"] == "codes"
    damaged = tmp_path / "codec"
    damaged.mkdir()
    for path in FIXTURES.glob("24k/*"):
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-50])
    assert call("verify", damaged, code=1).stderr.startswith(f"error: {damaged}")
    rows = json.loads(call("models", "--json").stdout)
    assert {("demo", "musicgen"), ("demo", "codec")} <= {(row["name"], row["job"]) for row in rows}


def test_a_sound_is_no_file_of_codes(tmp_path, sound):
    assert "`encode` makes codes of sounds" in call("decode", sound, "-o", tmp_path / "x.wav", code=1).stderr


def test_long_files_are_worked_off_in_blocks(tmp_path):
    seen = []
    path = tone(25.3, sample_rate=24_000).save(tmp_path / "in.wav")
    codec = codecs.load(CODEC)
    made = coding.encode_file(path, codec, on_step=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(made.values, codec.encode(Audio.load(path)).values)
    assert len(seen) == 3
    assert seen[-1] == (pytest.approx(25.3), pytest.approx(25.3))
    seen.clear()
    saved = coding.decode_file(
        made, codec, tmp_path / "out.wav", on_step=lambda done, total: seen.append((done, total))
    )
    assert saved.seconds == Audio.load(tmp_path / "out.wav").duration == pytest.approx(25.3)
    assert len(seen) > 1


def test_codes_of_unknown_length_are_decoded_whole(tmp_path, codes):
    read = Codes.load(codes)
    endless = Codes(read.values, read.codebook_size, read.frame_rate, read.codec)
    saved = coding.decode_file(endless, codecs.load(CODEC), tmp_path / "a.wav")
    assert saved.seconds == read.frames / 75


def test_nothing_is_written_over(tmp_path, sound, codes):
    before = codes.read_bytes()
    for line in (
        ("encode", sound, "-o", codes, "--codec", CODEC),
        ("decode", codes, "-o", sound, "--codec", CODEC),
        ("plot", sound, "-o", tmp_path),
    ):
        result = call(*line, code=1)
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert codes.read_bytes() == before
    call("encode", sound, "-o", codes, "--codec", CODEC, "--codebooks", "1", "--force")
    assert Codes.load(codes).codebooks == 1


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("encode none.wav -o a.codes", "none.wav: cannot be opened"),
        ("encode in.codes -o a.codes", "not an audio file"),
        ("encode in.wav -o a.codes --codec nope", "unknown model 'nope'"),
        ("encode in.wav -o a.codes --codec encodec-24khz --offline", "not completely in the cache"),
        ("encode in.wav -o a.codes --codec CODEC --codebooks 9", "asked for 9"),
        ("encode in.wav -o a.codes --codec CODEC --ops abacus", "unknown ops 'abacus'"),
        ("encode in.wav -o none/a.codes --codec CODEC", "does not exist"),
        ("decode in.codes -o a.wav", "give its path with --codec"),
        ("decode in.codes -o a.xyz --codec CODEC", r"cannot write .xyz"),
        ("decode in.wav -o a.wav --codec CODEC", "not a file of codes"),
        ("decode in.codes -o a.wav --codec OTHER", "the codes were made by"),
        ("info none.wav", "cannot be opened"),
        ("info nope", "unknown model 'nope'"),
        ("info empty", "no weights in this folder"),
        ("plot in.wav -o a.jpg", "written as .png"),
        ("compose -o new --minutes 0 --seed 1", "--minutes must be more than 0"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, codes, line, match):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    names = {"CODEC": CODEC, "OTHER": str(FIXTURES / "32k")}
    before = sorted(path.name for path in tmp_path.iterdir())
    result = call(*(names.get(word, word) for word in line.split()), code=1)
    assert result.stdout == ""
    assert match in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("hub", "new")) == before


def test_a_folder_of_takes_is_checked_and_told_of(songs):
    (songs / "hole.wav").write_bytes((songs / "a.wav").read_bytes())
    Audio(np.zeros((1, 72_000), np.float32), 24_000).save(songs / "hole.wav", force=True)
    rows = json.loads(call("check", songs, "--json", code=1).stdout)
    faulty = [Path(row["path"]).name for row in rows if any(e["kind"] == "silence" for e in row["faults"])]
    assert len(rows) == 3 and faulty == ["hole.wav"]
    (songs / "cut.wav").write_bytes(b"RIFF")
    told = {
        Path(row["path"]).name: row.get("error")
        for row in json.loads(call("check", songs, "--json", code=1).stdout)
    }
    assert len(told) == 4 and [name for name in told if told[name]] == ["cut.wav"]
    assert call("check", songs, code=1).stdout.count("\n") == 4
    (songs / "cut.wav").unlink()
    facts = json.loads(call("info", songs, "--json").stdout)
    assert facts["kind"] == "audio" and facts["clips"] == 3 and facts["seconds"] == pytest.approx(5.7)
    Path("bare").mkdir()
    assert "no audio files" in call("check", "bare", code=1).stderr


# -- info --------------------------------------------------------------------------------------------


def test_info_of_audio(tmp_path):
    audio = Audio(np.tile(np.array([[0.5, -0.5]], np.float32), (2, 12_000)), 48_000)
    recipe = Recipe("audiogen-core", "0.1.0", "demo", seed=3, settings={"prompt": "x"})
    path = audio.save(tmp_path / "a.flac", recipe=recipe)
    found = json.loads(call("info", path, "--json").stdout)
    assert found["kind"] == "audio"
    assert (found["format"], found["subtype"], found["sample_rate"], found["channels"]) == (
        "FLAC",
        "PCM_16",
        48_000,
        2,
    )
    assert found["seconds"] == 0.5
    assert found["peak_dbfs"] == found["rms_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert found["recipe"]["synthetic"] is True
    assert found["recipe"]["settings"] == {"prompt": "x"}
    assert "sample_rate            48000" in call("info", path).stdout


def test_info_of_silence_and_full_scale(tmp_path):
    quiet = Audio(np.zeros((1, 100), np.float32), 8_000).save(tmp_path / "a.wav")
    assert json.loads(call("info", quiet, "--json").stdout)["rms_dbfs"] is None
    loud = Audio(np.ones((1, 100), np.float32), 8_000).save(tmp_path / "b.wav", subtype="FLOAT")
    assert json.loads(call("info", loud, "--json").stdout)["samples_at_full_scale"] == 100


def test_info_of_codes_and_latents(tmp_path, codes):
    found = json.loads(call("info", codes, "--json").stdout)
    assert found["kind"] == "codes"
    assert (found["codebooks"], found["codebook_size"], found["frame_rate"]) == (8, 64, 75)
    assert found["bits_per_second"] == 8 * 6 * 75
    Latents(np.zeros((4, 10), np.float32), 20.0, "made-up").save(tmp_path / "latents")
    found = json.loads(call("info", tmp_path / "latents", "--json").stdout)
    assert (found["kind"], found["channels"], found["seconds"]) == ("latents", 4, 0.5)


@pytest.mark.parametrize("name", ["24k", "24k/model.safetensors", "24k/original_encodec_state_dict.th"])
def test_info_of_codecs(name):
    found = json.loads(call("info", FIXTURES / name, "--json").stdout)
    assert found["kind"] == "codec"
    assert (found["sample_rate"], found["hop_length"], found["codebooks"]) == (24_000, 320, 8)
    assert found["parameters"] == sum(found["parameters_by_dtype"].values()) > 10_000


def test_info_of_other_checkpoints(tmp_path):
    import torch
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((2, 3), np.float16)}, tmp_path / "a.safetensors", metadata={"made": "by me"})
    found = json.loads(call("info", tmp_path / "a.safetensors", "--json").stdout)
    assert found["kind"] == "checkpoint"
    assert found["parameters_by_dtype"] == {"float16": 6}
    assert found["metadata"] == {"made": "by me"}
    torch.save({"state_dict": {"w": torch.zeros(5)}, "step": 7, "name": "x"}, tmp_path / "b.pth")
    found = json.loads(call("info", tmp_path / "b.pth", "--json").stdout)
    assert (found["tensors"], found["parameters"]) == (1, 5)
    assert found["settings"] == {"step": 7, "name": "x"}


def test_info_of_a_checkpoint_without_tensors_is_an_error(tmp_path):
    import torch
    from safetensors.numpy import save_file

    torch.save({"step": 7, "name": "x"}, tmp_path / "a.pth")
    save_file({}, tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "b.safetensors"):
        assert call("info", path, code=1).stderr == f"error: {path}: holds no tensors\n"


def test_info_never_fetches(tmp_path):
    import torch

    pointer = {"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1"}
    torch.save(pointer, tmp_path / "compression_state_dict.bin")
    found = json.loads(call("info", tmp_path / "compression_state_dict.bin", "--json").stdout)
    assert found["settings"]["pretrained"] == "facebook/encodec_32khz"
    assert json.loads(call("info", "encodec-32khz", "--json").stdout)["cached"] is False


# -- the rest ----------------------------------------------------------------------------------------


def test_the_list_of_codecs():
    rows = json.loads(call("codecs", "--json").stdout)
    assert [row["name"] for row in rows] == [codecs.DEMO, *CATALOG]
    assert all(row["license"] and row["frame_rate"] > 0 for row in rows)
    assert {row["name"]: row["cached"] for row in rows} == {"demo": True} | dict.fromkeys(CATALOG, False)
    assert "encodec-24khz" in call("codecs").stdout


def test_the_facts_of_the_demo_codec_are_its_own():
    assert codecs.load("demo").info == describe.FACTS["demo"]


@pytest.mark.parametrize("kind", ["waveform", "spectrogram", "both"])
def test_plot_of_a_sound(tmp_path, sound, kind):
    assert call("plot", sound, "-o", tmp_path / "a.png", "--kind", kind).stdout == f"{tmp_path / 'a.png'}\n"
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_plot_of_codes(tmp_path, codes):
    found = json.loads(call("plot", codes, "-o", tmp_path / "a.png", "--json").stdout)
    assert found == {"path": str(tmp_path / "a.png")}
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_compose(tmp_path):
    line = ("compose", "-o", tmp_path / "music", "--minutes", "0.1", "--piece-seconds", "3", "--seed", "4")
    found = json.loads(call(*line, "--json").stdout)
    assert (found["pieces"], found["seed"]) == (2, 4)
    first = sorted((tmp_path / "music").glob("*.wav"))[0]
    assert Audio.load(first).duration == pytest.approx(3)
    assert Recipe.read(first).model == "compose"
    call(*line, code=1)
    call(*line, "--force")


def test_compose_tells_its_seed_after_its_mistakes(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "mine.txt").touch()
    told = call("compose", "-o", tmp_path / "music", code=1).stderr
    assert "use --force" in told and "seed:" not in told


def test_doctor():
    found = json.loads(call("doctor", "--json").stdout)
    assert found["python"].startswith("3.")
    assert found["packages"]["numpy"] == np.__version__
    assert set(found["optional"]) == {"av", "fastapi", "matplotlib", "ray", "sounddevice", "torch"}
    assert "numpy" in found["devices"]
    assert found["cache"]["bytes"] == 0
    assert "libsndfile" in call("doctor").stdout


def test_doctor_names_problems(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "soxr" else "1.0")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(doctor, "_free", lambda folder: 10**6)
    text = " ".join(doctor.problems())
    assert "soxr is not installed" in text
    assert "cannot be written to" in text
    assert "less than 1 GB" in text


def test_help_needs_no_heavy_imports():
    heavy = [
        "numpy",
        "soundfile",
        "soxr",
        "torch",
        "matplotlib",
        "huggingface_hub",
        "safetensors",
        "rich",
        "yaml",
    ]
    code = (
        "import sys\n"
        "from audiogen_core.main import main\n"
        "sys.argv = ['audiogen-core', 'encode', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--codebooks" in done.stdout
    assert done.stderr.strip() == "[]"


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "audiogen_core", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("audiogen-core ")
