"""Stable Audio's autoencoder against outputs of the original, from every layout and on every adapter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from audiogen_core import Audio, RecordedNoise, codecs
from audiogen_core.codec import Autoencoder
from audiogen_core.layers import Convolutional, whole
from audiogen_core.ops import resolve
from support.pieces import cut_small

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
LAYOUTS = [
    ("small", "tiny-small"),
    ("v10", "tiny-1.0"),
    ("v10", "tiny-1.0-diffusers"),
    ("v10", "tiny-1.0-diffusers/vae"),
    ("v10", "tiny-1.0/model.safetensors"),
]


@pytest.fixture(params=["numpy", "torch", "mlx"])
def ops(request):
    if request.param == "mlx":
        from audiogen_mlx.ops import MlxOps

        return MlxOps()
    return resolve(request.param)


def decode(made: Autoencoder, values: np.ndarray) -> np.ndarray:
    return np.concatenate(list(made.decode_blocks([values])), axis=1)


def agrees(made: Autoencoder, stored: dict[str, np.ndarray]) -> None:
    """Every stored array of the autoencoder to 1e-4."""
    clip = Audio(stored["audio"][0], made.info.sample_rate)
    mean = made.encode(clip).values
    np.testing.assert_allclose(mean, stored["mean"][0], rtol=0, atol=1e-4)
    drawn = made.encode(clip, RecordedNoise([stored["noise"]])).values
    np.testing.assert_allclose(drawn, stored["latent"][0], rtol=0, atol=1e-4)
    parts = made.ops.numpy(whole(made.ops, made._encoder, made.ops.signal(stored["audio"])))
    np.testing.assert_allclose(parts, stored["pre_bottleneck"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(parts[:, len(mean) :], stored["scale"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(drawn - mean, stored["std"][0] * stored["noise"][0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(decode(made, stored["z"][0]), stored["decoded"][0], rtol=0, atol=1e-4)
    short = decode(made, stored["z_short"][0])
    np.testing.assert_allclose(short, stored["decoded_short"][0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "path"), LAYOUTS, ids=[path for _, path in LAYOUTS])
def test_agrees_with_the_original_from_every_layout(ops, size, path):
    made = codecs.load_autoencoder(FIXTURES / path, ops)
    agrees(made, dict(np.load(FIXTURES / f"{size}_vae.npz")))


@pytest.mark.parametrize("prefix", ["", "autoencoder.", "diffusion.pretransform.model."])
def test_agrees_from_torch_files_of_an_autoencoder_alone(tmp_path, prefix):
    """A bare autoencoder and training checkpoints, as .ckpt, with an autoencoder's own settings."""
    tensors = load_file(FIXTURES / "tiny-small" / "model.safetensors")
    own = "pretransform.model."
    state = {
        prefix + name.removeprefix(own): torch.tensor(array)
        for name, array in tensors.items()
        if name.startswith(own)
    }
    assert len(state) == 365
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    settings = json.loads((FIXTURES / "tiny-small" / "model_config.json").read_text())
    settings = settings | {"model_type": "autoencoder", "model": settings["model"]["pretransform"]["config"]}
    (tmp_path / "model_config.json").write_text(json.dumps(settings))
    for path in (tmp_path, tmp_path / "model.ckpt"):
        agrees(codecs.load_autoencoder(path), dict(np.load(FIXTURES / "small_vae.npz")))


def test_the_decoder_layer_by_layer(ops):
    """Mean, deviation, largest value and shape after each layer of the original's decoder."""
    from audiogen_core.layers import run

    stored = np.load(FIXTURES / "small_vae.npz")
    stages = codecs.load_autoencoder(FIXTURES / "tiny-small", ops)._decoder
    layers = [layer for stage in stages if isinstance(stage, Convolutional) for layer in stage.layers]
    assert len(layers) == 1 + 5 * 5 + 2  # what the original nests, in one row
    ends = [1, *(1 + 5 * block for block in range(1, 6)), 27, 28]
    x, done = ops.signal(stored["z_short"]), 0
    for tap, end in enumerate(ends):
        x, done = run(ops, layers[done:end], x), end
        values = ops.numpy(x).astype(np.float64)
        facts = [values.mean(), values.std(ddof=1), np.abs(values).max(), *values.shape[1:]]
        np.testing.assert_allclose(facts, stored[f"dec_tap_{tap}_stats"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(stored["dec_tap_7_stats"], stored["dec_tap_8_stats"])


def test_both_layouts_are_one_autoencoder():
    tools = codecs.load_autoencoder(FIXTURES / "tiny-1.0")
    diffusers = codecs.load_autoencoder(FIXTURES / "tiny-1.0-diffusers")
    assert tools.info == diffusers.info
    assert tools.info.name.startswith("oobleck-44khz@")


def test_the_whole_where_the_original_cuts_hard(ops):
    """Its chunked decoding with few frames in common differs from the whole; ours does not."""
    stored = np.load(FIXTURES / "small_vae.npz")
    made = codecs.load_autoencoder(FIXTURES / "tiny-small", ops)
    made.chunk_frames = 8
    cut_small(made, 2)
    chunked = decode(made, stored["z"][0])
    np.testing.assert_allclose(chunked, stored["decoded"][0], rtol=0, atol=1e-5)
    assert np.abs(stored["decoded_chunked_cs8_ol4"][0] - stored["decoded"][0]).max() > 1e-2
    v10, tiled = np.load(FIXTURES / "v10_vae.npz"), np.load(FIXTURES / "diffusers.npz")
    other = codecs.load_autoencoder(FIXTURES / "tiny-1.0-diffusers", ops)
    other.chunk_frames = 8
    cut_small(other, 2)
    chunked = decode(other, v10["z"][0])
    np.testing.assert_allclose(chunked, v10["decoded"][0], rtol=0, atol=1e-5)
    assert np.abs(tiled["vae_decode_tiled_8_2"][0] - chunked).max() > 1e-2
