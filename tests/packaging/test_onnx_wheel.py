"""The wheel of audiogen-onnx with core's, alone in a bare environment: no torch, no onnx, and it vamps."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.musicgen.files import Files, Places
from audiogen_onnx.exporter.musicgen.export import export_musicgen
from support.exported import exported
from support.wheels import bare, installed_bytes, metadata, run, wheel

PACKAGES = ("audiogen-core", "audiogen-onnx")
FORBIDDEN = ("torch", "onnx", "onnxscript", "transformers", "mlx", "scipy", "librosa", "matplotlib", "PIL")

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

JOB = f"""
import json, sys
from importlib.util import find_spec
import audiogen_onnx
from audiogen_core import Audio
vampnet = audiogen_onnx.Vampnet.load(sys.argv[1], threads=1, verify=True)
made = vampnet.vamp(Audio.load("in.wav"), seed=1, steps=2, loop=True)
made.save("made.wav")
there = [name for name in {FORBIDDEN!r} if find_spec(name) is not None or name in sys.modules]
print(json.dumps([audiogen_onnx.__version__, list(made.samples.shape), there]))
"""


def test_what_it_always_needs():
    always = [
        need for need in metadata(wheel("audiogen-onnx")).get_all("Requires-Dist") if "extra" not in need
    ]
    assert sorted(need.split(">")[0].split("<")[0] for need in always) == [
        "audiogen-core",
        "onnxruntime",
        "tokenizers",
    ]


def test_the_wheel_with_its_model_is_small():
    assert wheel("audiogen-onnx").stat().st_size < 15e6


def test_the_model_that_comes_with_it_vamps_without_a_network(tmp_path):
    python = bare(tmp_path / "venv", *PACKAGES)
    core, command = python.with_name("audiogen-core"), python.with_name("audiogen-onnx")
    run(core, "compose", "-o", "music", "--minutes", 0.07, "--piece-seconds", 4, "--seed", 1, cwd=tmp_path)
    clip = next((tmp_path / "music").glob("*.wav"))
    asked = ("-m", "demo", "--offline", "--seed", 1, "--threads", 1)
    assert run(command, "vamp", clip, *asked, "-o", "out.wav", cwd=tmp_path).strip() == "out.wav"
    run(command, "vamp", clip, *asked, "-o", "infill.wav", "--infill", "1:2", cwd=tmp_path)
    run(command, "replay", "out.wav", "-o", "again.wav", "--threads", 1, "--offline", cwd=tmp_path)
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_it_makes_music_alone(tmp_path):
    """From the demo and from an exported folder; neither torch nor onnx is there."""
    model = Path(__file__).parents[1] / "fixtures" / "musicgen"
    places = Places(tokenizer=model / "tokenizer")
    export_musicgen(Files.find({}, str(model / "musicgen-mono"), places), tmp_path / "tiny")
    python = bare(tmp_path / "venv", *PACKAGES)
    command = python.with_name("audiogen-onnx")
    for number, model in enumerate(("demo", tmp_path / "tiny")):
        asked = ("slow piano", "-m", model, "--seconds", 1, "--seed", 1, "--offline")
        run(command, "musicgen", *asked, "-o", f"{number}.wav", cwd=tmp_path)
        made = Audio.load(tmp_path / f"{number}.wav")
        assert made.duration == 1.0 and made.samples.any()
    absent = (
        f"from importlib.util import find_spec; print([name for name in {FORBIDDEN!r} if find_spec(name)])"
    )
    assert run(python, "-c", absent, cwd=tmp_path).strip() == "[]"
    print(f"\nwheel {wheel('audiogen-onnx').stat().st_size / 1e6:.1f} MB")


def test_it_vamps_alone(tmp_path):
    python = bare(tmp_path / "venv", *PACKAGES)
    model = shutil.copytree(exported(), tmp_path / "model")
    compose(3, seconds=0.3).audio.resample(22_050).mix(2).save(tmp_path / "in.wav")
    version, shape, there = json.loads(run(python, "-c", JOB, model, cwd=tmp_path))
    assert there == []
    assert shape == [2, round(shape[1])] and shape[1] > 4000
    command = python.with_name("audiogen-onnx")
    assert version in run(command, "--version", cwd=tmp_path)
    assert "vamp" in run(command, "--help", cwd=tmp_path)
    asked = ("-m", model, "-o", "out.wav", "--seed", 1, "--steps", 2, "--threads", 1, "--onset-width", 1)
    assert run(command, "vamp", "in.wav", *asked, cwd=tmp_path).strip() == "out.wav"
    run(command, "replay", "out.wav", "-o", "again.wav", "--threads", 1, cwd=tmp_path)
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()
    print(f"audiogen-onnx installed with all it needs: {installed_bytes(tmp_path / 'venv') / 1e6:.1f} MB")


def test_without_the_extra_a_mask_in_a_picture_names_the_install_line(tmp_path):
    python = bare(tmp_path / "venv", *PACKAGES)
    compose(3, seconds=0.3).audio.save(tmp_path / "in.wav")
    done = subprocess.run(
        [
            python.with_name("audiogen-onnx"),
            "vamp",
            "in.wav",
            "-m",
            "demo",
            "-o",
            "out.wav",
            "--mask",
            "a.png",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Pillow is not installed" in done.stderr and "audiogen-onnx[plot]" in done.stderr
    assert not (tmp_path / "out.wav").exists()


def test_without_the_extra_an_export_names_the_install_line(tmp_path):
    python = bare(tmp_path / "venv", *PACKAGES)
    done = subprocess.run(
        [python.with_name("audiogen-onnx"), "export", tmp_path, "-o", tmp_path / "new"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "audiogen-onnx[export]" in done.stderr and done.stderr.count("\n") == 1
