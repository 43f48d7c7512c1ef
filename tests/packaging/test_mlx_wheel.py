"""The wheel of audiogen-mlx in a bare environment: with core, and nothing of torch."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PACKAGES = ("audiogen-core", "audiogen-mlx")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="mlx has no wheels for this system"),
]

JOB = """
import json, sys
import audiogen_mlx
from audiogen_mlx import blas
from audiogen_mlx.ops import MlxOps
from audiogen_mlx.tokenizer import Tokenizer
from audiogen_core import codecs
import numpy as np

musicgen, encodec = sys.argv[1:]
ids, mask = Tokenizer.load(musicgen).encode(["80s pop track with bassy drums and synth"])
stored = np.load(encodec + "/io.npz")
codec = codecs.load(encodec, MlxOps())
codes = stored["codes_bw1.2"][0, 0]
sound = np.concatenate(list(codec.decode_blocks([codes])), axis=1)
gap = float(np.abs(sound - stored["audio_bw1.2"][0]).max())
loaded = [m for m in ("torch", "transformers", "onnxruntime", "matplotlib") if m in sys.modules]
print(json.dumps([len(ids[0]), gap, loaded, blas.describe()["source"]]))
"""


def run(*command: object, **settings: object) -> str:
    """What a command prints, without this environment's settings of Python and of the BLAS."""
    hidden = ("PYTHONPATH", "AUDIOGEN_MLX_BLAS", "LD_PRELOAD")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uv() -> str:
    found = shutil.which("uv")
    assert found, "uv is needed to build the packages"
    return found


@pytest.fixture(scope="module")
def wheels(uv, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        run(uv, "build", "--package", package, "--no-sources", "--wheel", "--out-dir", out, cwd=ROOT)
    return {package: next(out.glob(f"{package.replace('-', '_')}-*.whl")) for package in PACKAGES}


@pytest.fixture(scope="module")
def python(uv, wheels, tmp_path_factory) -> Path:
    """A new environment with the two wheels and what they need; its Python."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    run(uv, "venv", "--python", sys.executable, place)
    python = place / "bin" / "python"
    run(uv, "pip", "install", "--python", python, *wheels.values())
    return python


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_what_the_wheel_says_and_holds(wheels):
    with zipfile.ZipFile(wheels["audiogen-mlx"]) as archive:
        names = archive.namelist()
        described = email.message_from_bytes(
            archive.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
        )
    assert described["Version"] == version()
    assert len(described.get_payload()) > 500, "the README is missing"
    assert "audiogen_mlx/py.typed" in names
    needs = described.get_all("Requires-Dist") or []
    major, minor, _ = version().split(".")
    (core,) = [need for need in needs if need.startswith("audiogen-core")]
    assert f">={major}.{minor}" in core
    assert f"<{major}.{int(minor) + 1}" in core
    assert not [need for need in needs if need.startswith(("torch", "transformers"))]


def test_it_works_without_torch(python, tmp_path):
    found = json.loads(
        run(
            python, "-c", JOB, FIXTURES / "musicgen" / "tokenizer", FIXTURES / "encodec" / "32k", cwd=tmp_path
        )
    )
    tokens, gap, loaded, _ = found
    assert tokens == 19
    assert gap < 1e-4
    assert loaded == []


def test_the_command_answers(python, tmp_path):
    command = python.with_name("audiogen-mlx")
    assert version() in run(command, "--version", cwd=tmp_path)
    assert "MusicGen" in run(command, "--help", cwd=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only mlx on Linux CPUs needs another BLAS")
def test_the_extra_brings_the_fast_blas(uv, wheels, python, tmp_path):
    code = "from audiogen_mlx import blas; print(blas.use().source, blas.use().hint)"
    before = run(python, "-c", code, cwd=tmp_path).strip()
    assert before.startswith(("system", "wheel"))
    if before.startswith("wheel"):
        assert 'pip install "audiogen-mlx[blas]"' in before
    run(uv, "pip", "install", "--python", python, f"{wheels['audiogen-mlx']}[blas]")
    after = run(python, "-c", code, cwd=tmp_path).strip()
    assert after == ("extra" if before.startswith("wheel") else before)
