"""T5's encoder and tokenizer against transformers: both families, both fixtures' tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core import weights
from audiogen_core.t5 import T5Config, relative_buckets
from audiogen_core.tokenizer import Tokenizer
from audiogen_mlx.t5 import T5Encoder, load_t5

FIXTURES = Path(__file__).parents[1] / "fixtures"
MUSICGEN = FIXTURES / "musicgen"
STABLE_AUDIO = FIXTURES / "stable-audio"


def load(folder: Path, dtype: mx.Dtype = mx.float32) -> T5Encoder:
    config = T5Config.from_dict(json.loads((folder / "config.json").read_text()))
    return load_t5(config, weights.read(folder), dtype=dtype)


@pytest.fixture(params=["t5", "t5-gated"])
def stored(request):
    """An encoder and what transformers makes with its weights."""
    folder = MUSICGEN / request.param
    return load(folder), dict(np.load(folder / "io.npz"))


def test_vectors_of_a_padded_batch(stored):
    encoder, arrays = stored
    made = encoder(mx.array(arrays["input_ids"]), mx.array(arrays["attention_mask"]))
    np.testing.assert_allclose(np.array(made), arrays["last_hidden_state"], rtol=0, atol=1e-4)


def test_vectors_past_the_widest_bucket(stored):
    encoder, arrays = stored
    ids = mx.array(arrays["long_input_ids"])
    made = np.array(encoder(ids, mx.ones(ids.shape)))[:, ::7]
    np.testing.assert_allclose(made, arrays["long_last_hidden_state"], rtol=0, atol=1e-4)


def test_relative_positions(stored):
    encoder, arrays = stored
    bias = np.array(encoder.position_bias(200))[:, ::11, ::5]
    np.testing.assert_allclose(bias, arrays["position_bias"], rtol=0, atol=1e-6)
    keys = np.arange(200)
    for query in (0, 199):
        np.testing.assert_array_equal(
            relative_buckets(keys - query, 32, 128), arrays[f"rel_buckets_row{query}"]
        )


def test_relative_positions_at_the_borders_of_every_bucket():
    """The logarithm's rounding decides at powers of two; transformers' own function is the judge."""
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-1200, 1200)
    for buckets, longest in ((32, 128), (16, 64), (64, 1000)):
        theirs = T5Attention._relative_position_bucket(
            torch.tensor(distance), num_buckets=buckets, max_distance=longest
        )
        np.testing.assert_array_equal(relative_buckets(distance, buckets, longest), theirs.numpy())


@pytest.mark.parametrize("size", ["small", "v10"])
def test_vectors_of_stable_audio(size):
    arrays = np.load(STABLE_AUDIO / f"{size}_cond.npz")
    ids, mask = mx.array(arrays["input_ids"]), arrays["attention_mask"]
    made = np.array(load(STABLE_AUDIO / "t5")(ids, mx.array(mask)))
    np.testing.assert_allclose(made, arrays["t5_last_hidden_fp32"], rtol=0, atol=1e-4)
    halved = np.array(load(STABLE_AUDIO / "t5", mx.float16)(ids, mx.array(mask)).astype(mx.float32))
    expected = arrays["prompt_embed_fp16_upstream"]
    np.testing.assert_allclose(halved * mask[..., None], expected, rtol=0, atol=2e-2)


def test_tokens_of_single_texts_and_of_a_batch():
    tokenizer = Tokenizer.load(MUSICGEN / "tokenizer")
    expected = json.loads((MUSICGEN / "tokenizer" / "expected.json").read_text())
    for case in expected["single"]:
        ids, mask = tokenizer.encode([case["text"]])
        assert ids.tolist() == [case["ids"]]
        assert mask.all()
    ids, mask = tokenizer.encode(expected["batch_texts"])
    assert ids.tolist() == expected["batch_input_ids"]
    assert mask.astype(int).tolist() == expected["batch_attention_mask"]
    assert len(tokenizer) == expected["len"]


@pytest.mark.parametrize("size", ["small", "v10"])
def test_tokens_of_stable_audio_are_cut_and_filled(size):
    arrays = np.load(STABLE_AUDIO / f"{size}_cond.npz")
    length = arrays["input_ids"].shape[1]
    tokenizer = Tokenizer.load(STABLE_AUDIO / "t5" / "tokenizer.json")
    ids, mask = tokenizer.encode([str(text) for text in arrays["prompts"]], max_length=length, pad_to=length)
    np.testing.assert_array_equal(ids, arrays["input_ids"])
    np.testing.assert_array_equal(mask, arrays["attention_mask"].astype(bool))
