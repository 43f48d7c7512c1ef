"""MusicGen for hours: neither many generations in one process nor a long one by windows take more memory.

In mlx and in onnxruntime, each in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_onnx.exporter.musicgen.export import export_musicgen
from support.figures import tell

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")

START = """
import json, sys
from importlib import import_module
from pathlib import Path
from audiogen_core.sampling import Sampling
MusicGen = import_module(sys.argv[3]).MusicGen

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

model = MusicGen.load(sys.argv[1])
"""

MANY = (
    START
    + """
found = []
for seed in range(int(sys.argv[2])):
    model.generate(f"piece {seed} for piano", seconds=0.5 + seed % 5 / 5, sampling=Sampling(seed=seed))
    found.append(resident())
print(json.dumps(found))
"""
)

LONG = (
    START
    + """
found = []
def on_step(done, total):
    found.append((done / total, resident()))
samples = 0
for piece in model.stream("rain", seconds=float(sys.argv[2]), sampling=Sampling(seed=1), on_step=on_step):
    samples += piece.samples.shape[1]  # what is made is not kept
print(json.dumps([samples, found[:: max(1, len(found) // 2000)]]))
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model with its tokenizer, as a repository on the hub has them."""
    made = tmp_path_factory.mktemp("model") / "musicgen"
    shutil.copytree(FIXTURES / "musicgen-mono", made)
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"):
        shutil.copy(FIXTURES / "tokenizer" / name, made / name)
    return made


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory) -> Path:
    """The same for onnxruntime."""
    made = tmp_path_factory.mktemp("exported") / "musicgen"
    export_musicgen(folder, made, check=False)
    return made


def run(job: str, *arguments: object):
    command = [sys.executable, "-c", job, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_many(folder: Path, count: int, package: str) -> None:
    found = np.array(run(MANY, folder, count, package), float)
    settled = found[count // 4 :]  # the first ones fill caches and compile
    growth = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    first, last = found[0] / 1e6, found[-1] / 1e6
    assert settled[-len(settled) // 4 :].mean() < 1.02 * settled[: len(settled) // 4].mean()
    assert growth < 2e6 / count  # bytes for each
    tell(
        "memory",
        f"generations of a small MusicGen in one process, {package}",
        count,
        f"{first:.1f} MB, then {last:.1f} MB: {growth / 1e3:.1f} kB each",
        promised="no growth: below 2 MB in all",
    )


def test_forty_generations(folder):
    check_many(folder, 40, "audiogen_mlx")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_generations(folder):
    check_many(folder, 200, "audiogen_mlx")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_generations_in_onnxruntime(exported):
    check_many(exported, 200, "audiogen_onnx")


def check_long(folder: Path, seconds: float, package: str) -> None:
    samples, found = run(LONG, folder, seconds, package)
    assert samples == round(seconds * 32_000)
    done, resident = np.array(found, float).T
    settled = resident[done * seconds >= 48.0]  # from the end of the second window
    second, most = settled[0] / 1e6, settled.max() / 1e6
    assert len(settled) > 10
    assert settled.max() < 1.05 * settled[0]
    tell(
        "memory",
        f"seconds of one clip by windows, small MusicGen, {package}",
        round(seconds),
        f"{second:.1f} MB after the second window, at most {most:.1f} MB; exact length",
        promised="flat within 5 %",
    )


@pytest.mark.slow
def test_a_minute_and_a_half_by_windows(folder):
    check_long(folder, 90.0, "audiogen_mlx")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_five_minutes_by_windows(folder):
    check_long(folder, 300.0, "audiogen_mlx")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_minutes_by_windows_in_onnxruntime(exported):
    check_long(exported, 600.0, "audiogen_onnx")
