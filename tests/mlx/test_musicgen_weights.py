"""Weights: every published model's tensors used up, mistakes in checkpoints named, quantised matrices."""

from __future__ import annotations

import json
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from audiogen_core.codecs import encodec
from audiogen_core.errors import OptionError, WeightsError
from audiogen_core.models import ModelSpec
from audiogen_core.musicgen.config import Config, from_audiocraft, from_transformers
from audiogen_core.musicgen.weights import pieces
from audiogen_core.t5 import T5Config
from audiogen_core.t5 import pieces as pieces_of_t5
from audiogen_core.weights import StoredArray, Weights
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.musicgen.load import load_transformer, outline
from audiogen_mlx.musicgen.model import Transformer, outputs
from audiogen_mlx.musicgen.style import load_style
from audiogen_mlx.nn import parameters, stored_shapes, tensors
from audiogen_mlx.t5 import T5Encoder
from support.musicgen_models import SMALL, TINY, RandomTable, transformer
from support.published import expanded, published

FETCHED = [name for name, spec in MUSICGEN.items() if isinstance(spec, ModelSpec)]


def stored(shapes: dict[str, tuple[int, ...]], fill: float = 1.0) -> Weights:
    """A table that costs no memory until a tensor is read."""
    return Weights(
        {
            name: StoredArray(shape, "float32", lambda s=shape: np.full(s, fill, np.float32))
            for name, shape in shapes.items()
        },
        "made up",
    )


def config_of(name: str) -> tuple[Config, str]:
    entry = published()["models"][name]
    if "settings" in entry:
        settings = json.loads(json.dumps(entry["settings"]))
        style = settings["conditioners"].get("self_wav")
        if style:
            style["style"]["sample_rate"] = settings["sample_rate"]
        return from_audiocraft(settings, entry["text_width"]), "audiocraft"
    whole = {key: published()[key] for key in ("text_encoder", "audio_encoder")}
    return from_transformers(entry["config"] | whole), "transformers"


def test_every_model_of_the_catalogue_has_its_table():
    assert set(published()["models"]) == set(FETCHED)


@pytest.mark.parametrize("name", FETCHED)
def test_every_tensor_of_a_published_model_is_used(name: str):
    config, layout = config_of(name)
    shapes = expanded(published()["models"][name]["keys"])
    used = stored_shapes(Transformer(config), pieces(config, layout))
    left = {key: shape for key, shape in shapes.items() if key not in used}
    if config.style is not None:
        load_style(stored(left), config.style)
        left = {}
    assert not left
    assert used == {key: shape for key, shape in shapes.items() if key in used}
    next(tensors(Transformer(config), stored(shapes), pieces=pieces(config, layout)))  # complete


@pytest.mark.parametrize(
    "name", [name for name in FETCHED if name not in ("musicgen-style", "audiogen-medium")]
)
def test_parameters_are_as_many_as_transformers_counts(name: str):
    config, layout = config_of(name)
    count = sum(math.prod(one.shape) for one in parameters(Transformer(config), pieces(config, layout)))
    assert count == published()["models"][name]["parameters"]


def test_text_encoder_and_codec_of_the_published_models():
    shared = expanded(published()["shared"])
    text = {
        name.removeprefix("text_encoder."): shape for name, shape in shared.items() if name.startswith("text")
    }
    encoder = T5Config.from_dict(published()["text_encoder"])
    shapes = stored_shapes(T5Encoder(encoder), pieces_of_t5(encoder))
    assert {**shapes, "encoder.embed_tokens.weight": shapes["shared.weight"]} == text
    codec = {
        name.removeprefix("audio_encoder."): shape
        for name, shape in shared.items()
        if name.startswith("audio")
    }
    from audiogen_mlx.ops import MlxOps

    table = stored(codec).apply(encodec.TRANSFORMERS)
    built = encodec.build(encodec.from_transformers(published()["audio_encoder"]), table, MlxOps())
    assert (built.info.codebooks, built.info.codebook_size, built.info.frame_rate) == (4, 2048, 50)


def test_geometry_of_the_published_models():
    for name in FETCHED:
        config, _ = config_of(name)
        stereo, melody = "stereo" in name, "melody" in name
        assert (config.channels, config.codebooks) == ((2, 8) if stereo else (1, 4))
        assert config.delays == ((0, 0, 1, 1, 2, 2, 3, 3) if stereo else (0, 1, 2, 3))
        assert config.clip == ("melody" if melody else "style" if "style" in name else "")
        assert config.text_in_prefix == bool(config.clip)
        assert config.melody_frames == (235 if melody else 0)
        assert config.width // config.heads == 64
        assert config.window_seconds == (10 if name == "audiogen-medium" else 30)


def stored_in(layout: str = "audiogen") -> dict[str, tuple[int, ...]]:
    return stored_shapes(Transformer(TINY), pieces(TINY, layout))


def test_what_is_missing_is_named():
    shapes = stored_in("transformers")
    del shapes["decoder.model.decoder.layers.1.fc1.weight"]
    with pytest.raises(WeightsError, match=r"missing \(1\): decoder\.model\.decoder\.layers\.1\.fc1\.weight"):
        load_transformer(stored(shapes), TINY, "transformers")


def test_what_is_misshapen_is_named():
    shapes = stored_in("audiocraft") | {"linears.2.weight": (16, 63)}
    with pytest.raises(WeightsError, match=r"linears\.2\.weight \(16, 63\) instead of \(16, 64\)"):
        load_transformer(stored(shapes), TINY, "audiocraft")


def test_what_is_left_over_is_named_and_what_is_known_is_not():
    known = {
        "decoder.model.decoder.embed_positions.weights": (8, 64),
        "text_encoder.shared.weight": (4, 4),
        "audio_encoder.anything": (1,),
    }
    load_transformer(stored(stored_in("transformers") | known), TINY, "transformers")
    with pytest.raises(WeightsError, match=r"unexpected \(1\): decoder\.extra\.weight"):
        load_transformer(
            stored(stored_in("transformers") | {"decoder.extra.weight": (1,)}), TINY, "transformers"
        )


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        load_transformer(stored(stored_in(), fill=math.nan), TINY, "audiogen")


def test_pieces_are_put_below_one_another():
    shapes = stored_in("transformers")
    order = {"q_proj": 1.0, "k_proj": 2.0, "v_proj": 3.0}
    arrays = {
        name: StoredArray(
            shape,
            "float32",
            lambda n=name, s=shape: np.full(
                s, next((v for key, v in order.items() if key in n), 0), np.float32
            ),
        )
        for name, shape in shapes.items()
    }
    network = load_transformer(Weights(arrays, "made up"), TINY, "transformers")
    matrix = np.array(network.blocks[0].qkv.weight)
    assert [matrix[rows : rows + 64].mean() for rows in (0, 64, 128)] == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes(dtype: str):
    expected = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[dtype]
    assert {array.dtype for _, array in tree_flatten(transformer(TINY, dtype=dtype).parameters())} == {
        expected
    }


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_matrices_are_close(bits: int):
    plain = transformer(TINY).heads.weight
    layer = transformer(TINY, bits=bits).heads
    rows, columns = plain.shape
    shapes = [part.shape for part in (layer.weight, layer.scales, layer.biases)]
    assert shapes == [(rows, columns * bits // 32), (rows, columns // 64), (rows, columns // 64)]
    restored = restore(layer, bits)
    span = float(plain.max() - plain.min())
    assert float(mx.abs(restored - plain).max()) <= span / (2**bits - 1)
    np.testing.assert_array_equal(np.array(restore(outputs(layer, 3, 5), bits)), np.array(restored[3:5]))


def restore(layer: Any, bits: int) -> mx.array:
    return mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=64, bits=bits)


def test_linear_layers_are_those_without_a_bias():
    names = [one.name for one in parameters(outline(TINY, bits=8)) if one.quantizes]
    assert len(names) == 6 * TINY.layers + 1
    assert not any("norm" in name or name.startswith(("text", "embeddings")) for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"bits": 3}, "bits must be one of 4, 8"),
        ({"bits": 4, "stored_bits": 8}, "stored in 8 bits"),
    ],
)
def test_impossible_precision(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        load_transformer(RandomTable(), SMALL, "audiogen", **options)


def test_a_model_too_narrow_to_be_quantised():
    narrow = Config(**{**vars(TINY), "width": 48, "heads": 4})
    with pytest.raises(OptionError, match="its width, 48, is no multiple of 64"):
        load_transformer(RandomTable(), narrow, "audiogen", bits=8)
