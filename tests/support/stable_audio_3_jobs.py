"""Work of minutes on a Stable Audio 3 of published size, each in a process of its own: what it takes in
memory, and the matrix library that mlx then has, are those of a user.

    python -m support.stable_audio_3_jobs NAME FOLDER
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.codecs import same
from audiogen_mlx.stable_audio_3 import StableAudio3, weights
from audiogen_mlx.stable_audio_3 import load as loading
from support import stable_audio_3_full as full

TESTS = Path(__file__).parents[1]


def run(name: str, folder: Path) -> dict[str, Any]:
    """What a job found out."""
    command = [sys.executable, "-m", f"support.{Path(__file__).stem}", name, str(folder)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def made(size: str, folder: Path) -> StableAudio3:
    """A model with random weights and the tiny tokenizer, whose parts are made anew after each use."""
    (folder / "model_config.json").write_text(json.dumps(full.configuration(size)))
    text = folder / "t5gemma-b-b-ul2"
    shutil.copytree(full.FIXTURES / "tiny-small" / text.name, text)
    (text / "config.json").write_text(json.dumps(full.text_configuration()))
    (folder / "model.safetensors").write_bytes(b"")
    stored = full.random_weights(full.KEYS[f"stable-audio-3-{size}"])
    names = {name.removeprefix("model.encoder."): shape for name, shape in full.KEYS[full.TEXT].items()}
    weights.read_networks = lambda path, networks: stored.networks(networks)
    loading.t5gemma.read = lambda path: full.random_weights(names)
    return StableAudio3.load(folder, low_memory=True)


def peak() -> float:
    """GiB that this process has had at most. What getrusage says counts the one that began it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def small(folder: Path) -> dict[str, Any]:
    """Ten seconds."""
    clip = made("small", folder).generate("a bright piano", seconds=10, seed=1)
    return {"shape": clip.samples.shape, "finite": bool(np.isfinite(clip.samples).all()), "peak": peak()}


def medium(folder: Path) -> dict[str, Any]:
    """One pass of the network, and a decoded window."""
    import mlx.core as mx

    parts = made("medium", folder)._parts
    (conditions,) = parts.condition(["a bright piano"], [10.0])
    dit = parts.dit(1.0)
    run = dit.condition(conditions.tokens, conditions.global_, 172, local=mx.zeros((1, 257, 1)))
    velocity = np.array(dit(mx.random.normal((1, 256, 172)), 0.5, run))
    del dit, run
    parts.drop("dit")
    latents = np.random.default_rng(0).standard_normal((256, 32)).astype(np.float32)
    sound = np.concatenate(list(parts.autoencoder().decode_blocks([latents])), axis=1)
    return {
        "velocity": velocity.shape,
        "sound": sound.shape,
        "finite": bool(np.isfinite(velocity).all() and np.isfinite(sound).all()),
        "spread": float(velocity.std()),
        "peak": peak(),
    }


def two_minutes(folder: Path) -> dict[str, Any]:
    """SAME-S over 120 seconds: in blocks and whole, and what mlx holds meanwhile above the weights."""
    import mlx.core as mx

    from audiogen_mlx.ops import MlxOps

    config = same.from_stable_audio_tools(full.configuration("small"))
    table = full.random_weights(full.KEYS["stable-audio-3-small"]).below("pretransform.model.")
    codec = same.build(config, same.stable_audio_tools_weights(table), MlxOps())
    latents = np.random.default_rng(0).standard_normal((256, 1292)).astype(np.float32)
    list(codec.decode_blocks([latents[:, :4]]))  # weights are laid out at their first use

    def blocks(frames: int) -> Iterator[np.ndarray]:
        return codec.decode_blocks(latents[:, at : at + 64] for at in range(0, frames, 64))

    held = []
    for frames in (128, 1292):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        samples = sum(block.shape[1] for block in blocks(frames))
        held.append((mx.get_peak_memory() - before) / 2**30)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    whole = codec.decode_as_original(latents, cut=latents.shape[1] + 1)
    at_once = (mx.get_peak_memory() - before) / 2**30
    at, difference = 0, 0.0
    for block in blocks(1292):
        difference = max(difference, float(np.abs(block - whole[:, at : at + block.shape[1]]).max()))
        at += block.shape[1]
    return {
        "samples": samples,
        "compared": at,
        "twelve": held[0],
        "two_minutes": held[1],
        "whole": at_once,
        "loudest": float(np.abs(whole).max()),
        "difference": difference,
    }


if __name__ == "__main__":
    jobs = {"small": small, "medium": medium, "two_minutes": two_minutes}
    print(json.dumps(jobs[sys.argv[1]](Path(sys.argv[2]))))
