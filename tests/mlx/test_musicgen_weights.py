"""Weights: every published model's tensors used up, mistakes in checkpoints named, quantised matrices."""

from __future__ import annotations

import json
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.codecs import encodec
from audiogen_core.errors import OptionError, WeightsError
from audiogen_core.models import ModelSpec
from audiogen_core.weights import StoredArray, Weights
from audiogen_mlx.musicgen.catalog import MUSICGEN
from audiogen_mlx.musicgen.config import Config, from_audiocraft, from_transformers
from audiogen_mlx.musicgen.style import StyleConditioner
from audiogen_mlx.musicgen.weights import (
    IGNORED,
    Quantized,
    Source,
    is_linear,
    parameters,
    quantized_shapes,
)
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.t5 import T5Config, T5Encoder
from audiogen_mlx.t5 import pieces as pieces_of_t5
from support.musicgen_models import SMALL, TINY, RandomTable
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
    used = {
        piece: parameter.piece_shape
        for parameter in parameters(config, layout).values()
        for piece in parameter.pieces
    }
    left = {key: shape for key, shape in shapes.items() if key not in used}
    if config.style is not None:
        table = stored(left)
        StyleConditioner.from_table(table, config.style, lambda: pytest.fail("MERT is not needed"))
        table.finish(IGNORED)
        left = {}
    assert not left
    assert used == {key: shape for key, shape in shapes.items() if key in used}
    Source(stored(shapes), config, layout)  # complete


@pytest.mark.parametrize(
    "name", [name for name in FETCHED if name not in ("musicgen-style", "audiogen-medium")]
)
def test_parameters_are_as_many_as_transformers_counts(name: str):
    config, layout = config_of(name)
    count = sum(math.prod(parameter.shape) for parameter in parameters(config, layout).values())
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


def pieces(layout: str = "audiogen") -> dict[str, tuple[int, ...]]:
    return {
        piece: parameter.piece_shape
        for parameter in parameters(TINY, layout).values()
        for piece in parameter.pieces
    }


def test_what_is_missing_is_named():
    shapes = pieces("transformers")
    del shapes["decoder.model.decoder.layers.1.fc1.weight"]
    with pytest.raises(WeightsError, match=r"missing \(1\): decoder\.model\.decoder\.layers\.1\.fc1\.weight"):
        Source(stored(shapes), TINY, "transformers")


def test_what_is_misshapen_is_named():
    shapes = pieces("audiocraft") | {"linears.2.weight": (16, 63)}
    with pytest.raises(WeightsError, match=r"linears\.2\.weight \(16, 63\) instead of \(16, 64\)"):
        Source(stored(shapes), TINY, "audiocraft")


def taken(source: Source) -> dict[str, Any]:
    return {name: read() for name, read in source.each()}


def test_what_is_left_over_is_named_and_what_is_known_is_not():
    known = {
        "decoder.model.decoder.embed_positions.weights": (8, 64),
        "text_encoder.shared.weight": (4, 4),
        "audio_encoder.anything": (1,),
    }
    source = Source(stored(pieces("transformers") | known), TINY, "transformers")
    taken(source)
    source.finish()
    source = Source(stored(pieces("transformers") | {"decoder.extra.weight": (1,)}), TINY, "transformers")
    taken(source)
    with pytest.raises(WeightsError, match=r"unexpected \(1\): decoder\.extra\.weight"):
        source.finish()


def test_values_that_are_not_finite_are_refused():
    source = Source(stored(pieces(), fill=math.nan), TINY, "audiogen")
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        source.vector("norm.weight")


def test_pieces_are_put_below_one_another():
    shapes = pieces("transformers")
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
    matrix = np.array(Source(Weights(arrays, "made up"), TINY, "transformers").array("layers.0.attention.in"))
    assert [matrix[rows : rows + 64].mean() for rows in (0, 64, 128)] == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes(dtype: str):
    source = Source(RandomTable(), TINY, "audiogen", dtype=dtype)
    expected = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[dtype]
    assert source.array("heads").dtype == expected
    assert source.vector("norm.weight").dtype == mx.float32


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_matrices_are_close(bits: int):
    plain = Source(RandomTable(), TINY, "audiogen").array("heads")
    matrix = Source(RandomTable(), TINY, "audiogen", bits=bits).matrix("heads")
    assert isinstance(matrix, Quantized)
    parts = (matrix.packed, matrix.scales, matrix.offsets)
    assert tuple(part.shape for part in parts) == quantized_shapes(plain.shape, bits)
    restored = mx.dequantize(*parts, group_size=64, bits=bits)
    span = float(plain.max() - plain.min())
    assert float(mx.abs(restored - plain).max()) <= span / (2**bits - 1)
    rows = matrix.rows(3, 5)
    np.testing.assert_array_equal(
        np.array(mx.dequantize(rows.packed, rows.scales, rows.offsets, group_size=64, bits=bits)),
        np.array(restored[3:5]),
    )


def test_linear_layers_are_those_without_a_bias():
    names = [name for name in parameters(TINY, "audiogen") if is_linear(name)]
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
        Source(RandomTable(), SMALL, "audiogen", **options)


def test_a_model_too_narrow_to_be_quantised():
    narrow = Config(**{**vars(TINY), "width": 48, "heads": 4})
    with pytest.raises(OptionError, match="its width, 48, is no multiple of 64"):
        Source(RandomTable(), narrow, "audiogen", bits=8)
