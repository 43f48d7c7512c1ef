"""Each wheel, built without the workspace's sources, alone in a bare environment."""

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
PACKAGES = ["audiogen-core", "audiogen-minigpt"]
CORE_LIMIT = 110e6  # bytes installed

pytestmark = pytest.mark.timeout(900)


def run(*command: object, **settings: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def uv() -> str:
    found = shutil.which("uv")
    assert found, "uv is needed to build the packages"
    return found


@pytest.fixture(scope="session")
def wheels(uv, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        run(uv, "build", "--package", package, "--no-sources", "--wheel", "--out-dir", out, cwd=ROOT)
    return {package: next(out.glob(f"{package.replace('-', '_')}-*.whl")) for package in PACKAGES}


def bare(uv: str, place: Path, *wheels: object) -> Path:
    """A new environment with these wheels and what they need; returns its Python."""
    run(uv, "venv", "--python", sys.executable, place)
    python = place / "bin" / "python"
    run(uv, "pip", "install", "--python", python, *wheels)
    return python


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_wheel_says_and_holds(wheels, package):
    described = metadata(wheels[package])
    assert described["Version"] == version()
    assert described["License-Expression"] == "Apache-2.0"
    assert len(described.get_payload()) > 500, "the README is missing"
    with zipfile.ZipFile(wheels[package]) as archive:
        names = archive.namelist()
    assert f"{package.replace('-', '_')}/py.typed" in names
    assert not [name for name in names if "recipes" in name or "tests" in name]
    assert wheels[package].stat().st_size < 15e6


def test_siblings_are_pinned_to_the_same_minor_version(wheels):
    major, minor, _ = version().split(".")
    needed = list(metadata(wheels["audiogen-minigpt"]).get_all("Requires-Dist") or [])
    (core,) = [need for need in needed if need.startswith("audiogen-core")]
    assert f">={major}.{minor}" in core
    assert f"<{major}.{int(minor) + 1}" in core


CORE_JOB = """
import json, sys
import audiogen_core
from audiogen_core import codecs
from audiogen_core.compose import compose
piece = compose(1, seconds=2)
codec = codecs.load("demo")
again = codec.decode(codec.encode(piece.audio))
frameworks = [m for m in ("torch", "mlx", "onnxruntime", "transformers", "matplotlib") if m in sys.modules]
print(json.dumps([audiogen_core.__version__, again.samples.shape[1], frameworks]))
"""


def test_core_alone(uv, wheels, tmp_path):
    python = bare(uv, tmp_path / "venv", wheels["audiogen-core"])
    found = json.loads(run(python, "-c", CORE_JOB, cwd=tmp_path))
    assert found == [version(), 48000, []]
    command = python.with_name("audiogen-core")
    assert version() in run(command, "--version")
    assert "compose" in run(command, "--help")
    run(command, "compose", "-o", "music", "--minutes", "0.1", "--seed", "1", cwd=tmp_path)
    run(command, "encode", "music/piece-00000.wav", "-o", "c.safetensors", "--codec", "demo", cwd=tmp_path)
    run(command, "decode", "c.safetensors", "-o", "again.wav", cwd=tmp_path)
    assert (tmp_path / "again.wav").stat().st_size > 100_000
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"core installed: {size / 1e6:.1f} MB")
    assert size < CORE_LIMIT


@pytest.mark.slow
def test_minigpt_alone(uv, wheels, tmp_path):
    """From composed music to new music, with nothing but the two wheels and what they need."""
    python = bare(uv, tmp_path / "venv", wheels["audiogen-core"], wheels["audiogen-minigpt"])
    core, minigpt = python.with_name("audiogen-core"), python.with_name("audiogen-minigpt")
    assert version() in run(minigpt, "--version")
    run(core, "compose", "-o", "music", "--minutes", "1", "--seed", "1", cwd=tmp_path)
    run(minigpt, "run", "music", "-o", "run", "--time", "20s", cwd=tmp_path)
    run(minigpt, "generate", "run", "-o", "new.wav", "--seconds", "2", cwd=tmp_path)
    assert (tmp_path / "new.wav").stat().st_size > 90_000
