"""EnCodec at 32 kHz in mlx, full size, random weights, beside transformers on torch with the same threads.

Prints ratios; asserts no time. Threads are those of the environment (OMP_NUM_THREADS), else the physical
cores.
"""

from __future__ import annotations

import numpy as np
import pytest

import audiogen_mlx  # noqa: F401  before mlx, for its BLAS
from audiogen_core.codecs import encodec
from audiogen_mlx import blas
from audiogen_mlx.ops import MlxOps
from support.bench import race
from support.figures import compare
from support.random_weights import RandomWeights

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

SECONDS = 10
MUSICGEN = {
    "sampling_rate": 32000,
    "upsampling_ratios": [8, 5, 4, 4],
    "num_filters": 64,
    "codebook_size": 2048,
    "target_bandwidths": [2.2],
    "use_causal_conv": False,
    "use_conv_shortcut": False,
}


def test_encodec_on_mlx_beside_transformers():
    import torch
    from transformers import EncodecConfig, EncodecModel

    threads = blas.threads()
    torch.set_num_threads(threads)
    settings = EncodecConfig(**MUSICGEN)
    config = encodec.from_transformers(settings.to_dict())
    theirs = EncodecModel(settings).eval()
    codec = encodec.build(config, RandomWeights(), MlxOps())
    clip = np.random.default_rng(0).normal(size=(1, SECONDS * config.sample_rate)).astype(np.float32) * 0.1
    batch = torch.tensor(clip[None])
    codes = np.concatenate(list(codec.encode_blocks([clip])), axis=1)
    with torch.inference_mode():
        stored = theirs.encode(batch, bandwidth=2.2).audio_codes
        encode = race(
            {
                "transformers": lambda: theirs.encode(batch, bandwidth=2.2),
                "mlx": lambda: list(codec.encode_blocks([clip])),
            }
        )
        decode = race(
            {
                "transformers": lambda: theirs.decode(stored, [None]),
                "mlx": lambda: list(codec.decode_blocks([codes])),
            }
        )
    for side, times in (("encode", encode), ("decode", decode)):
        title = f"EnCodec 32 kHz in mlx, {SECONDS} s, {threads} threads, BLAS: {blas.use().source}"
        compare(title, side, times, peer="transformers", aims={"mlx": 1 / 1.2}, audio=SECONDS)
    assert codes.shape == tuple(stored.shape[2:])
