"""musicgen-small and -stereo-small at their published sizes, with random weights: loaded from files, heard.

A process of its own loads a folder in transformers' layout, and watches the memory that is its own.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.published import expanded, published

FIXTURES = Path(__file__).parents[1] / "fixtures" / "musicgen"

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


def write_random(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of those tensors in float32, small numbers drawn once and used again and again."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    drawn = np.random.default_rng(0).uniform(-0.05, 0.05, 1 << 22).astype(np.float32).tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(drawn)):
            file.write(drawn[: min(len(drawn), end - start)])


@pytest.mark.parametrize(("name", "channels"), [("musicgen-small", 1), ("musicgen-stereo-small", 2)])
def test_loaded_and_heard(name: str, channels: int, tmp_path: Path):
    entry = published()["models"][name]
    parts = {key: published()[key] for key in ("text_encoder", "audio_encoder")}
    (tmp_path / "config.json").write_text(json.dumps(entry["config"] | parts))
    shutil.copy(FIXTURES / "tokenizer" / "tokenizer.json", tmp_path)
    shapes = {**expanded(published()["shared"]), **expanded(entry["keys"])}
    shapes.pop("text_encoder.encoder.embed_tokens.weight", None)  # the same tensor, as files are stored
    write_random(tmp_path / "model.safetensors", shapes)
    size = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    peak, shape, loudest = json.loads(done.stdout)
    print(f"\n{name}: {size / 1e9:.2f} GB, peak while loading {peak / 1e9:.2f} GB, {peak / size:.2f} of it")
    assert shape == [channels, 6400]
    assert 0 < loudest < np.inf
    assert peak < 1.3 * size
