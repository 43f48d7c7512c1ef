"""SAME, Stable Audio 3's autoencoder, against outputs of the original: every layout, every adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core import Audio, RecordedNoise, codecs
from audiogen_core.codecs.same import LATENT_NOISE, Keep, Same, Transformer
from audiogen_core.layers import run
from audiogen_core.ops import resolve

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
PATHS = {"small": "tiny-small", "base": "tiny-small-base", "medium": "tiny-medium"}
LAYOUTS = [
    ("small", "tiny-small"),
    ("base", "tiny-small-base"),
    ("medium", "tiny-medium"),
    ("medium", "tiny-medium-diffusers"),
    ("medium", "tiny-medium-diffusers/vae"),
    ("medium", "tiny-medium/model.safetensors"),
]


@pytest.fixture(params=["numpy", "torch", "mlx-cpu", "mlx-gpu"])
def ops(request):
    if request.param.startswith("mlx"):
        from audiogen_mlx.ops import MlxOps

        return MlxOps(on_cpu=request.param == "mlx-cpu")
    return resolve(request.param)


def load(path: str, ops: object = "numpy") -> Same:
    made = codecs.load_autoencoder(FIXTURES / path, ops)
    assert isinstance(made, Same)
    return made


def decode(made: Same, values: np.ndarray) -> np.ndarray:
    return np.concatenate(list(made.decode_blocks([values])), axis=1)


def clip(made: Same, samples: np.ndarray) -> Audio:
    return Audio(samples, made.info.sample_rate)


def agree(made: np.ndarray, stored: np.ndarray, within: float = 1e-4) -> None:
    assert made.shape == stored.shape
    np.testing.assert_allclose(made, stored, rtol=0, atol=within)


def agrees(made: Same, stored: np.lib.npyio.NpzFile) -> None:
    """Every stored clip and all stored latents, also those of batches, each on its own."""
    names = [name.removeprefix("audio_") for name in stored.files if name.startswith("audio_")]
    assert len(names) >= 4
    for name in names:
        for samples, latents in zip(stored[f"audio_{name}"], stored[f"latent_{name}"], strict=True):
            agree(made.encode(clip(made, samples)).values, latents)
    names = [name.removeprefix("z_") for name in stored.files if name.startswith("z_")]
    assert len(names) >= 4
    for name in names:
        for latents, samples in zip(stored[f"z_{name}"], stored[f"decoded_{name}"], strict=True):
            agree(decode(made, latents), samples)


@pytest.mark.parametrize(("size", "path"), LAYOUTS, ids=[path for _, path in LAYOUTS])
def test_agrees_with_the_original_from_every_layout(ops, size, path):
    agrees(load(path, ops), np.load(FIXTURES / f"{size}_same.npz"))


def test_agrees_from_an_autoencoder_alone(tmp_path):
    """The layout of the repositories SAME-S and SAME-L."""
    import json

    own = "pretransform.model."
    tensors = load_file(FIXTURES / "tiny-small" / "model.safetensors")
    alone = {name.removeprefix(own): array for name, array in tensors.items() if name.startswith(own)}
    save_file(alone, tmp_path / "model.safetensors")
    settings = json.loads((FIXTURES / "tiny-small" / "model_config.json").read_text())
    parts = settings["model"]["pretransform"]["config"]
    for side in ("encoder", "decoder"):
        parts[side]["type"] = "same"
    settings |= {"model_type": "autoencoder", "model": parts}
    (tmp_path / "model_config.json").write_text(json.dumps(settings))
    made, whole = codecs.load_autoencoder(tmp_path), load("tiny-small")
    assert made.info == whole.info
    agrees(made, np.load(FIXTURES / "small_same.npz"))


@pytest.mark.parametrize("size", PATHS)
def test_the_network_block_by_block(ops, size):
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size], ops)
    for layers, x, side in (
        (made._decoder_layers, stored["z_3"], "dec"),
        (made._encoder_layers, stored["audio_3"], "enc"),
    ):
        (at,) = [index for index, layer in enumerate(layers) if isinstance(layer, Transformer)]
        transformer = layers[at]
        tokens, half = run(ops, layers[:at], ops.signal(x)), len(transformer.blocks) // 2
        segment = transformer.attention.segment
        for index, block in enumerate(transformer.blocks):
            if segment and index == half:
                shift, length = segment // 2, ops.length(tokens)
                parts = [ops.trim(tokens, 0, length - shift), tokens, ops.trim(tokens, length - shift, 0)]
                tokens = ops.concat(parts)
            tokens = block(ops, tokens, transformer.attention)
            if f"{side}_block{index}" in stored:
                expected = stored[f"{side}_block{index}"]
                values = ops.numpy(tokens)[0].T  # (tokens, width), which the original has in segments
                agree(values, expected.reshape(-1, expected.shape[-1]))
        if side == "enc":
            assert isinstance(layers[at + 1], Keep)


@pytest.mark.parametrize("size", PATHS)
def test_patches_and_what_the_bottleneck_is_given(ops, size):
    """Samples of a patch are the original's, in another order; and the bottleneck is part of a layer here."""
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size], ops)
    folded = ops.numpy(run(ops, made._encoder_layers[:2], ops.signal(stored["audio_3"])))[0]
    channels, count = made.info.channels, stored["patches_3"].shape[2]
    patches = folded.reshape(-1, channels, folded.shape[1]).swapaxes(0, 1).reshape(folded.shape)
    np.testing.assert_array_equal(patches[:, :count], stored["patches_3"][0])
    at = "pretransform.model.bottleneck."
    table = load_file(FIXTURES / PATHS[size] / "model.safetensors")
    scale, bias, deviation = (
        np.float32(table[at + name]) for name in ("scaling_factor", "bias", "running_std")
    )
    latents = made.encode(clip(made, stored["audio_3"][0])).values
    agree((latents * deviation - bias[0]) / scale[0], stored["pre_bottleneck_3"][0])


@pytest.mark.parametrize("size", PATHS)
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_pieces_give_the_whole(ops, size, frames):
    """However few latents are worked on at a time; and a clip may come in any pieces."""
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size], ops)
    made.chunk_frames = frames
    for name in ("z_20", "z_19", "z_9"):
        if name in stored:
            agree(decode(made, stored[name][0]), stored[name.replace("z", "decoded")][0], 1e-5)
    if "audio_20" in stored:
        samples = stored["audio_20"][0]
        made_of = np.concatenate(list(made.encode_blocks([samples[:, :77], samples[:, 77:]])), axis=1)
        agree(made_of, stored["latent_20"][0], 1e-5)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_two_minutes_in_pieces_are_the_whole(size):
    made = load(PATHS[size])
    frames = 120 * made.info.sample_rate // made.info.hop_length
    latents = np.random.default_rng(0).standard_normal((made.info.latent_channels, frames)).astype(np.float32)
    made.chunk_frames = frames + 1
    whole = decode(made, latents)
    made.chunk_frames = 128
    pieces = [block.shape[1] for block in made.decode_blocks([latents])]
    assert max(pieces) <= 128 * made.info.hop_length
    agree(decode(made, latents), whole, 1e-5)


@pytest.mark.parametrize("size", PATHS)
def test_the_cuts_of_the_original(ops, size):
    """Its seams are heard: up to 0.3 from the whole. They are made where they are asked for."""
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size], ops)
    for frames in (19, 20):
        cut = made.decode_as_original(stored[f"z_{frames}"][0], cut=8, overlap=4)
        agree(cut, stored[f"decoded_{frames}_chunk8_overlap4"][0])
    cut = made.encode_as_original(stored["audio_20"][0], cut=8, overlap=4)
    agree(cut, stored["latent_20_chunk8_overlap4"][0])
    short = made.decode_as_original(stored["z_2"][0], cut=8, overlap=4)
    agree(short, stored["decoded_short_chunked"][0])


@pytest.mark.parametrize("size", PATHS)
def test_the_noise_of_the_original(ops, size):
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size], ops)
    noise = RecordedNoise([stored["dec_noise_0"], stored["dec_noise_1"]])
    agree(made.decode_as_original(stored["z_3"][0], noise), stored["decoded_noisy"][0])
    assert noise.left == 0
    noise = RecordedNoise([stored[name] for name in stored.files if name.startswith("enc_noise")])
    assert noise.left == (size == "medium")  # SAME-S encodes without
    agree(made.encode(clip(made, stored["audio_2"][0]), noise).values, stored["latent_noisy"][0])
    assert noise.left == 0
    assert LATENT_NOISE == 1e-3


@pytest.mark.parametrize("size", PATHS)
def test_how_far_a_latent_reaches(size):
    """What the first latent changes, and how much of the sound is taken along with each piece for it."""
    stored, made = np.load(FIXTURES / f"{size}_same.npz"), load(PATHS[size])
    reach = stored["reach_of_latent0"]
    (stage,) = made._decoder
    last = int(np.flatnonzero(reach > 1e-6).max())
    assert min(stage.context) >= last
