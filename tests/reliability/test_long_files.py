"""Long clips: chunks give the codes of the whole, and memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from audiogen_core import Audio
from audiogen_core.audio import AudioWriter
from audiogen_core.codecs import encodec
from audiogen_core.compose import compose
from audiogen_core.layers import whole
from audiogen_core.ops import resolve
from support.figures import tell
from support.random_weights import RandomWeights

RATE = 24000
MARGIN = 1e-5

JOB = """
import json, sys
import numpy as np
from audiogen_core import codecs
from audiogen_core.audio import AudioWriter, stream
from audiogen_core.progress import peak_memory
codec = codecs.load("demo")
blocks = stream(sys.argv[1], sample_rate=24000, channels=1)
codes = np.concatenate(list(codec.encode_blocks(blocks, 4)), axis=1)
encoded = peak_memory()
with AudioWriter(sys.argv[2], 24000, 1) as writer:
    for block in codec.decode_blocks([codes[:, : int(sys.argv[3])]]):
        writer.write(block)
decoded = peak_memory()
print(json.dumps([codes.shape[1], encoded, decoded]))
"""


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Composed music and some noise, so that no two frames are alike."""
    x = compose(seed, seconds=seconds).audio.samples
    noise = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    return x + 0.01 * noise


def chunked_equals_whole(seconds: float, filters: int, ops_name: str) -> tuple[float, float]:
    """Returns the share of codes that are equal, and of those whose choice was clear."""
    config = encodec.EncodecConfig(
        sample_rate=RATE,
        channels=1,
        ratios=(8, 5, 4, 2),
        filters=filters,
        dimension=128,
        codebooks=8,
        codebook_size=1024,
        causal=True,
        shortcut=True,
    )
    ops = resolve(ops_name)
    codec = encodec.build(config, RandomWeights(), ops)
    x = music(seconds)
    chunked = np.concatenate(list(codec.encode_blocks([x])), axis=1)
    latents = ops.numpy(whole(ops, codec._encoder, ops.signal(x[None])))[0].T  # (F, D)
    settled = np.ones(len(latents), bool)
    equal = []
    for k, book in enumerate(codec.codebook_vectors()):
        best, margin = nearest(latents, book)
        settled &= margin > MARGIN
        same = chunked[k] == best
        assert same[settled].all(), f"codebook {k}: {(~same[settled]).sum()} clear choices differ"
        equal.append(same.mean())
        latents = latents - book[best]
    return float(np.mean(equal)), float(settled.mean())


def nearest(latents: np.ndarray, book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest entry of each row, and by how much (squared distance) it wins."""
    best, margin = [], []
    for start in range(0, len(latents), 4096):
        score = 2 * latents[start : start + 4096] @ book.T - (book * book).sum(axis=1)
        two = np.partition(score, -2, axis=1)[:, -2:]
        best.append(score.argmax(axis=1))
        margin.append(two.max(axis=1) - two.min(axis=1))
    return np.concatenate(best), np.concatenate(margin)


@pytest.mark.parametrize("ops", ["numpy", "torch"])
def test_a_minute_in_chunks_has_the_codes_of_the_whole(ops):
    equal, settled = chunked_equals_whole(60, 4, ops)
    assert equal > 0.999
    assert settled > 0.99


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_minutes_in_chunks_have_the_codes_of_the_whole():
    equal, settled = chunked_equals_whole(1200, 16, "numpy")
    assert equal > 0.999
    tell(
        "long clips",
        "seconds encoded in chunks, beside the whole at once",
        1200,
        f"{equal:.4%} of codes equal, all where the choice was clear ({settled:.2%} of frames)",
        promised="all where no other entry is as near to 1e-5",
    )


def measure(path, tmp_path, frames: int) -> tuple[int, int, int]:
    command = [sys.executable, "-c", JOB, str(path), str(tmp_path / "decoded.wav"), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found[0], found[1], found[2]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path):
    peaks = []
    for seconds in (30, 240):
        Audio(music(seconds), RATE).save(tmp_path / "clip.wav", force=True)
        frames, encoded, decoded = measure(tmp_path / "clip.wav", tmp_path, 10**9)
        assert frames == seconds * 75
        peaks.append(max(encoded, decoded))
    assert peaks[1] < peaks[0] + 60e6, f"{peaks[0] / 1e6:.0f} MB, then {peaks[1] / 1e6:.0f} MB"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eight_hours_take_less_than_a_gigabyte_and_a_half(tmp_path):
    hour = np.concatenate([music(600, seed) for seed in range(6)], axis=1)
    with AudioWriter(tmp_path / "day.wav", RATE, 1) as writer:
        for _ in range(8):
            writer.write(hour)
    frames, encoded, decoded = measure(tmp_path / "day.wav", tmp_path, 75 * 3600)
    assert frames == 8 * 3600 * 75
    assert max(encoded, decoded) < 1.5e9
    tell(
        "memory",
        "hours of audio encoded by the demo codec, one of them decoded",
        8,
        f"peak {encoded / 1e6:.0f} MB encoding, {decoded / 1e6:.0f} MB after decoding",
        promised="1.5 GB",
    )
