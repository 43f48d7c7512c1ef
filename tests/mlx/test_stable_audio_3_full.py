"""Stable Audio 3 at the sizes that are published: names and shapes of every tensor, and whole runs."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core.codecs import same
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.stable_audio_3 import StableAudio3, weights
from audiogen_mlx.stable_audio_3 import load as loading
from audiogen_mlx.stable_audio_3.conditioning import Embedders
from audiogen_mlx.stable_audio_3.config import Config, read_config
from audiogen_mlx.stable_audio_3.model import DiT
from audiogen_mlx.t5gemma import T5GemmaConfig, T5GemmaEncoder
from support import stable_audio_3_full as full
from support.figures import tell


def described(size: str, folder: Path) -> Config:
    (folder / "model_config.json").write_text(json.dumps(full.configuration(size)))
    return read_config(folder / "model_config.json")


def tables(size: str, monkeypatch: pytest.MonkeyPatch) -> weights.Tables:
    stored = full.random_weights(full.KEYS[f"stable-audio-3-{size}"])
    monkeypatch.setattr(weights, "read_networks", lambda path, networks: stored.networks(networks))
    return weights.read_stable_audio_3(Path("published"))


@pytest.mark.parametrize(("size", "count"), [("small", 685), ("medium", 997)])
def test_every_tensor_of_the_published_checkpoints_is_used(size, count, tmp_path, monkeypatch):
    assert len(full.KEYS[f"stable-audio-3-{size}"]) == count
    config, found = described(size, tmp_path), tables(size, monkeypatch)
    wanted = stored_shapes(DiT(config.dit))
    shapes = {name: found.dit.shape(name) for name in found.dit}
    for name in weights.SQUEEZED:
        assert shapes[name] == (*wanted[name], 1)
        shapes[name] = wanted[name]
    assert shapes == wanted
    Embedders(config, found.embedders)
    kind = {"small": "SAME-S", "medium": "SAME-L"}[size]
    alone = same.stable_audio_tools_weights(full.random_weights(full.KEYS[kind]))
    assert {name: found.vae.shape(name) for name in found.vae} == {name: alone.shape(name) for name in alone}
    assert config.aligned == config.codec.together * (1 if size == "small" else 2) == 2
    assert round(config.window_seconds) == (120 if size == "small" else 380)


def test_every_tensor_of_the_published_text_encoder_is_used():
    config = T5GemmaConfig.from_dict(full.text_configuration())
    wanted = stored_shapes(T5GemmaEncoder(config))
    published = {name: tuple(shape) for name, shape in full.KEYS[full.TEXT].items()}
    assert {f"model.encoder.{name}": shape for name, shape in wanted.items()} == published


@pytest.fixture
def made(request, tmp_path, monkeypatch) -> StableAudio3:
    """A model of published size, with the tiny tokenizer, whose parts are read anew after each use."""
    size = request.param
    folder = tmp_path / "model"
    folder.mkdir()
    described(size, folder)
    text = folder / "t5gemma-b-b-ul2"
    shutil.copytree(full.FIXTURES / "tiny-small" / "t5gemma-b-b-ul2", text)
    (text / "config.json").write_text(json.dumps(full.text_configuration()))
    (folder / "model.safetensors").write_bytes(b"")
    stored = full.random_weights(full.KEYS[f"stable-audio-3-{size}"])
    names = {name.removeprefix("model.encoder."): shape for name, shape in full.KEYS[full.TEXT].items()}
    monkeypatch.setattr(weights, "read_networks", lambda path, networks: stored.networks(networks))
    monkeypatch.setattr(loading.t5gemma, "read", lambda path: full.random_weights(names))
    return StableAudio3.load(folder, low_memory=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("made", ["small"], indirect=True)
def test_ten_seconds_of_small_at_full_size(made):
    clip = made.generate("a bright piano", seconds=10, seed=1)
    assert clip.samples.shape == (2, 441_000)
    assert np.isfinite(clip.samples).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak < 6
    what = "seconds that Stable Audio 3 small makes at full size, parts given back"
    tell("memory", what, 10, f"{peak:.2f} GiB at most", promised="6 GiB")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("made", ["medium"], indirect=True)
def test_one_pass_and_one_window_of_medium_at_full_size(made):
    parts = made._parts
    dit = parts.dit(1.0)
    (conditions,) = parts.condition(["a bright piano"], [10.0])
    run = dit.condition(conditions.tokens, conditions.global_, 16, local=mx.zeros((1, 257, 1)))
    out = np.array(dit(mx.random.normal((1, 256, 16)), 0.5, run))
    assert out.shape == (1, 256, 16) and np.isfinite(out).all()
    del dit, run
    parts.drop("dit")
    latents = np.random.default_rng(0).standard_normal((256, 8)).astype(np.float32)
    sound = np.concatenate(list(parts.autoencoder().decode_blocks([latents])), axis=1)
    assert sound.shape == (2, 8 * 4096) and np.isfinite(sound).all()
