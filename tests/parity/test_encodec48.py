"""The 48 kHz family of EnCodec (chunks, loudness, norms in the layers) against transformers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio, Codes, codecs
from audiogen_core.errors import AudioError, CodesError
from audiogen_core.ops import resolve

FOLDER = Path(__file__).parents[1] / "fixtures" / "encodec" / "48k"
RATE, LENGTH, STRIDE, HOP = 4800, 4800, 4752, 32  # the fixture's: a tenth of the published model's


@cache
def codec_on(name: str):
    if name.startswith("mlx"):
        from audiogen_mlx.ops import MlxOps

        return codecs.load(FOLDER, MlxOps(on_cpu=name == "mlx-cpu"))
    return codecs.load(FOLDER, resolve(name))


@pytest.fixture(params=["numpy", "torch", "mlx-cpu", "mlx-gpu"])
def codec(request):
    return codec_on(request.param)


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(FOLDER / "io.npz"))


@pytest.fixture(scope="module")
def theirs():
    from transformers import EncodecModel

    return EncodecModel.from_pretrained(FOLDER).eval()


def flat(codes: np.ndarray, padding: int = 0) -> np.ndarray:
    """transformers' codes (chunks, 1, K, F), the last chunk padded, -> ours (K, all frames)."""
    joined = np.concatenate(list(codes[:, 0]), axis=1)
    return joined[:, : joined.shape[1] - padding]


def clip(samples: int) -> np.ndarray:
    draw = np.random.default_rng(samples)
    swell = 0.05 + np.abs(np.sin(np.arange(samples) / 900))
    return (draw.standard_normal((2, samples)) * swell * 0.2).astype(np.float32)


@pytest.mark.parametrize("bandwidth", ["1.8", "3.6"])
def test_stored_codes_scales_and_audio(codec, stored, bandwidth):
    expected = flat(stored[f"codes_bw{bandwidth}"], int(stored[f"last_frame_pad_length_bw{bandwidth}"]))
    sound = Audio(stored["input_values"][0], RATE)
    codes = codec.encode(sound, codebooks=len(expected))
    np.testing.assert_array_equal(codes.values, expected)
    np.testing.assert_allclose(codes.scales, stored[f"scales_bw{bandwidth}"].ravel(), rtol=1e-5)
    decoded = np.concatenate(list(codec.decode_clip(codes)), axis=1)
    np.testing.assert_allclose(decoded, stored[f"audio_bw{bandwidth}"][0], rtol=0, atol=1e-4)
    trimmed = codec.decode(codes)
    assert trimmed.samples.shape == sound.samples.shape
    np.testing.assert_array_equal(trimmed.samples, decoded[:, : sound.samples.shape[1]])


def test_stored_latents_of_a_chunk_as_it_is(codec, stored):
    from audiogen_core.layers import whole

    chunk = codec.ops.signal(stored["input_values"][..., :LENGTH])
    made = codec.ops.numpy(whole(codec.ops, codec._encoder, chunk))
    np.testing.assert_allclose(made, stored["latent"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [33, 700, STRIDE, 4767, LENGTH, 4831, 9700, 2 * STRIDE + 900])
def test_any_length_as_transformers(theirs, samples):
    """One chunk and several, cut anywhere; lengths at which transformers itself does not fail."""
    import torch

    codec, sound = codec_on("numpy"), clip(samples)
    with torch.inference_mode():
        found = theirs.encode(torch.tensor(sound[None]), bandwidth=3.6)
        padding = found.last_frame_pad_length
        played = theirs.decode(found.audio_codes, found.audio_scales, last_frame_pad_length=padding)
    codes = codec.encode(Audio(sound, RATE))
    expected = flat(found.audio_codes.numpy(), padding)
    assert codes.values.shape == expected.shape
    assert (codes.values == expected).mean() > 0.99  # random latents may lie between two entries
    kept = Codes(expected, 64, 150.0, codec.info.name, scales=np.ravel(found.audio_scales))
    decoded = np.concatenate(list(codec.decode_clip(kept)), axis=1)
    np.testing.assert_allclose(decoded, played.audio_values[0].numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 7, 32, STRIDE + 3])
def test_one_frame_alone(codec, samples):
    """Shorter than transformers takes; the adapters agree."""
    sound = Audio(clip(samples), RATE)
    codes = codec.encode(sound)
    assert codes.frames == (1 if samples <= HOP else 150)
    same = codec_on("numpy").encode(sound)
    np.testing.assert_array_equal(codes.values, same.values)
    decoded = codec_on("numpy").decode(same).samples
    np.testing.assert_allclose(codec.decode(codes).samples, decoded, rtol=0, atol=1e-4)


def test_a_tail_on_which_transformers_fails_comes_back_in_full():
    """The chunk before the last is a frame short here; transformers cannot stack such chunks."""
    codec, samples = codec_on("numpy"), 2 * STRIDE + 5
    codes = codec.encode(Audio(clip(samples), RATE))
    assert (codes.frames, len(codes.scales)) == (150 + 149 + 1, 3)
    assert codec.decode(codes).samples.shape == (2, samples)


@pytest.mark.parametrize("cut", [1, 100, STRIDE, 5000])
def test_blocks_of_any_size_give_the_whole_clips_result(codec, cut):
    sound = clip(4 * STRIDE + 321)
    whole = codec.encode(Audio(sound, RATE))
    if cut == 1:
        blocks = [sound[:, :1], sound[:, 1:1], sound[:, 1:]]
    else:
        blocks = [sound[:, start : start + cut] for start in range(0, sound.shape[1], cut)]
    streamed = codec.encode_clip(iter(blocks))
    np.testing.assert_array_equal(streamed.values, whole.values)
    np.testing.assert_array_equal(streamed.scales, whole.scales)
    assert streamed.length == whole.length == sound.shape[1]
    np.testing.assert_array_equal(np.concatenate(list(codec.encode_blocks(iter(blocks))), 1), whole.values)


def test_chunks_together_or_one_by_one_are_the_same(monkeypatch):
    codec, sound = codec_on("torch"), Audio(clip(6 * STRIDE), RATE)
    together = codec.encode(sound)
    played = codec.decode(together).samples
    monkeypatch.setattr(codec, "chunk_seconds", 1.0)
    np.testing.assert_array_equal(codec.encode(sound).values, together.values)
    np.testing.assert_allclose(codec.decode(together).samples, played, rtol=0, atol=1e-5)


def test_the_loudness_of_each_chunk_is_kept(codec):
    quiet, loud = (codec.encode(Audio(clip(LENGTH) * gain, RATE)) for gain in (0.01, 1.0))
    np.testing.assert_allclose(quiet.scales * 100, loud.scales, rtol=1e-3)
    silence = codec.encode(Audio(np.zeros((2, 6000), np.float32), RATE))
    assert np.abs(codec.decode(silence).samples).max() < 1e-6


def test_codes_survive_a_file(tmp_path):
    codec, sound = codec_on("numpy"), Audio(clip(9000), RATE)
    codes = codec.encode(sound, codebooks=2)
    again = Codes.load(codes.save(tmp_path / "clip.codes"))
    np.testing.assert_array_equal(codec.decode(again).samples, codec.decode(codes).samples)


def test_a_file_is_encoded_and_decoded_with_its_scales(tmp_path):
    from audiogen_core.coding import decode_file, encode_file

    codec, sound = codec_on("numpy"), Audio(clip(3 * RATE), RATE)
    codes = encode_file(sound.save(tmp_path / "in.wav"), codec)
    assert decode_file(codes, codec, tmp_path / "out.wav").seconds == pytest.approx(3.0)
    made = Audio.load(tmp_path / "out.wav").samples
    np.testing.assert_allclose(made, codec.decode(codes).samples.clip(-1, 1), rtol=0, atol=1e-4)


def test_the_original_layout_gives_the_same_codec(tmp_path):
    """The original's names; its file says nothing of rate and chunks, so they are the published model's."""
    import torch
    from safetensors.torch import load_file

    renamed = {}
    for name, tensor in load_file(FOLDER / "model.safetensors").items():
        side, rest = name.split(".layers.", 1)
        inner = "convtr" if side == "decoder" and rest.split(".")[0] in ("3", "6", "9") else "conv"
        name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
        name = name.replace(".conv.", f".{inner}.{inner}.").replace(".norm.", f".{inner}.norm.")
        renamed[name.replace("coder.layers.", "coder.model.")] = tensor
    torch.save(renamed, tmp_path / "model.th")
    codec = codecs.load(tmp_path / "model.th")
    assert (codec.info.sample_rate, codec.info.channels) == (48000, 2)
    assert (codec.chunking.length, codec.chunking.stride) == (48000, 47520)
    sound = clip(1500)
    codes = codec.encode(Audio(sound, 48000))
    same = codec_on("numpy").encode(Audio(sound, RATE))
    np.testing.assert_array_equal(codes.values, same.values)


def test_codes_that_do_not_fit_their_scales_are_refused():
    codec = codec_on("numpy")
    codes = codec.encode(Audio(clip(9000), RATE))
    facts = (codes.codebook_size, codes.frame_rate, codes.codec)
    for values, scales, reason in (
        (codes.values, None, "no scales"),
        (codes.values, np.ones((2, 1), np.float32), "one finite number per chunk"),
        (codes.values, np.array([1, np.nan], np.float32), "one finite number per chunk"),
        (codes.values, np.ones(0, np.float32), "0 chunks"),
        (codes.values, np.ones(9, np.float32), "9 chunks"),
        (codes.values[:, :100], np.ones(2, np.float32), "100 frames"),
        (np.tile(codes.values, 2), np.ones(2, np.float32), "2 chunks"),
    ):
        with pytest.raises(CodesError, match=reason):
            codec.decode(Codes(values, *facts, scales=scales))
    with pytest.raises(CodesError, match="scale of each chunk"):
        codec.decode_blocks([codes.values])


@pytest.mark.parametrize("blocks", [[], [np.zeros((2, 0), np.float32)]])
def test_nothing_to_encode_is_refused(blocks):
    with pytest.raises(AudioError, match="no samples"):
        codec_on("numpy").encode_clip(blocks)
