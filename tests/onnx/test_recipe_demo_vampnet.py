"""The recipe of the demo VampNet: a tiny training from a corpus to a folder that the package loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_core.compose import compose
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_onnx import Vampnet
from audiogen_onnx.manifest import NAME, Manifest
from audiogen_onnx.vampnet.verify import verify
from support import recipes

TINY = {
    "width": 32,
    "layers": 1,
    "heads": 2,
    "window": 60,
    "batch": 2,
    "steps": 20,
    "warmup": 3,
    "decay_steps": 5,
    "checkpoint_every": 10,
    "evaluate_every": 20,
    "held_out": 2,
}


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    with recipes.recipe("demo_vampnet", "demo_music") as modules:
        yield modules


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return recipes.tiny("demo_vampnet", TINY, tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def corpus(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    encode = recipe.make.encoder()
    for split in ("train", "held"):
        recipe.make.make(folder, split, 3, encode, seconds=2.0)
    return folder


@pytest.fixture(scope="module")
def run(recipe, config: Path, corpus: Path, tmp_path_factory) -> Path:
    folder, settings = tmp_path_factory.mktemp("run"), recipe.settings.Settings.read(config)
    for name in ("coarse", "fine"):
        recipe.train.train(name, settings, corpus, folder)
    return folder


@pytest.fixture(scope="module")
def folder(recipe, run: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model") / "folder"
    recipe.export.export(run, out)
    return out


def test_twenty_steps_learn_and_the_log_says_so(run):
    for name in ("coarse", "fine"):
        lines = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
        assert lines[0]["unigram"] < np.log(1024) + 0.1
        assert lines[-1]["step"] == 20 and set(lines[-1]["nats"]) == {
            "0.1",
            "0.3",
            "0.5",
            "0.7",
            "0.9",
            "1.0",
        }
        assert lines[-1]["nats"]["1.0"] < np.log(1024) - 0.02


def test_the_folder_vamps_with_the_codec_of_core(folder):
    manifest = Manifest.load(folder, verify=True)
    assert sorted(manifest.graphs) == ["coarse", "coarse_step", "fine", "fine_step"]
    assert (manifest.dtype, manifest.codec.name, manifest.codec.loudness) == ("int8", "demo", -14.0)
    vampnet = Vampnet.load(folder, threads=1)
    assert (vampnet.coarse.window, vampnet.fine.window) == (60, 60)
    clip = compose(4, seconds=1.5).audio
    made = vampnet.vamp(clip, seed=1, steps=2)
    assert made.samples.shape == clip.samples.shape and np.isfinite(made.samples).all()
    assert [row.graph for row in verify(folder)] == ["coarse", "fine", "coarse_step", "fine_step"]


def test_the_graphs_are_the_network_that_was_trained(recipe, run, folder):
    """As whole numbers, so nearly."""
    for name in ("coarse", "fine"):
        trained = recipe.export.trained(run / f"{name}.pt")
        network = recipe.train.fresh(
            recipe.settings.Settings.read_dict(
                torch.load(run / f"{name}.pt", weights_only=True)["settings"]
            ).part(name),
            recipe.export.codecs.load_codec("demo").codebook_vectors(),
            0,
        )
        network.load_state_dict(torch.load(run / f"{name}.pt", weights_only=True)["network"])
        codes = np.random.default_rng(1).integers(0, 1025, (1, trained.checkpoint.config.codebooks, 40))
        with torch.inference_mode():
            expected = network(torch.from_numpy(codes)).numpy()
        ours = getattr(Vampnet.load(folder, threads=1), name).logits(codes)
        assert np.linalg.norm(ours - expected) / np.linalg.norm(expected) < 0.05


def test_a_stopped_run_goes_on_to_the_same_result(recipe, config, corpus, tmp_path):
    settings = recipe.settings.Settings.read(config)
    whole = recipe.train.Run("fine", settings, corpus)
    losses = [whole.advance() for _ in range(4)]
    first = recipe.train.Run("fine", settings, corpus)
    again = [first.advance() for _ in range(2)]
    torch.save(first.state(), tmp_path / "fine.pt")
    second = recipe.train.Run("fine", settings, corpus)
    second.take(torch.load(tmp_path / "fine.pt", weights_only=True))
    assert again + [second.advance() for _ in range(2)] == losses


def test_a_checkpoint_of_other_settings_is_refused(recipe, config, corpus, run):
    settings = recipe.settings.Settings.read(config)
    other = replace(settings, fine=replace(settings.fine, layers=2))
    state = torch.load(run / "fine.pt", weights_only=True)
    with pytest.raises(OptionError, match="other settings"):
        recipe.train.Run("fine", other, corpus).take(state)
    with pytest.raises(OptionError, match="the fine network, not of the coarse one"):
        recipe.train.Run("coarse", settings, corpus).take(state)


def test_masks_are_those_a_vamp_meets(recipe, config):
    settings = recipe.settings.Settings.read(config)
    draws = np.random.default_rng(2)
    coarse = [recipe.data.mask(draws, settings.coarse, settings.masks) for _ in range(400)]
    shares = np.array([mask.mean() for mask in coarse])
    assert shares.min() > 0 and shares.max() > 0.95 and 0.25 < shares.mean() < 0.6
    kept = [
        mask[0] for mask in coarse if (~mask[0]).sum() < 40 and mask[-1].mean() > 0.9 and not mask[0].all()
    ]
    assert any(len(set(np.diff(np.flatnonzero(~row)))) == 1 for row in kept)
    for _ in range(50):
        fine = recipe.data.mask(draws, settings.fine, settings.masks)
        assert fine.any() and not fine[: settings.fine.conditioning].any()


def test_networks_that_do_not_belong_together_are_refused(recipe, run, tmp_path):
    coarse, fine = (recipe.export.trained(run / f"{name}.pt") for name in ("coarse", "fine"))
    codec = recipe.export.codecs.load_codec("demo")
    asked = {"created_from": {}, "check": False}
    with pytest.raises(ModelError, match="is given 4 codebooks"):
        recipe.export.export_networks(fine, fine, codec, tmp_path / "a", **asked)
    with pytest.raises(OptionError, match="no option warmth"):
        recipe.export.export_networks(coarse, fine, codec, tmp_path / "a", defaults={"warmth": 1}, **asked)
    assert not (tmp_path / "a").exists()


def test_a_folder_for_another_codec_is_refused(folder, tmp_path):
    facts = json.loads((folder / NAME).read_text())
    facts["codec"]["sample_rate"] = 32_000
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / NAME).write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match="was made for the codec"):
        Vampnet.load(tmp_path)


def test_settings_are_read_strictly(recipe, config, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config.read_text().replace("heads = 2", "haeds = 2", 1))
    with pytest.raises(OptionError, match="haeds"):
        recipe.settings.Settings.read(path)
    with pytest.raises(OptionError, match="coarse or fine"):
        recipe.settings.Settings.read(config).part("middle")
