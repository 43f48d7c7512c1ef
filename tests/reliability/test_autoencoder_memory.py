"""Stable Audio's autoencoder at full size with random weights: 47 s of sound in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.figures import tell

WINDOW = 1024  # latents in 47.55 s

JOB = f"""
import json, sys
from pathlib import Path
import numpy as np
sys.path[:0] = {sys.path!r}
from audiogen_core.codecs import oobleck
from audiogen_core.ops import resolve
from support import stable_audio_full as full

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

if sys.argv[1] == "mlx":
    from audiogen_mlx.ops import MlxOps
    ops = MlxOps()
else:
    ops = resolve(sys.argv[1])
config = oobleck.from_stable_audio_tools(full.configuration("1.0"))
weights = oobleck.stable_audio_tools_weights(full.random_weights(full.autoencoder()), config)
made = oobleck.build(config, weights, ops)
latents = np.random.default_rng(0).standard_normal((64, {WINDOW})).astype(np.float32)
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
samples = sum(block.shape[1] for block in made.decode_blocks([latents]))
print(json.dumps([samples, before, memory("VmHWM") - before]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory's peak from /proc")
@pytest.mark.parametrize("ops", ["numpy", "torch", "mlx"])
def test_the_whole_window_decodes_in_little_memory(ops):
    job = subprocess.run([sys.executable, "-c", JOB, ops], capture_output=True, text=True, check=True)
    samples, weights, above = json.loads(job.stdout.splitlines()[-1])
    assert samples == WINDOW * 2048
    assert above <= 0.6 * 2**30
    tell(
        "memory",
        f"seconds that Stable Audio's autoencoder decodes at full size, {ops}",
        round(samples / 44_100),
        f"{above / 2**30:.2f} GiB above the weights' {weights / 2**30:.2f} GiB",
        promised="0.6 GiB",
    )
