"""Stable Audio 3 small at full size, random weights, float32, beside the same network in torch.

Prints ratios and asserts no time; but both make the same of the same weights. `run.py` beside this file makes
the table. diffusers has the kind of medium alone, so the peer is `support/stable_audio_3_torch.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from audiogen_core.codecs import same
from audiogen_core.weights import Weights
from audiogen_mlx import blas
from support import stable_audio_3_full as full
from support.bench import race
from support.figures import compare
from support.stable_audio_3_torch import Decoder, Network

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

FRAMES = 172  # of 10 seconds and what rings out
DECODED = 64  # latent frames, 6 seconds
AIM = 1 / 1.2
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
TITLE = f"Stable Audio 3 small, float32, {THREADS} threads, BLAS: {blas.use().source}"


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def stored(below: str) -> Weights:
    return full.random_weights(full.KEYS["stable-audio-3-small"]).below(below)


def filled(network: torch.nn.Module, table: Weights) -> torch.nn.Module:
    """A network with the tensors of its names."""
    wanted = network.state_dict()
    network.load_state_dict({name: torch.from_numpy(table[name]) for name in wanted})
    return network.eval()


def test_one_pass_of_the_network(tmp_path):
    import json

    import mlx.core as mx

    from audiogen_mlx.stable_audio_3.conditioning import features
    from audiogen_mlx.stable_audio_3.config import read_config
    from audiogen_mlx.stable_audio_3.weights import STABLE_AUDIO_3, load_dit

    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(full.configuration("small")))
    config = read_config(path).dit
    table = stored("model.model.")
    ours = load_dit(config, table.apply(STABLE_AUDIO_3))
    theirs = filled(Network(1024, 20, 16, 256, 768, 64), table)
    draw = np.random.default_rng(0).standard_normal
    shapes = (1, 256, FRAMES), (1, 257, 768), (1, 768)
    given = [draw(shape, dtype=np.float32) for shape in shapes]
    x, tokens, global_ = (mx.array(array) for array in given)
    run = ours.condition(tokens, global_, FRAMES, local=mx.zeros((1, 257, 1)))
    batch = [torch.from_numpy(array) for array in given]
    turns, local = torch.from_numpy(features([0.5])), torch.zeros(1, FRAMES, 257)
    made: dict[str, np.ndarray] = {}

    def pass_of_ours() -> None:
        run.times.clear()
        made["ours"] = np.array(ours(x, 0.5, run))

    @torch.inference_mode()
    def pass_of_theirs() -> None:
        made["torch"] = theirs(batch[0], turns, batch[1], batch[2], local).numpy()

    times = race({"ours": pass_of_ours, "torch": pass_of_theirs}, rounds=5)
    np.testing.assert_allclose(made["ours"], made["torch"], rtol=0, atol=1e-3 * np.abs(made["torch"]).max())
    compare(TITLE, f"one pass of the network over {FRAMES} frames", times, peer="torch", aims={"ours": AIM})


def test_decoding(tmp_path):
    from audiogen_mlx.ops import MlxOps

    table = stored("pretransform.model.")
    ours = same.build(
        same.from_stable_audio_tools(full.configuration("small")),
        same.stable_audio_tools_weights(table),
        MlxOps(),
    )
    theirs = filled(Decoder(256, 768, 6, 12, 256), table.below("decoder."))
    latents = np.random.default_rng(0).standard_normal((256, DECODED), dtype=np.float32)
    batch = torch.from_numpy(latents[None])
    made: dict[str, np.ndarray] = {}

    def decoding_of_ours() -> None:
        made["ours"] = np.concatenate(list(ours.decode_blocks([latents])), axis=1)

    @torch.inference_mode()
    def decoding_of_theirs() -> None:
        made["torch"] = theirs(batch)[0].numpy()

    times = race({"ours": decoding_of_ours, "torch": decoding_of_theirs})
    np.testing.assert_allclose(made["ours"], made["torch"], rtol=0, atol=1e-3 * np.abs(made["torch"]).max())
    job = f"decoding {DECODED} frames of latents"
    compare(TITLE, job, times, peer="torch", aims={"ours": AIM}, audio=DECODED * 4096 / 44_100)
