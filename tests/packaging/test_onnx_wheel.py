"""The wheel of audiogen-onnx with core's, alone in a bare environment: no torch, no onnx, and it vamps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from audiogen_core.compose import compose
from support.exported import exported

ROOT = Path(__file__).parents[2]
PACKAGES = ("audiogen-core", "audiogen-onnx")
FORBIDDEN = ("torch", "onnx", "onnxscript", "transformers", "mlx", "scipy", "librosa", "matplotlib")

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


def run(*command: object, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    out = tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        run("uv", "build", "--package", package, "--no-sources", "--wheel", "--out-dir", out)
    return [next(out.glob(f"{package.replace('-', '_')}-*.whl")) for package in PACKAGES]


def test_what_the_wheel_holds(wheels):
    with zipfile.ZipFile(wheels[1]) as archive:
        names = archive.namelist()
        (about,) = [name for name in names if name.endswith("METADATA")]
        metadata = archive.read(about).decode()
    assert "audiogen_onnx/py.typed" in names
    assert not [name for name in names if "test" in name]
    always = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert sorted(line.split()[1].split(">")[0].split("<")[0] for line in always) == [
        "audiogen-core", "onnxruntime",
    ]  # fmt: skip
    assert len(metadata.split("\n\n", 1)[1]) > 500, "the README is missing"


def test_it_vamps_alone(wheels, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    run("uv", "venv", "--python", sys.executable, tmp_path / "venv")
    run("uv", "pip", "install", "--python", python, *wheels)
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
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"audiogen-onnx installed with all it needs: {size / 1e6:.1f} MB")


def test_without_the_extra_an_export_names_the_install_line(wheels, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    run("uv", "venv", "--python", sys.executable, tmp_path / "venv")
    run("uv", "pip", "install", "--python", python, *wheels)
    done = subprocess.run(
        [python.with_name("audiogen-onnx"), "export", tmp_path, "-o", tmp_path / "new"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "audiogen-onnx[export]" in done.stderr and done.stderr.count("\n") == 1
