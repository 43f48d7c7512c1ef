"""Stable Audio Open small at full size, random weights, float32, beside diffusers and mlx-audiogen.

Prints ratios; asserts no time. `run.py` beside this file makes the table.

diffusers' transformer has every product of ours, but no norms on queries and keys. mlx-audiogen 0.2.0 is
run as a user gets it, in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_core.codecs import oobleck
from audiogen_mlx import blas
from audiogen_mlx.stable_audio.read_config import read_network
from audiogen_mlx.stable_audio.weights import STABLE_AUDIO_TOOLS, load_dit
from support import stable_audio_full as full
from support.bench import race
from support.figures import compare

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

FRAMES, TOKENS = 256, 65
DECODED = 64  # latent frames, 3 seconds
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


TITLE = f"Stable Audio Open small, float32, {THREADS} threads, BLAS: {blas.use().source}"


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    shapes = (1, 64, FRAMES), (1, TOKENS, 768), (1, 768)
    return tuple(draw(shape, dtype=np.float32) for shape in shapes)  # type: ignore[return-value]


def our_pass():
    import mlx.core as mx

    config = read_network(full.SMALL, "small")
    weights = full.random_weights(full.transformer(full.SMALL)).apply(STABLE_AUDIO_TOOLS)
    network = load_dit(config, weights)
    x, tokens, global_ = (mx.array(array) for array in inputs())
    run = network.condition(tokens, global_, FRAMES)
    return lambda: mx.eval(network(x, 0.5, run))


def their_pass():
    from diffusers import StableAudioDiTModel
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    network = StableAudioDiTModel(
        sample_size=FRAMES,
        in_channels=64,
        out_channels=64,
        num_layers=16,
        attention_head_dim=128,
        num_attention_heads=8,
        num_key_value_attention_heads=8,
        cross_attention_dim=1024,
        cross_attention_input_dim=768,
        global_states_input_dim=768,
    ).eval()
    x, tokens, global_ = (torch.from_numpy(array) for array in inputs())
    rotary = get_1d_rotary_pos_embed(64, FRAMES + 1, use_real=True, repeat_interleave_real=False)

    def step() -> None:
        with torch.inference_mode():
            network(
                x,
                torch.tensor([0.5]),
                encoder_hidden_states=tokens,
                global_hidden_states=global_[:, None],
                rotary_embedding=rotary,
            )

    return step


def test_one_pass_of_the_network_beside_diffusers():
    times = race({"ours": our_pass(), "diffusers": their_pass()}, rounds=5)
    compare(TITLE, "one pass of the network", times, peer="diffusers", aims={"ours": 1 / 1.2})
    assert set(times) == {"ours", "diffusers"}


def test_decoding_beside_diffusers():
    from diffusers import AutoencoderOobleck

    from audiogen_mlx.ops import MlxOps

    config = oobleck.from_stable_audio_tools(full.configuration("small"))
    weights = full.random_weights(full.autoencoder())
    ours = oobleck.build(config, oobleck.stable_audio_tools_weights(weights, config), MlxOps())
    theirs = AutoencoderOobleck().eval()
    latents = np.random.default_rng(0).standard_normal((64, DECODED), dtype=np.float32)
    batch = torch.from_numpy(latents[None])

    def decode() -> None:
        with torch.inference_mode():
            theirs.decode(batch)

    times = race({"ours": lambda: list(ours.decode_blocks([latents])), "diffusers": decode})
    job = f"decoding {DECODED} frames of latents"
    compare(TITLE, job, times, peer="diffusers", aims={"ours": 1 / 1.2}, audio=DECODED * 2048 / 44_100)
    assert set(times) == {"ours", "diffusers"}


PEER = """
import sys, time
import mlx.core as mx
from mlx_audiogen.models.stable_audio import DiTConfig, StableAudioDiT

frames, tokens = map(int, sys.argv[1:])
network = StableAudioDiT(DiTConfig(qk_norm=True))
mx.eval(network.parameters())
given = [mx.random.normal(shape) for shape in ((1, 64, frames), (1, tokens, 768), (1, 768))]
began = time.perf_counter()
mx.eval(network(given[0], mx.array([0.5]), given[1], given[2]))
print(time.perf_counter() - began)
"""


def test_one_pass_of_the_network_beside_mlx_audiogen(tmp_path: Path):
    environment = tmp_path / "environment"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    wanted = ["mlx-audiogen==0.2.0", "mlx[cpu]" if sys.platform == "linux" else "mlx"]
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, *wanted], check=True)
    ours = race({"ours": our_pass()})["ours"]
    found = subprocess.run(
        [python, "-c", PEER, str(FRAMES), str(TOKENS)], check=True, capture_output=True, text=True
    )
    theirs = float(found.stdout)
    peer = "mlx-audiogen 0.2.0 as installed"
    compare(TITLE, "one pass of the network", {"ours": ours, peer: theirs}, peer=peer, aims={"ours": 15})
    clip = {"ours": 8 * ours, peer: 100 * 2 * theirs}  # pingpong; euler with guidance 7
    compare(TITLE, "all passes of a clip by default: 8 steps, theirs 100 with guidance", clip, peer=peer)
    assert theirs > 0
