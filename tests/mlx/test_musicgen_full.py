"""musicgen-small and -stereo-small at their published sizes, with random weights: loaded from files, heard.

A process of its own loads a folder in transformers' layout, and watches the memory that is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.published import write_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc"),
]

JOB = """
import json, sys, threading, time
from pathlib import Path

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))

from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.generate import MusicGen

before, most, loaded = own(), 0, threading.Event()
def watch():
    global most
    while not loaded.is_set():
        most = max(most, own())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
model = MusicGen.load(sys.argv[1])
loaded.set()
watcher.join()
audio = model.generate("slow piano", seconds=0.2, sampling=Sampling(seed=1))
samples = audio.samples
print(json.dumps([most - before, samples.shape, float(abs(samples).max())]))
"""


@pytest.mark.parametrize(("name", "channels"), [("musicgen-small", 1), ("musicgen-stereo-small", 2)])
def test_loaded_and_heard(name: str, channels: int, tmp_path: Path):
    size = write_folder(tmp_path, name)
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    peak, shape, loudest = json.loads(done.stdout)
    print(f"\n{name}: {size / 1e9:.2f} GB, peak while loading {peak / 1e9:.2f} GB, {peak / size:.2f} of it")
    assert shape == [channels, 6400]
    assert 0 < loudest < np.inf
    assert peak < 1.3 * size
