"""EnCodec at full size, random weights: our adapters beside hand-written framework modules.

Prints ratios; asserts no time. `run.py` beside this file makes the table.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiogen_core.codecs import encodec
from audiogen_core.ops import resolve
from support.bench import race
from support.figures import compare
from support.random_weights import RandomWeights

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]

SECONDS = 10
MODELS = {
    "24 kHz": {},
    "32 kHz": {
        "sampling_rate": 32000,
        "upsampling_ratios": [8, 5, 4, 4],
        "num_filters": 64,
        "codebook_size": 2048,
        "target_bandwidths": [2.2],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    },
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("model", MODELS)
def test_encodec_beside_transformers(model):
    from transformers import EncodecConfig, EncodecModel

    settings = EncodecConfig(**MODELS[model])
    config = encodec.from_transformers(settings.to_dict())
    theirs = EncodecModel(settings).eval()
    clip = np.random.default_rng(0).normal(size=(1, SECONDS * config.sample_rate)).astype(np.float32) * 0.1
    batch, bandwidth = torch.tensor(clip[None]), settings.target_bandwidths[-1]
    ours = {name: encodec.build(config, RandomWeights(), resolve(name)) for name in ("torch", "numpy")}
    codes = {name: np.concatenate(list(codec.encode_blocks([clip])), 1) for name, codec in ours.items()}
    with torch.inference_mode():
        stored = theirs.encode(batch, bandwidth=bandwidth).audio_codes
        encode = race(
            {
                "transformers": lambda: theirs.encode(batch, bandwidth=bandwidth),
                **{name: lambda c=codec: list(c.encode_blocks([clip])) for name, codec in ours.items()},
            }
        )
        decode = race(
            {
                "transformers": lambda: theirs.decode(stored, [None]),
                **{
                    name: lambda c=codec, v=codes[name]: list(c.decode_blocks([v]))
                    for name, codec in ours.items()
                },
            }
        )
    for side, times in (("encode", encode), ("decode", decode)):
        title = f"EnCodec {model}, {SECONDS} s, one thread"
        compare(title, side, times, peer="transformers", aims={"torch": 1 / 1.1}, audio=SECONDS)
    assert set(encode) == set(decode) == {"transformers", "torch", "numpy"}


def test_encodec_on_mlx_beside_a_plain_mlx_module():
    """The adapter beside the same network written directly in mlx.nn (no ops, no stages)."""
    import mlx.core as mx

    from audiogen_mlx.ops import MlxOps
    from support.mlx_twin import Twin

    config = encodec.from_transformers(_tiny_settings())
    codec = encodec.build(config, RandomWeights(), MlxOps())
    twin = Twin(config, RandomWeights())
    clip = np.random.default_rng(0).normal(size=(1, 2 * config.sample_rate)).astype(np.float32) * 0.1
    codes = np.concatenate(list(codec.encode_blocks([clip])), axis=1)
    np.testing.assert_array_equal(codes, np.array(twin.encode(mx.array(clip.T[None])))[:, 0])
    encode = race(
        {
            "plain mlx": lambda: mx.eval(twin.encode(mx.array(clip.T[None]))),
            "mlx": lambda: list(codec.encode_blocks([clip])),
        }
    )
    decode = race(
        {
            "plain mlx": lambda: mx.eval(twin.decode(mx.array(codes[:, None]))),
            "mlx": lambda: list(codec.decode_blocks([codes])),
        }
    )
    for side, times in (("encode", encode), ("decode", decode)):
        title = "EnCodec 24 kHz family with 16 filters, 2 s, our adapter beside plain mlx modules"
        compare(title, side, times, peer="plain mlx", aims={"mlx": 1 / 1.2}, audio=2)


def _tiny_settings() -> dict:
    from transformers import EncodecConfig

    return EncodecConfig(num_filters=16, target_bandwidths=[1.5, 6.0]).to_dict()
