"""MusicGens at their published sizes, with random weights: exported, opened, and heard for a few steps.

A process of its own exports a folder in transformers' layout, and watches the memory that is its own: what
is mapped from files can be given back at any time, and is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.figures import tell
from support.published import write_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc"),
]

WATCH = """
import json, sys, threading, time
from pathlib import Path

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))

most, done = 0, threading.Event()
def watch():
    global most
    while not done.wait(0.01):
        most = max(most, own())

"""

EXPORT = (
    WATCH
    + """
from audiogen_onnx.exporter.musicgen.export import export_musicgen

before = own()
watcher = threading.Thread(target=watch)
watcher.start()
began = time.monotonic()
export_musicgen(sys.argv[1], sys.argv[2], dtype=sys.argv[3])
took = time.monotonic() - began
done.set()
watcher.join()
print(json.dumps([most - before, took]))
"""
)

MAKE = (
    WATCH
    + """
import numpy as np
from audiogen_core.audio import Audio
from audiogen_onnx import MusicGen

before = own()
watcher = threading.Thread(target=watch)
watcher.start()
model = MusicGen.load(sys.argv[1])
clip = Audio(np.sin(np.arange(32_000) / 20, dtype=np.float32)[None] / 2, 32_000)
more = {"melody": clip} if "melody" in sys.argv[1] else {}
samples = model.generate("slow piano", seconds=0.2, seed=1, **more).samples
done.set()
watcher.join()
print(json.dumps([most - before, samples.shape, float(abs(samples).max())]))
"""
)


def run(job: str, *arguments: object):
    command = [sys.executable, "-c", job, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize(
    ("name", "dtype", "channels"),
    [
        ("musicgen-stereo-small", "float32", 2),
        ("musicgen-stereo-small", "int8", 2),
        ("musicgen-melody", "int8", 1),
    ],
)
def test_exported_and_heard(name: str, dtype: str, channels: int, tmp_path: Path):
    source, made = tmp_path / "source", tmp_path / f"{name}-exported"
    source.mkdir()
    size = write_folder(source, name)
    peak, took = run(EXPORT, source, made, dtype)
    running, shape, loudest = run(MAKE, made)
    written = sum(path.stat().st_size for path in made.iterdir())
    assert shape == [channels, 6400]
    assert 0 < loudest < np.inf
    assert peak < 1.5 * size
    tell(
        "memory",
        f"MB of {name} exported and compared with numpy, {dtype}",
        round(size / 1e6),
        f"peak {peak / 1e9:.2f} GB, {peak / size:.2f} of the model, in {took:.0f} s; {written / 1e9:.2f} GB "
        f"written; opened and heard with {running / 1e9:.2f} GB",
        promised="below 1.5 of the model",
    )
