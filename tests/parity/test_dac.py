"""LAC against outputs of the original, and DAC against transformers' own model, on every adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core import codecs
from audiogen_core.codec import Codec
from audiogen_core.layers import whole
from audiogen_core.ops import resolve
from support.exact import ExactOps

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vampnet"
SIZES = ["small", "big"]


@pytest.fixture(params=["numpy", "torch", "mlx"])
def ops(request):
    if request.param == "mlx":
        from audiogen_mlx.ops import MlxOps

        return MlxOps()
    return resolve(request.param)


def load(size: str, ops: Any) -> Codec:
    return codecs.load_codec(FIXTURES / size / "codec.pth", ops)


def encode(codec: Codec, clip: np.ndarray, count: int | None = None) -> np.ndarray:
    return np.concatenate(list(codec.encode_blocks([clip], count)), axis=1)


def decode(codec: Codec, codes: np.ndarray) -> np.ndarray:
    return np.concatenate(list(codec.decode_blocks([codes])), axis=1)


def summed(codec: Codec, codes: np.ndarray) -> np.ndarray:
    return codec.ops.numpy(codec._lookup(codes))[0]


def close(made: np.ndarray, stored: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(made, stored, rtol=0, atol=atol)


def audio_close(codec: Codec, made: np.ndarray, stored: np.ndarray, codes: np.ndarray, size: str) -> None:
    """To 1e-4; the big network multiplies rounding so much that the original itself is further off.

    It is held to the original's own distance from the same network in float64, with room for another
    order of summation.
    """
    if size == "small":
        return close(made, stored)
    exact = decode(load(size, ExactOps()), codes)[:, : stored.shape[1]]
    own = np.abs(stored - exact).max()
    assert np.abs(made - exact).max() <= max(1e-4, 2 * own)


@pytest.mark.parametrize("size", SIZES)
def test_codes_of_the_original_at_every_length(ops, size):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    for i in range(3):
        for item, clip in enumerate(stored[f"audio_in_{i}"]):
            expected, margin = stored[f"codes_{i}"][item], stored[f"margin_{i}"][item]
            assert clip.shape[1] == stored[f"length_{i}"]
            made = encode(codec, clip)
            assert made.shape == expected.shape
            np.testing.assert_array_equal(made[margin > 1e-5], expected[margin > 1e-5])
            np.testing.assert_array_equal(encode(codec, clip, 3), made[:3])


@pytest.mark.parametrize("size", SIZES)
def test_latents_of_the_original(ops, size):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    for i in range(3):
        for item, clip in enumerate(stored[f"audio_in_{i}"]):
            encoded = whole(ops, codec._encoder, ops.signal(clip[None]))
            close(ops.numpy(encoded)[0], stored[f"enc_{i}"][item])
            steps = codec._quantizer.steps(ops.signal(stored[f"enc_{i}"][item][None]), codec.info.codebooks)
            seen = np.concatenate([ops.numpy(small)[0] for small, _ in steps])
            close(seen, stored[f"latents_{i}"][item])
            codes = stored[f"codes_{i}"][item]
            close(summed(codec, codes), stored[f"zq_{i}"][item])
            close(summed(codec, codes[:3]), stored[f"zq_nq3_{i}"][item])


@pytest.mark.parametrize("size", SIZES)
def test_audio_of_the_original(ops, size):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    for i in range(3):
        for item, codes in enumerate(stored[f"codes_{i}"]):
            expected = stored[f"audio_out_{i}"][item]
            audio_close(codec, decode(codec, codes)[:, : expected.shape[1]], expected, codes, size)


@pytest.mark.parametrize("size", SIZES)
def test_random_codes_as_the_original_decodes_them(ops, size):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    vectors = codec.codebook_vectors()
    for item, codes in enumerate(stored["dec_codes"]):
        rows = np.concatenate([vectors[k][row].T for k, row in enumerate(codes)])
        np.testing.assert_array_equal(rows, stored["dec_zp"][item])
        close(summed(codec, codes), stored["dec_zq"][item])
        audio_close(codec, decode(codec, codes), stored["dec_audio"][item], codes, size)


@pytest.mark.parametrize(("size", "coarse"), [("small", 2), ("big", 4)])
def test_fewer_codebooks_as_the_original_decodes_them(ops, size, coarse):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    for item, codes in enumerate(stored["dec_codes"]):
        expected = stored["dec_coarse_audio"][item]
        audio_close(codec, decode(codec, codes[:coarse]), expected, codes[:coarse], size)


@pytest.mark.parametrize("size", SIZES)
def test_entries_find_themselves(ops, size):
    """The original quantises entries again before it decodes tokens; here every one comes back."""
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    width = codec.codebook_vectors().shape[2]
    for item, latents in enumerate(stored["dec_zp"]):
        parts = latents.reshape(codec.info.codebooks, width, -1)
        found = [
            ops.indices_numpy(book.nearest(ops.signal(part[None])))[0]
            for book, part in zip(codec._quantizer.books, parts, strict=True)
        ]
        np.testing.assert_array_equal(found, stored["from_latents_codes"][item])
        close(summed(codec, np.array(found)), stored["from_latents_z"][item])


@pytest.mark.parametrize("size", SIZES)
def test_masked_tokens_decode_as_code_zero(ops, size):
    codec, stored = load(size, ops), np.load(FIXTURES / f"{size}_codec.npz")
    for item, tokens in enumerate(stored["vamp_decode_codes"]):
        codes = np.where(tokens == codec.info.codebook_size, 0, tokens)
        assert (codes != tokens).any()
        audio_close(codec, decode(codec, codes), stored["vamp_decode_audio"][item], codes, size)


RATIOS = [[2, 4], [2, 5], [3, 2, 5]]


@pytest.fixture(scope="module", params=RATIOS, ids=str)
def dac(request, tmp_path_factory):
    """transformers' DAC with random weights, and its folder; strides of five leave the decoder short."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(7)
    model = DacModel(
        DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=request.param,
            decoder_hidden_size=32,
            n_codebooks=5,
            codebook_size=32,
            codebook_dim=4,
            sampling_rate=24000,
        )
    ).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape) * (0.5 / max(1, tensor[0].numel()) ** 0.5))
        for name, tensor in model.named_parameters():
            if name.endswith("alpha"):
                tensor.copy_(tensor.abs() + 0.5)
    folder = tmp_path_factory.mktemp("dac")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("samples", [1, 37, 240, 2401])
def test_dac_as_transformers_computes_it(ops, dac, samples):
    model, folder = dac
    codec = codecs.load_codec(folder, ops)
    assert codec.info.name.startswith("dac-24khz@")
    clip = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32)
    padded = np.pad(clip, ((0, 0), (0, -samples % codec.info.hop_length)))
    with torch.no_grad():
        expected = model.encode(torch.tensor(padded[None]))
        audio = model.decode(audio_codes=expected.audio_codes).audio_values.numpy()
    np.testing.assert_array_equal(encode(codec, clip), expected.audio_codes[0].numpy())
    made = decode(codec, expected.audio_codes[0].numpy())
    assert made.shape[1] == padded.shape[1]
    close(made[:, : audio.shape[1]], audio, atol=1e-5)
    assert not made[:, audio.shape[1] :].any()  # what the original does not make is silence
