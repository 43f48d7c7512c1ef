"""EnCodec against outputs of the original implementations, on every adapter and from every layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs
from audiogen_core.codec import Codec
from audiogen_core.ops import resolve

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encodec"

ADAPTERS = ["numpy", "torch", "mlx-cpu", "mlx-gpu"]


def adapter(name: str):
    """An adapter; mlx takes other ways on a CPU than elsewhere, and both run here."""
    if name.startswith("mlx"):
        from audiogen_mlx.ops import MlxOps

        return MlxOps(on_cpu=name == "mlx-cpu")
    return resolve(name)


@pytest.fixture(params=ADAPTERS)
def ops(request):
    return adapter(request.param)


def audiocraft_package(tmp_path: Path, folder: str) -> Path:
    """The codec of a transformers folder as audiocraft packs it: its names, and its YAML of settings."""
    import torch
    from safetensors.torch import load_file

    renamed = {}
    for name, tensor in load_file(FIXTURES / folder / "model.safetensors").items():
        side, rest = name.split(".layers.", 1)
        if side == "quantizer":
            name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(
                ".codebook.", "._codebook."
            )
        else:
            inner = "convtr" if side == "decoder" and rest.split(".")[0] in ("3", "6", "9", "12") else "conv"
            name = f"{side}.model.{rest}".replace(".conv.", f".{inner}.{inner}.")
            name = name.replace("parametrizations.weight.original0", "weight_g")
            name = name.replace("parametrizations.weight.original1", "weight_v")
        renamed[name] = tensor
    config = json.loads((FIXTURES / folder / "config.json").read_text())
    settings = f"""
sample_rate: {config["sampling_rate"]}
channels: 1
compression_model: encodec
encodec: {{autoencoder: seanet, quantizer: rvq, sample_rate: '${{sample_rate}}', channels: '${{channels}}',
  causal: {str(config["use_causal_conv"]).lower()}, renormalize: false}}
seanet: {{dimension: 12, channels: '${{channels}}', causal: '${{encodec.causal}}', n_filters: 2,
  n_residual_layers: 1, ratios: {config["upsampling_ratios"]}, activation: ELU, norm: weight_norm,
  kernel_size: 7, residual_kernel_size: 3, last_kernel_size: 7, dilation_base: 2, pad_mode: reflect,
  true_skip: {str(not config["use_conv_shortcut"]).lower()}, compress: 2, lstm: 2,
  decoder: {{trim_right_ratio: 1.0, final_activation: null}}, encoder: {{}}}}
rvq: {{n_q: {8 if folder == "24k" else 4}, bins: 64}}
"""
    path = tmp_path / "compression_state_dict.bin"
    torch.save({"best_state": renamed, "xp.cfg": settings, "version": "1.4.0a2", "exported": True}, path)
    return path


def layouts(tmp_path: Path) -> list[tuple[str, Path]]:
    return [
        ("24k", FIXTURES / "24k"),
        ("32k", FIXTURES / "32k"),
        ("24k", FIXTURES / "24k" / "original_encodec_state_dict.th"),
        ("24k", audiocraft_package(tmp_path, "24k")),
    ]


def encode(codec: Codec, clip: np.ndarray, codebooks: int) -> np.ndarray:
    return np.concatenate(list(codec.encode_blocks([clip], codebooks)), axis=1)


def decode(codec: Codec, codes: np.ndarray) -> np.ndarray:
    return np.concatenate(list(codec.decode_blocks([codes])), axis=1)


def agrees(codec: Codec, stored: dict[str, np.ndarray]) -> None:
    """Codes equal and audio to 1e-4 at every stored length and bandwidth."""
    bandwidths = [name.removeprefix("codes_") for name in stored if name.startswith("codes_bw")]
    assert bandwidths
    for bandwidth in bandwidths:
        codes = stored[f"codes_{bandwidth}"][0, 0]
        np.testing.assert_array_equal(encode(codec, stored["input_values"][0], len(codes)), codes)
        audio = stored[f"audio_{bandwidth}"][0]
        np.testing.assert_allclose(decode(codec, codes), audio, rtol=0, atol=1e-4)
    for clip, codes in zip(stored["batch_input"], stored["batch_codes"][0], strict=True):
        np.testing.assert_array_equal(encode(codec, clip, len(codes)), codes)
    for codes, audio in zip(stored["random_codes"][0], stored["random_codes_audio"], strict=True):
        np.testing.assert_allclose(decode(codec, codes), audio, rtol=0, atol=1e-4)


def test_agrees_with_the_original_from_every_layout(ops, tmp_path):
    for folder, path in layouts(tmp_path):
        agrees(codecs.load(path, ops), dict(np.load(FIXTURES / folder / "io.npz")))


def test_agrees_from_an_audiocraft_package_without_causal_convolutions(ops, tmp_path):
    path = audiocraft_package(tmp_path, "32k")
    agrees(codecs.load(path, ops), dict(np.load(FIXTURES / "32k" / "io.npz")))


@pytest.mark.parametrize("folder", ["24k", "32k"])
def test_latents_of_seven_samples(ops, folder):
    """A clip shorter than the padding takes the original's detour through zeros."""
    from audiogen_core.layers import whole

    stored = np.load(FIXTURES / folder / "io.npz")
    codec = codecs.load(FIXTURES / folder, ops)
    for clip, latent in (("short_input", "short_latent"), ("input_values", "latent")):
        made = whole(ops, codec._encoder, ops.signal(stored[clip]))
        np.testing.assert_allclose(ops.numpy(made), stored[latent], rtol=0, atol=1e-4)


@pytest.mark.parametrize("folder", ["24k", "32k"])
def test_random_codes_sum_to_the_original_vectors(ops, folder):
    stored = np.load(FIXTURES / folder / "io.npz")
    codec = codecs.load(FIXTURES / folder, ops)
    for codes, vectors in zip(stored["random_codes"][0], stored["random_codes_quantized"], strict=True):
        np.testing.assert_allclose(ops.numpy(codec._lookup(codes))[0], vectors, rtol=0, atol=1e-5)
        summed = sum(codec.codebook_vectors()[k][row] for k, row in enumerate(codes))
        np.testing.assert_allclose(summed.T, vectors, rtol=0, atol=1e-5)
