"""Each wheel alone in a bare environment: it has what it needs, nothing else, and makes sound offline."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.wheels import bare, installed_bytes, run, version

CORE_LIMIT = 110e6  # bytes installed

OFFLINE = {"HF_HUB_OFFLINE": "1"}

pytestmark = pytest.mark.timeout(900)


def cut_off() -> list[str]:
    """What runs a command without a network, where the system lets one do that."""
    alone = ["unshare", "-rn"]
    there = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    return alone if there else []


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


def test_core_alone(tmp_path):
    python = bare(tmp_path / "venv", "audiogen-core")
    found = json.loads(run(python, "-c", CORE_JOB, cwd=tmp_path))
    assert found == [version(), 48000, []]
    command = python.with_name("audiogen-core")
    assert version() in run(command, "--version")
    assert "compose" in run(command, "--help")
    run(command, "compose", "-o", "music", "--minutes", "0.1", "--seed", "1", cwd=tmp_path)
    run(command, "encode", "music/piece-00000.wav", "-o", "c.safetensors", "--codec", "demo", cwd=tmp_path)
    run(command, "decode", "c.safetensors", "-o", "again.wav", cwd=tmp_path)
    assert (tmp_path / "again.wav").stat().st_size > 100_000
    doctor = json.loads(run(command, "doctor", "--json"))
    assert doctor["commands"]["audiogen-core encode"] == "ready"
    assert doctor["commands"]["audiogen-core plot -o"].startswith("needs matplotlib: pip install")
    assert doctor["commands"]["audiogen-mlx"].startswith("not installed")
    size = installed_bytes(tmp_path / "venv")
    print(f"core installed: {size / 1e6:.1f} MB")
    assert size < CORE_LIMIT


@pytest.mark.slow
def test_minigpt_alone(tmp_path):
    """From composed music to new music, with nothing but the two wheels and what they need."""
    python = bare(tmp_path / "venv", "audiogen-core", "audiogen-minigpt")
    core, minigpt = python.with_name("audiogen-core"), python.with_name("audiogen-minigpt")
    assert version() in run(minigpt, "--version")
    run(core, "compose", "-o", "music", "--minutes", "1", "--seed", "1", cwd=tmp_path)
    run(minigpt, "run", "music", "-o", "run", "--time", "20s", cwd=tmp_path)
    run(minigpt, "generate", "run", "-o", "new.wav", "--seconds", "2", cwd=tmp_path)
    assert (tmp_path / "new.wav").stat().st_size > 90_000
    made = (*cut_off(), minigpt, "generate", "demo", "-o", "demo.wav", "--seconds", "4", "--seed", "1")
    run(*made, cwd=tmp_path, env=OFFLINE)
    assert sound(core, tmp_path / "demo.wav") > -40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("audiogen-mlx", ["musicgen", "slow piano in C minor", "-m", "demo", "--seconds", "4"]),
        ("audiogen-mlx", ["stable-audio", "fast chiptune in A minor", "-m", "demo", "--seconds", "5"]),
        ("audiogen-onnx", ["vamp", "in.wav", "-m", "demo"]),
    ],
)
def test_a_demo_makes_sound_without_a_network(package, command, tmp_path):
    python = bare(tmp_path / "venv", "audiogen-core", package)
    core = python.with_name("audiogen-core")
    run(
        core,
        "compose",
        "-o",
        "music",
        "--minutes",
        "0.1",
        "--piece-seconds",
        "5",
        "--seed",
        "1",
        cwd=tmp_path,
    )
    shutil.copy(tmp_path / "music" / "piece-00000.wav", tmp_path / "in.wav")
    program = python.with_name(package)
    asked = (*command, "-o", "made.wav", "--seed", "1")
    run(*cut_off(), program, *asked, cwd=tmp_path, env=OFFLINE)
    assert sound(core, tmp_path / "made.wav") > -40
    run(*cut_off(), program, "replay", "made.wav", "-o", "again.wav", cwd=tmp_path, env=OFFLINE)
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "made.wav").read_bytes()
    there = run(python, "-c", "from importlib.util import find_spec; print(find_spec('torch'))")
    assert there.strip() == "None"
    print(f"{package} installed with all it needs: {installed_bytes(tmp_path / 'venv') / 1e6:.1f} MB")


def sound(core: Path, path: Path) -> float:
    """How loud a file is, dB below full scale."""
    facts = json.loads(run(core, "info", path, "--json"))
    assert facts["recipe"]["synthetic"] is True
    return float(facts["rms_dbfs"])
