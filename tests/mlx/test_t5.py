"""T5's encoder: what it refuses, what a mask and a dtype mean. Parity is tests/parity/test_t5.py."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core import weights
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.t5 import T5Config, pieces
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.t5 import T5Encoder, load_t5
from support.random_weights import weights_of

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen" / "t5"
SETTINGS = json.loads((FOLDER / "config.json").read_text())
CONFIG = T5Config.from_dict(SETTINGS)


def table() -> dict[str, np.ndarray]:
    return dict(weights.read(FOLDER))


def random_table(config: T5Config, scale: float = 0.1) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        name: (draw.standard_normal(shape) * scale).astype(np.float32)
        for name, shape in stored_shapes(T5Encoder(config), pieces(config)).items()
    }


def loaded(config: T5Config, arrays: dict[str, np.ndarray], dtype: mx.Dtype = mx.float32) -> T5Encoder:
    return load_t5(config, weights_of(arrays), dtype=dtype)


def run(encoder: T5Encoder, ids: list[list[int]], mask: list[list[int]]) -> np.ndarray:
    return np.array(encoder(mx.array(ids), mx.array(mask)).astype(mx.float32))


def test_padding_changes_nothing():
    encoder = loaded(CONFIG, table())
    alone = run(encoder, [[5, 9, 17, 1]], [[1, 1, 1, 1]])
    padded = run(encoder, [[5, 9, 17, 1, 0, 0], [7] * 6], [[1, 1, 1, 1, 0, 0], [1] * 6])
    np.testing.assert_allclose(padded[:1, :4], alone, rtol=0, atol=1e-5)


def test_a_text_without_any_visible_token_stays_finite():
    assert np.isfinite(run(loaded(CONFIG, table()), [[0, 0, 0]], [[0, 0, 0]])).all()


def test_a_decoder_beside_the_encoder_is_passed_over():
    arrays = table() | {
        "decoder.block.0.layer.0.layer_norm.weight": np.zeros(3, np.float32),
        "lm_head.weight": np.zeros((2, 2), np.float32),
        "encoder.embed_tokens.weight": table()["shared.weight"],
    }
    same = run(loaded(CONFIG, arrays), [[5, 1]], [[1, 1]])
    np.testing.assert_array_equal(same, run(loaded(CONFIG, table()), [[5, 1]], [[1, 1]]))


@pytest.mark.parametrize(("dtype", "atol"), [(mx.bfloat16, 0.1), (mx.float16, 0.02)])
def test_half_precision_stays_near_float32(dtype, atol):
    ids, mask = [[5, 9, 17, 30, 44, 1]], [[1] * 6]
    full = run(loaded(CONFIG, table()), ids, mask)
    encoder = loaded(CONFIG, table(), dtype=dtype)
    assert encoder(mx.array(ids), mx.array(mask)).dtype == dtype
    np.testing.assert_allclose(run(encoder, ids, mask), full, rtol=0, atol=atol * np.abs(full).max())


def test_float16_does_not_overflow_in_the_widest_product():
    """In the last product of a layer numbers pass 65,504, as in the published weights."""
    arrays = table()
    for part, gain in (("wi", 60), ("wo", 3000)):
        for name in [name for name in arrays if name.endswith(f"{part}.weight")]:
            arrays[name] = arrays[name] * gain
    made = run(loaded(CONFIG, arrays, dtype=mx.float16), [[5, 9, 1]], [[1, 1, 1]])
    full = run(loaded(CONFIG, arrays), [[5, 9, 1]], [[1, 1, 1]])
    np.testing.assert_allclose(made, full, rtol=0, atol=0.02 * np.abs(full).max())


@pytest.mark.parametrize("feed_forward", ["relu", "gelu", "silu", "gated-gelu", "gated-silu", "gated-relu"])
def test_every_kind_of_feed_forward_is_as_in_transformers(feed_forward):
    import torch
    from transformers import T5Config as TheirConfig
    from transformers import T5EncoderModel

    settings = SETTINGS | {"feed_forward_proj": feed_forward}
    for derived in ("dense_act_fn", "is_gated_act"):
        settings.pop(derived)
    config = T5Config.from_dict(settings)
    arrays = random_table(config, 0.3)
    theirs = T5EncoderModel(TheirConfig(**settings)).eval()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()}, strict=False)
    ids = [[5, 9, 17, 30, 44, 1]]
    with torch.inference_mode():
        expected = theirs(torch.tensor(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(run(loaded(config, arrays), ids, [[1] * 6]), expected, rtol=0, atol=1e-4)


def test_the_published_base_model_has_the_parameters_expected_here():
    from transformers import T5Config as TheirConfig
    from transformers import T5EncoderModel

    settings = {
        "d_model": 768,
        "d_ff": 3072,
        "num_heads": 12,
        "num_layers": 12,
        "vocab_size": 32128,
        "d_kv": 64,
    }
    import torch

    with torch.device("meta"):
        theirs = T5EncoderModel(TheirConfig(**settings))
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    shapes.pop("encoder.embed_tokens.weight", None)
    config = T5Config.from_dict(settings)
    assert stored_shapes(T5Encoder(config), pieces(config)) == shapes


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"model_type": "bert"}, "'bert'"),
        ({"feed_forward_proj": "gated-swoosh"}, "'swoosh'"),
        ({"d_model": 0}, "width is 0"),
        ({"num_heads": None}, "does not describe a T5"),
        ({"relative_attention_num_buckets": 6}, "6 buckets"),
        ({"relative_attention_max_distance": 8}, "up to 8 steps"),
    ],
)
def test_a_configuration_that_is_no_t5_is_refused(edit, message):
    with pytest.raises(ModelError, match=message):
        T5Config.from_dict(SETTINGS | edit)


def test_a_configuration_without_a_size_is_refused():
    with pytest.raises(ModelError, match="d_ff"):
        T5Config.from_dict({name: value for name, value in SETTINGS.items() if name != "d_ff"})


def test_weights_that_do_not_fit_are_refused():
    norm = "encoder.final_layer_norm.weight"
    short = table()
    del short[norm]
    with pytest.raises(WeightsError, match=rf"missing \(1\): {norm}"):
        loaded(CONFIG, short)
    with pytest.raises(WeightsError, match=r"unexpected \(1\): encoder.bonus"):
        loaded(CONFIG, table() | {"encoder.bonus": np.zeros(3, np.float32)})
    with pytest.raises(WeightsError, match=rf"misshapen \(1\): {norm} \(7,\) instead of \(32,\)"):
        loaded(CONFIG, table() | {norm: np.zeros(7, np.float32)})
