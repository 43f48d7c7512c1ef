"""Oobleck: the border of autoencoders, what is refused, clips in blocks, and latents on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core import Audio, Latents, SeededNoise, codecs
from audiogen_core.codecs import oobleck
from audiogen_core.errors import AudioMismatch, CodesError, ModelError, WeightsError
from audiogen_core.layers import Convolutional, reach
from audiogen_core.main import commands
from support.commands import call
from support.pieces import cut_small

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
SETTINGS = json.loads((FIXTURES / "tiny-small" / "model_config.json").read_text())
HOP = 2048


@pytest.fixture(scope="module")
def made():
    return codecs.load_autoencoder(FIXTURES / "tiny-small")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32) * 0.3


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 9000])
def test_latents_and_audio_have_the_lengths_of_the_clip(made, samples):
    latents = made.encode(Audio(noise(samples), 44100))
    assert latents.values.shape == (8, -(-samples // HOP))
    assert latents.frame_rate == 44100 / HOP
    assert latents.length == samples
    decoded = made.decode(latents)
    assert decoded.samples.shape == (2, samples)
    assert decoded.sample_rate == 44100


def test_latents_are_means_or_drawn(made):
    clip = Audio(noise(3 * HOP), 44100)
    mean = made.encode(clip).values
    np.testing.assert_array_equal(made.encode(clip).values, mean)
    drawn = made.encode(clip, SeededNoise(3)).values
    np.testing.assert_array_equal(made.encode(clip, SeededNoise(3)).values, drawn)
    assert np.abs(drawn - mean).max() > 0.1
    many = np.mean([made.encode(clip, SeededNoise(seed)).values for seed in range(100, 200)], axis=0)
    assert np.abs(many - mean).mean() < 0.3 * np.abs(drawn - mean).mean()


def test_the_scale_divides_latents_and_multiplies_them_back(made, tmp_path):
    folder = tmp_path / "scaled"
    shutil.copytree(FIXTURES / "tiny-small", folder)
    changed = json.loads(json.dumps(SETTINGS))
    changed["model"]["pretransform"]["scale"] = 4.0
    (folder / "model_config.json").write_text(json.dumps(changed))
    scaled, clip = codecs.load_autoencoder(folder), Audio(noise(2 * HOP), 44100)
    np.testing.assert_array_equal(scaled.encode(clip).values * 4, made.encode(clip).values)
    blocks = np.concatenate(list(scaled.encode_blocks([clip.samples])), axis=1)
    np.testing.assert_array_equal(blocks, scaled.encode(clip).values)
    again = scaled.decode(scaled.encode(clip)).samples
    np.testing.assert_array_equal(again, made.decode(made.encode(clip)).samples)


@settings(max_examples=15)
@given(
    frames=st.integers(1, 60),
    tail=st.integers(0, HOP - 1),
    chunk=st.sampled_from([1, 5, 16, 40]),
    pieces=st.sampled_from([0.4, 3, 1 << 20]),
)
def test_chunks_give_the_whole(frames, tail, chunk, pieces):
    made = codecs.load_autoencoder(FIXTURES / "tiny-small")
    x = noise(frames * HOP + tail, seed=frames)
    made.chunk_frames = 1000
    latents = np.concatenate(list(made.encode_blocks([x])), axis=1)
    audio = np.concatenate(list(made.decode_blocks([latents])), axis=1)
    made.chunk_frames = chunk
    cut_small(made, pieces)
    cut = [x[:, :100], x[:, 100:5000], x[:, 5000:]]
    again = np.concatenate(list(made.encode_blocks(cut)), axis=1)
    np.testing.assert_allclose(again, latents, rtol=0, atol=1e-5)
    again = np.concatenate(list(made.decode_blocks([latents[:, :3], latents[:, 3:]])), axis=1)
    np.testing.assert_allclose(again, audio, rtol=0, atol=1e-5)


def test_ten_frames_are_enough_on_each_side(made):
    """How far the whole network sees, in frames: the decoder's 18855 samples are measured on the original."""
    decoder = [layer for stage in made._decoder if isinstance(stage, Convolutional) for layer in stage.layers]
    encoder = [layer for stage in made._encoder if isinstance(stage, Convolutional) for layer in stage.layers]
    assert 18855 <= max(reach(decoder)) < 10 * HOP
    assert max(reach(encoder)) < 10


def test_what_does_not_fit_is_refused(made):
    with pytest.raises(AudioMismatch, match=r"audio.resample\(44100\)"):
        made.encode(Audio(noise(100), 48000))
    with pytest.raises(AudioMismatch, match=r"audio.mix\(2\)"):
        made.encode(Audio(noise(100)[:1], 44100))
    values = np.zeros((8, 3), np.float32)
    rate, name = made.info.frame_rate, made.info.name
    with pytest.raises(CodesError, match="made by other@00000000; this autoencoder is oobleck-44khz@"):
        made.decode(Latents(values, rate, "other@00000000"))
    with pytest.raises(CodesError, match="latents of 8 channels, got 5"):
        made.decode(Latents(values[:5], rate, name))
    with pytest.raises(CodesError, match="no frames"):
        made.decode(Latents(values[:, :0], rate, name))


def test_codecs_and_autoencoders_are_not_mixed_up():
    with pytest.raises(ModelError, match="an autoencoder, which makes latents"):
        codecs.load_codec(FIXTURES / "tiny-small")
    with pytest.raises(ModelError, match="a codec, which makes codes"):
        codecs.load_autoencoder(FIXTURES.parent / "encodec" / "24k")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The settings with one of them replaced, or taken out where `value` is None."""
    tree = json.loads(json.dumps(SETTINGS))
    *parents, last = path.split("/")
    place = tree
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return tree


PARTS = "model/pretransform/config"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model/pretransform/type", "dac_pretrained", "pretransform is 'dac_pretrained'"),
        (f"{PARTS}/encoder/type", "seanet", "encoder is 'seanet', expected 'oobleck'"),
        (f"{PARTS}/bottleneck/type", "rvq", "bottleneck is 'rvq', expected 'vae'"),
        (f"{PARTS}/decoder/config/use_snake", False, "activations"),
        (f"{PARTS}/decoder/config/antialias_activation", True, "activations"),
        (f"{PARTS}/decoder/config/use_nearest_upsample", True, "repeats samples"),
        (f"{PARTS}/decoder/config/strides", [2, 4, 4, 8], "strides"),
        (f"{PARTS}/latent_dim", 7, "7 latent channels"),
        (f"{PARTS}/encoder/config/c_mults", [1, 2], "as many c_mults as strides"),
        (f"{PARTS}/encoder/config/channels", 0, "does not describe an Oobleck"),
        (f"{PARTS}/encoder/config/channels", "many", "does not describe an Oobleck"),
        (f"{PARTS}/encoder", None, "encoder is missing"),
        ("model/pretransform", None, "pretransform is missing"),
        ("model/pretransform/scale", 0, "scale of the latents is 0"),
        ("sample_rate", None, "sample_rate is missing"),
    ],
)
def test_settings_of_other_models_are_refused(path, value, message):
    with pytest.raises(ModelError, match=message):
        oobleck.from_stable_audio_tools(changed(path, value))


def test_what_is_wrong_names_the_file(tmp_path):
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(changed("sample_rate", None)))
    with pytest.raises(ModelError, match=r"model_config\.json: .*sample_rate is missing"):
        codecs.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ModelError, match=r"model_config\.json: not readable as JSON"):
        codecs.load(tmp_path)


def test_diffusers_settings_that_cannot_be(tmp_path):
    config = json.loads((FIXTURES / "tiny-1.0-diffusers" / "vae" / "config.json").read_text())
    with pytest.raises(ModelError, match="encoder_hidden_size is 12"):
        oobleck.from_diffusers(config | {"encoder_hidden_size": 12})
    with pytest.raises(ModelError, match="does not describe an Oobleck"):
        oobleck.from_diffusers(config | {"channel_multiples": None})


def test_weights_that_do_not_fit(tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(FIXTURES / "tiny-small", folder)
    shutil.copy(FIXTURES / "tiny-1.0" / "model_config.json", folder)
    with pytest.raises(WeightsError, match="expected"):
        codecs.load(folder)
    shutil.copy(FIXTURES / "t5" / "model.safetensors", folder)
    with pytest.raises(WeightsError, match="no autoencoder among"):
        codecs.load(folder)


def test_latents_on_the_command_line(made, tmp_path):
    """encode, info and decode of a file of latents, and what is refused."""
    clip = Audio(noise(3 * HOP + 5), 44100)
    clip.save(tmp_path / "in.wav")
    folder, out = str(FIXTURES / "tiny-small"), tmp_path / "latents.safetensors"
    assert call(commands, "encode", tmp_path / "in.wav", "-o", out, "--codec", folder).exit_code == 0
    stored = Latents.load(out)
    assert stored.length == 3 * HOP + 5
    expected = made.encode(Audio.load(tmp_path / "in.wav")).values
    np.testing.assert_allclose(stored.values, expected, rtol=0, atol=1e-5)
    facts = json.loads(call(commands, "info", out, "--json").stdout)
    assert (facts["kind"], facts["channels"], facts["frames"]) == ("latents", 8, 4)
    facts = json.loads(call(commands, "info", folder, "--json").stdout)
    assert (facts["kind"], facts["hop_length"], facts["latent_channels"]) == ("autoencoder", HOP, 8)
    assert call(commands, "decode", out, "-o", tmp_path / "out.wav", "--codec", folder).exit_code == 0
    assert Audio.load(tmp_path / "out.wav").samples.shape == (2, 3 * HOP + 5)
    refused = call(commands, "decode", out, "-o", tmp_path / "no.wav", "--codec", "demo")
    assert refused.exit_code == 1
    assert "these are latents, but demo makes codes" in refused.stderr
    refused = call(commands, "decode", out, "-o", tmp_path / "no.wav")
    assert refused.exit_code == 1
    assert "has no name in the catalogue" in refused.stderr
    refused = call(
        commands, "encode", tmp_path / "in.wav", "-o", tmp_path / "x", "--codec", folder, "--codebooks", "2"
    )
    assert refused.exit_code == 1
    assert "has no codebooks" in refused.stderr
    assert not (tmp_path / "no.wav").exists()
