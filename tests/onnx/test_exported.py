"""An exported folder from the command line: made, run, timed; and damaged in every way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.errors import ManifestError
from audiogen_onnx.bench import compared, measure, torch_vampnet
from audiogen_onnx.cli import cli
from audiogen_onnx.vampnet.generate import Vampnet
from support.commands import call
from support.exported import exported, exported_copy
from support.vampnet_numpy import FIXTURES

FAST = ("--steps", 2, "--seed", 1, "--threads", 1)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    music = compose(3, seconds=0.3).audio.resample(16_000).mix(2)
    music.save(tmp_path / "in.wav")
    monkeypatch.chdir(tmp_path)
    return music


def test_vamp_runs_on_the_folder_and_replays(clip, tmp_path):
    done = call(cli, "vamp", "in.wav", "-m", exported(), "-o", "out.wav", *FAST)
    assert done.exit_code == 0, done.stderr
    assert Audio.load("out.wav").samples.shape == clip.samples.shape
    again = call(cli, "replay", "out.wav", "-o", "again.wav", "--threads", 1)
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_replay_refuses_another_model(clip, tmp_path):
    call(cli, "vamp", "in.wav", "-m", exported(), "-o", "out.wav", *FAST)
    other = exported_copy(tmp_path)
    facts = json.loads((other / "manifest.json").read_text())
    facts["created_from"] = {"codec.pth": "0" * 64}
    (other / "manifest.json").write_text(json.dumps(facts))
    refused = call(cli, "replay", "out.wav", "-o", "again.wav", "-m", other, "--threads", 1)
    assert refused.exit_code == 1 and "revision" in refused.stderr


def test_a_10_ms_clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Audio(np.full((1, 160), 0.1, np.float32), 16_000).save("in.wav")
    done = call(cli, "vamp", "in.wav", "-m", exported(), "-o", "out.wav", *FAST)
    assert done.exit_code == 0, done.stderr
    assert Audio.load("out.wav").samples.shape == (1, 160)


def test_networks_give_the_logits_of_the_original():
    vampnet = Vampnet.load(exported(), threads=1)
    arrays = np.load(FIXTURES / "small_transformer.npz")
    for name, net in (("coarse", vampnet.coarse), ("c2f", vampnet.fine)):
        codes = arrays[f"{name}_T7_codes"]
        flat = net.logits(codes).transpose(0, 3, 2, 1).reshape(len(codes), net.codebook_size, -1)
        assert np.abs(flat - arrays[f"{name}_T7_logits"]).max() < 1e-4
        assert np.abs(net.logits(codes[0]) - net.logits(codes)[0]).max() < 1e-5


def test_bench_times_every_stage_here_and_in_torch():
    vampnet = Vampnet.load(exported(), threads=1)
    ours = measure(vampnet, 0.05, 1)
    theirs = measure(torch_vampnet(FIXTURES / "small", vampnet), 0.05, 1)
    rows = compared(ours, theirs)
    assert [row["stage"] for row in rows] == [
        "encode", "decode", "coarse_step", "fine_step", "vamp", "loop",
    ]  # fmt: skip
    assert all(row["onnxruntime"] >= 0 and row["torch"] >= 0 for row in rows)


def test_torch_and_onnxruntime_make_the_same_codes():
    vampnet = Vampnet.load(exported(), threads=1)
    peer = torch_vampnet(FIXTURES / "small", vampnet)
    codes = np.random.default_rng(2).integers(0, 48, (5, 60))
    mask = np.ones((5, 60), bool)
    mask[:2, ::6] = False
    asked = {"seed": 3, "steps": 4, "window_seconds": 0.02, "fine_window_seconds": 0.01}
    assert np.array_equal(vampnet.vamp_codes(codes, mask, **asked), peer.vamp_codes(codes, mask, **asked))


def cut(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


def changed(folder, name):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut, "coarse.onnx"),
        (cut, "fine.onnx.data"),
        (cut, "manifest.json"),
        (lambda folder, name: (folder / name).unlink(), "decoder.onnx"),
        (lambda folder, name: (folder / name).unlink(), "manifest.json"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(clip, tmp_path, damage, name):
    folder = exported_copy(tmp_path)
    damage(folder, name)
    done = call(cli, "vamp", "in.wav", "-m", folder, "-o", "out.wav", *FAST)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert name in done.stderr
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("name", ["coarse.onnx.data", "encoder.onnx", "decoder.onnx.data"])
def test_a_changed_byte_is_found_when_asked(tmp_path, name):
    folder = exported_copy(tmp_path)
    changed(folder, name)
    with pytest.raises(ManifestError, match=name):
        Vampnet.load(folder, verify=True)


def test_checkpoints_are_no_exported_folder(clip):
    done = call(cli, "vamp", "in.wav", "-m", FIXTURES / "small", "-o", "out.wav", *FAST)
    assert done.exit_code == 1 and "audiogen-onnx export" in done.stderr


@pytest.mark.parametrize("model", ["vampnett", "some/where", "nowhere/at/all"])
def test_an_unknown_model(clip, model):
    done = call(cli, "vamp", "in.wav", "-m", model, "-o", "out.wav", *FAST)
    assert done.exit_code == 1 and "unknown model" in done.stderr


def test_export_from_the_command_line_refuses_to_write_over(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    done = call(cli, "export", FIXTURES / "small", "-o", tmp_path / "there")
    assert done.exit_code == 1 and "not an empty folder" in done.stderr
    lacking = call(cli, "export", tmp_path, "-o", tmp_path / "new")
    assert lacking.exit_code == 1 and "codec.pth" in lacking.stderr
    assert not (tmp_path / "new").exists()


def test_verify_says_what_is_there_and_names_what_was_changed(tmp_path):
    folder = exported_copy(tmp_path)
    done = call(cli, "verify", folder, "--json")
    assert done.exit_code == 0, done.stderr
    assert {row["graph"] for row in json.loads(done.stdout)} >= {"encoder", "decoder", "coarse", "fine"}
    changed(folder, "fine.onnx.data")
    found = call(cli, "verify", folder)
    assert found.exit_code == 1 and "fine.onnx.data" in found.stderr


def test_quantize_and_verify_against_the_float32_folder(tmp_path):
    small = tmp_path / "int8"
    done = call(cli, "quantize", exported(), "-o", small, "--dtype", "int8", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["dtype"] == "int8"
    compared_with = call(cli, "verify", small, "--against", exported(), "--json")
    assert compared_with.exit_code == 0, compared_with.stderr
    rows = {row["graph"]: row for row in json.loads(compared_with.stdout)}
    assert rows["encoder"]["top1"] == 1.0
    assert 0 < rows["coarse"]["relative_error"] < 0.3
    wrong = call(cli, "quantize", exported(), "-o", tmp_path / "x", "--dtype", "int3")
    assert wrong.exit_code == 1 and "int3" in wrong.stderr and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("c2f.pth", "coarse.pth"),
        ("coarse.pth", "c2f.pth"),
        ("codec.pth", "coarse.pth"),
        ("coarse.pth", "codec.pth"),
    ],
)
def test_a_checkpoint_in_anothers_place(tmp_path, place, file):
    folder = tmp_path / "checkpoints"
    shutil.copytree(FIXTURES / "small", folder)
    shutil.copy(FIXTURES / "small" / file, folder / place)
    done = call(cli, "export", folder, "-o", tmp_path / "new", "--no-check")
    assert done.exit_code == 1
    assert place in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
