"""The frame codec: adapters agree, chunks give the whole, files are read strictly, the weights work."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audiogen_core import Audio, codecs
from audiogen_core.codecs import frame
from audiogen_core.codecs.frame import FrameConfig, dequantize, quantize, synthesis_basis
from audiogen_core.compose import DEFAULT_STYLES, compose
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.layers import whole
from audiogen_core.ops import resolve
from audiogen_core.weights import read
from support.exact import ExactOps, coded, strays

DATA = files("audiogen_core") / "data"
TINY = FrameConfig(
    hop_length=8,
    window=32,
    width=6,
    expansion=2,
    kernel=5,
    encoder_blocks=2,
    decoder_blocks=1,
    dimension=4,
    codebooks=3,
    codebook_size=16,
    output_scale=0.7,
)


def tiny_tensors(config: FrameConfig = TINY) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    tensors = {"codebooks": draw.standard_normal((config.codebooks, config.codebook_size, config.dimension))}

    def linear(name, inputs, outputs):
        tensors[f"{name}.weight"] = draw.standard_normal((outputs, inputs)) / np.sqrt(inputs)
        tensors[f"{name}.bias"] = 0.1 * draw.standard_normal(outputs)

    width, bins = config.width, 2 * config.bins
    sides = {
        "encoder": (bins, config.encoder_blocks, config.dimension),
        "decoder": (config.dimension, config.decoder_blocks, bins),
    }
    for side, (inputs, blocks, outputs) in sides.items():
        linear(f"{side}.input", inputs, width)
        linear(f"{side}.output", width, outputs)
        for i in range(blocks):
            name = f"{side}.blocks.{i}"
            tensors[f"{name}.depthwise.weight"] = draw.standard_normal((width, 1, config.kernel))
            for part in ("depthwise.bias", "norm.weight", "norm.bias", "scale"):
                tensors[f"{name}.{part}"] = draw.standard_normal(width)
            linear(f"{name}.up", width, config.expansion * width)
            linear(f"{name}.down", config.expansion * width, width)
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def write(path, tensors, config=TINY, **metadata):
    from safetensors.numpy import save_file

    facts = {"format": frame.FORMAT, "config": config if isinstance(config, str) else config.to_json()}
    save_file(tensors, path, metadata=facts | metadata)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("frame") / "tiny.safetensors", tiny_tensors())


@pytest.fixture(scope="module", params=["numpy", "torch"])
def demo(request):
    return codecs.load("demo", request.param)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, samples)).astype(np.float32) * 0.3


@settings(max_examples=40)
@given(
    samples=st.integers(1, 2000),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    chunk=st.sampled_from([8, 40, 160, 1000]),
)
def test_blocks_give_what_the_whole_gives(tiny, samples, cuts, chunk):
    codec = codecs.load(tiny)
    x = noise(samples, seed=samples)
    codec.chunk_seconds = 60.0
    whole = np.concatenate(list(codec.encode_blocks([x])), axis=1)
    decoded = np.concatenate(list(codec.decode_blocks([whole])), axis=1)
    assert whole.shape == (3, -(-samples // 8))
    assert decoded.shape == (1, whole.shape[1] * 8)
    codec.chunk_seconds = chunk / 24000
    bounds = np.minimum(np.cumsum([0, *cuts]), samples)
    blocks = [x[:, a:b] for a, b in zip(bounds, [*bounds[1:], samples], strict=True)]
    pieces = np.concatenate(list(codec.encode_blocks(blocks)), axis=1)
    assert (pieces == whole).mean() > 0.99  # a float32 sum in another order may tip an even choice
    chunked = np.concatenate(list(codec.decode_blocks([whole[:, :1], whole[:, 1:]])), axis=1)
    np.testing.assert_allclose(chunked, decoded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 31, 33, 1000])
def test_numpy_and_torch_agree(tiny, samples):
    first, second = codecs.load(tiny, "numpy"), codecs.load(tiny, "torch")
    audio = Audio(noise(samples), 24000)
    codes = first.encode(audio)
    assert (codes.values == second.encode(audio).values).mean() > 0.99
    np.testing.assert_allclose(first.decode(codes).samples, second.decode(codes).samples, rtol=0, atol=1e-5)
    assert first.info == second.info
    assert first.info.name.startswith("frame-24khz@")


@pytest.mark.parametrize("name", ["numpy", "torch", "mlx-cpu"])
def test_latents_and_codes_of_music_are_those_of_float64(name):
    """Of a clip that had a lower rate: the bins above are almost empty, and the encoder listens there too."""
    from audiogen_mlx.ops import MlxOps

    ops, exact = MlxOps(on_cpu=True) if name == "mlx-cpu" else resolve(name), ExactOps()
    audio = compose(3, seconds=3.0).audio.resample(16_000).resample(24_000)
    made, truth = frame.load_demo(ops), frame.load_demo(exact)
    clip = audio.samples[None]
    latents = ops.numpy(whole(ops, made._encoder, ops.signal(clip)))[0]
    expected = exact.numpy(whole(exact, truth._encoder, exact.signal(clip)))[0]
    off = np.linalg.norm(latents - expected, axis=0) / np.linalg.norm(expected, axis=0)
    assert off.max() < 5e-6
    codes, margins = coded(truth, audio)
    assert strays(made.encode(audio).values, codes, margins).max(initial=0) < 5e-6


@pytest.mark.parametrize(("window", "hop_length"), [(32, 8), (1280, 320), (24, 12), (60, 10)])
def test_the_inverse_transform_undoes_the_transform(window, hop_length):
    frames = 12
    edge = (window - hop_length) // 2
    x = noise(frames * hop_length)[0].astype(np.float64)
    padded = np.pad(x, edge)
    spectrum = resolve("numpy").spectrum(padded[None, None], frame.hann(window), hop_length)[0].T
    total = np.zeros(len(padded))
    for k, column in enumerate(spectrum):
        total[k * hop_length :][:window] += column @ synthesis_basis(window, hop_length)
    middle = slice(window, len(x) - window)
    if window > 2 * hop_length:  # squared Hann windows add up to a constant from three hops on
        np.testing.assert_allclose(total[edge : edge + len(x)][middle], x[middle], atol=1e-5)


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e3, 1e3, width=32))
)
def test_quantised_rows_are_off_by_half_a_step_at_most(weight):
    stored = quantize(weight)
    assert stored[".weight"].dtype == np.int8
    assert stored[".weight.scale"].dtype == np.float16
    scale = stored[".weight.scale"].astype(np.float32)[:, None]
    back = stored[".weight"].astype(np.float32) * scale
    assert (np.abs(back - weight) <= 0.51 * scale).all()
    assert (scale[:, 0] <= np.maximum(np.abs(weight).max(axis=1), 1e-4) / 127 * 1.01 + 1e-6).all()


def test_a_quantised_file_gives_nearly_the_same_sound(tiny, tmp_path):
    stored = {}
    for name, values in tiny_tensors().items():
        stem = name.removesuffix(".weight")
        if values.ndim == 2 and stem != name:
            stored |= {stem + suffix: array for suffix, array in quantize(values).items()}
        else:
            stored[name] = values.astype(np.float16)
    small = write(tmp_path / "small.safetensors", stored)
    np.testing.assert_array_equal(
        dequantize(read(small), "encoder.input.weight", (6, 34)),
        stored["encoder.input.weight"].astype(np.float32)
        * stored["encoder.input.weight.scale"].astype(np.float32)[:, None],
    )
    whole, quantised = codecs.load(tiny), codecs.load(small)
    codes = whole.encode(Audio(noise(800), 24000)).values
    a, b = (np.concatenate(list(codec.decode_blocks([codes])), axis=1) for codec in (whole, quantised))
    assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


@pytest.mark.parametrize(
    "change",
    [
        {"window": 30},
        {"window": 24},
        {"hop_length": 0},
        {"width": -1},
        {"width": 2.5},
        {"width": "6"},
        {"kernel": 4},
        {"codebooks": 1 << 40},
        {"floor": float("nan")},
        {"input_scale": float("inf")},
        {"encoder_blocks": True},
        {"surplus": 1},
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, change):
    config = json.dumps(json.loads(TINY.to_json()) | change)
    with pytest.raises(ModelError, match="configuration is damaged"):
        codecs.load(write(tmp_path / "c.safetensors", tiny_tensors(), config))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"text"'])
def test_a_configuration_that_is_no_table_is_refused(tmp_path, text):
    with pytest.raises(ModelError, match="configuration is damaged"):
        codecs.load(write(tmp_path / "c.safetensors", tiny_tensors(), text))


def test_another_file_is_refused(tmp_path):
    path = write(tmp_path / "c.safetensors", tiny_tensors(), format="other")
    with pytest.raises(ModelError, match="not a frame codec"):
        codecs.load(path)
    (tmp_path / "d.safetensors").write_bytes(b"no tensors here, only text and more of it")
    with pytest.raises(WeightsError, match=r"d\.safetensors"):
        codecs.load(tmp_path / "d.safetensors")


@pytest.mark.parametrize("name", ["codebooks", "decoder.output.bias", "encoder.blocks.1.depthwise.weight"])
def test_a_missing_or_misshapen_tensor_is_named(tmp_path, name):
    tensors = tiny_tensors()
    taken = tensors.pop(name)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        codecs.load(write(tmp_path / "missing.safetensors", tensors))
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        codecs.load(write(tmp_path / "shape.safetensors", tensors | {name: taken[:1]}))


def test_weights_of_another_size_do_not_fit(tmp_path):
    with pytest.raises(WeightsError, match="encoder"):
        codecs.load(write(tmp_path / "c.safetensors", tiny_tensors(), replace(TINY, encoder_blocks=1)))


def test_the_shipped_codec_says_what_it_is(demo):
    info = demo.info
    assert (info.name, info.sample_rate, info.channels, info.hop_length) == ("demo", 24000, 1, 320)
    assert (info.codebooks, info.codebook_size, info.frame_rate) == (8, 1024, 75.0)
    assert demo.codebook_vectors().shape == (8, 1024, 128)


def test_the_shipped_files_are_small_and_have_their_card():
    assert len((DATA / "demo.safetensors").read_bytes()) < 8e6
    card = (DATA / "demo.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "synthetic music only", "Opus", "held out", "off the frames", "seed"):
        assert word in card


@pytest.mark.parametrize("style", DEFAULT_STYLES)
def test_the_shipped_codec_keeps_a_piece_it_has_never_heard(demo, style):
    piece = compose(3_000_000_000, seconds=4, style=style).audio
    decoded = demo.decode(demo.encode(piece, 4)).samples
    x, y = piece.samples[0].astype(np.float64), decoded[0].astype(np.float64)
    wanted = (x @ y) / (x @ x) * x
    assert 10 * np.log10((wanted @ wanted) / np.sum((y - wanted) ** 2)) > 9  # dB
    assert y.shape == x.shape


def test_the_shipped_codec_agrees_between_adapters():
    first, second = codecs.load("demo", "numpy"), codecs.load("demo", "torch")
    piece = compose(3_000_000_001, seconds=3.3).audio
    codes = first.encode(piece)
    assert (codes.values == second.encode(piece).values).mean() > 0.999
    np.testing.assert_allclose(first.decode(codes).samples, second.decode(codes).samples, atol=1e-4)


def test_the_shipped_codec_gives_the_whole_in_chunks(demo):
    piece = compose(3_000_000_002, seconds=5).audio
    whole, size = codecs.load("demo", demo.ops), demo.chunk_seconds
    whole.chunk_seconds = 60.0
    codes = whole.encode(piece)
    blocks = np.array_split(piece.samples, 7, axis=1)
    try:
        demo.chunk_seconds = 0.5
        values = np.concatenate(list(demo.encode_blocks(blocks)), axis=1)
        samples = np.concatenate(list(demo.decode_blocks([codes.values])), axis=1)
    finally:
        demo.chunk_seconds = size
    assert (values == codes.values).mean() > 0.999
    np.testing.assert_allclose(samples, whole.decode(codes).samples, atol=1e-5)


def test_equal_bars_get_equal_codes(demo):
    piece = compose(3, seconds=40, style="music box")
    bar = (
        16 * 12
        if piece.attributes["tempo"] == "slow"
        else 160
        if piece.attributes["tempo"] == "medium"
        else 144
    )
    codes = demo.encode(piece.audio, 4).values
    first, again = codes[:, bar + 40 : 4 * bar - 20], codes[:, 5 * bar + 40 : 8 * bar - 20]
    assert (first == again).mean() > 0.99  # phrases A and A', away from what came before


def test_silence_stays_quiet(demo):
    silence = Audio(np.zeros((1, 24000), np.float32), 24000)
    assert np.abs(demo.decode(demo.encode(silence)).samples).max() < 0.05


def test_an_adapter_can_be_given():
    assert codecs.load("demo", resolve("numpy")).info.name == "demo"
