"""The demo autoencoder: what it keeps of music, chunks, adapters, and files that are read strictly."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
from safetensors.numpy import save_file

from audiogen_core import Audio, codecs
from audiogen_core.codecs import frame, frame_latents
from audiogen_core.codecs.frame_latents import FORMAT, LatentsConfig
from audiogen_core.codes import Latents
from audiogen_core.compose import compose
from audiogen_core.errors import CodesError, ModelError, WeightsError
from audiogen_core.ops import resolve

DATA = files("audiogen_core") / "data"
CODEC, PROJECTION = DATA / "demo.safetensors", DATA / "demo-latents.safetensors"
HOP = 1280


@pytest.fixture(scope="module")
def demo():
    return codecs.load_autoencoder("demo")


@pytest.fixture(scope="module")
def piece() -> Audio:
    return compose(2_000_000_003, seconds=5.0).audio


def si_sdr(reference: np.ndarray, found: np.ndarray) -> float:
    share = (reference @ found) / (reference @ reference)
    error = found - share * reference
    return float(10 * np.log10(share**2 * (reference @ reference) / (error @ error)))


def test_both_names_mean_it(demo) -> None:
    info = demo.info
    assert (info.name, info.hop_length, info.latent_channels) == ("demo-latents", HOP, 96)
    assert codecs.load("demo-latents").info == info
    assert codecs.load_codec("demo").info.hop_length == 320
    with pytest.raises(ModelError, match="an autoencoder, which makes latents"):
        codecs.load_codec("demo-latents")


def test_music_comes_back_and_latents_have_unit_variance(demo, piece: Audio) -> None:
    latents = demo.encode(piece)
    assert latents.values.shape == (96, -(-piece.samples.shape[1] // HOP))
    assert 0.7 < latents.values.std() < 1.4
    back = demo.decode(latents)
    assert back.samples.shape == piece.samples.shape
    assert si_sdr(piece.samples[0], back.samples[0]) > 12


def test_few_axes_keep_less(demo, piece: Audio) -> None:
    """The axes are in the order of what they keep."""
    latents = demo.encode(piece)
    kept = []
    for channels in (16, 48, 96):
        values = latents.values * (np.arange(96) < channels)[:, None]
        clip = demo.decode(Latents(values, latents.frame_rate, latents.autoencoder, latents.length))
        kept.append(si_sdr(piece.samples[0], clip.samples[0]))
    assert kept[0] + 3 < kept[1] < kept[2] - 3


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 10_000])
def test_any_length(demo, samples: int) -> None:
    clip = Audio(np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32), 24_000)
    latents = demo.encode(clip)
    assert latents.values.shape[1] == -(-samples // HOP)
    assert demo.decode(latents).samples.shape == (1, samples)


@pytest.mark.parametrize("size", [700, 6000, 50_000])
def test_blocks_give_the_whole(demo, piece: Audio, size: int) -> None:
    whole = demo.encode(piece).values
    demo.chunk_frames, before = 12, demo.chunk_frames
    try:
        samples = piece.samples
        cut = [samples[:, start : start + size] for start in range(0, samples.shape[1], size)]
        parts = np.concatenate(list(demo.encode_blocks(cut)), axis=1)
        sound = np.concatenate(list(demo.decode_blocks([whole[:, :7], whole[:, 7:]])), axis=1)
    finally:
        demo.chunk_frames = before
    np.testing.assert_allclose(parts, whole, atol=1e-3)
    sound = sound[:, : samples.shape[1]]
    np.testing.assert_allclose(sound, demo.decode(demo.encode(piece)).samples, atol=1e-3)


def test_adapters_agree(demo, piece: Audio) -> None:
    torch = codecs.load_autoencoder("demo", "torch")
    latents = torch.encode(piece)
    np.testing.assert_allclose(latents.values, demo.encode(piece).values, atol=1e-3)
    np.testing.assert_allclose(torch.decode(latents).samples, demo.decode(latents).samples, atol=1e-4)


def test_the_codec_between_is_the_demo_codec(demo, piece: Audio) -> None:
    """Quantised on the way back, the frames are those that the codec has codes for."""
    config = LatentsConfig(4, 96, codebooks=8)
    made = frame_latents.build(config, frame_latents.read(PROJECTION), *frame.opened(CODEC), resolve("numpy"))
    latents = demo.encode(piece)
    back = made.decode(Latents(latents.values, latents.frame_rate, made.info.name, latents.length))
    assert made.info.name.startswith("frame-latents-24khz@")
    assert si_sdr(demo.decode(latents).samples[0], back.samples[0]) > 12
    with pytest.raises(CodesError, match="were made by demo-latents"):
        made.decode(latents)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"frames": 4, "channels": 3},
        {"frames": 0, "channels": 3, "codebooks": 0},
        {"frames": 4, "channels": 3.0, "codebooks": 0},
        {"frames": 4, "channels": -3, "codebooks": 0},
        [],
    ],
)
def test_a_damaged_configuration(tmp_path, config) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"axes": np.zeros((3, 4), np.float32)}, path, {"format": FORMAT, "config": json.dumps(config)})
    with pytest.raises(ModelError, match="the configuration of the latents is damaged"):
        frame_latents.load(path, CODEC, resolve("numpy"))


def test_files_of_other_kinds(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"axes": np.zeros((3, 4), np.float32)}, path)
    with pytest.raises(ModelError, match="no 'audiogen-frame-latents-1' in its metadata"):
        frame_latents.load(path, CODEC, resolve("numpy"))
    config = LatentsConfig(4, 3).to_json()
    save_file({"axes": np.zeros((3, 4), np.float32)}, path, {"format": FORMAT, "config": config})
    with pytest.raises(WeightsError, match="expected"):
        frame_latents.load(path, CODEC, resolve("numpy"))
