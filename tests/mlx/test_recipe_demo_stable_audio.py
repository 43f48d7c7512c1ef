"""The recipe of the demo Stable Audio: a tiny training from a corpus to a folder that the package loads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from audiogen_core import codecs
from audiogen_core.compose import compose
from audiogen_core.errors import OptionError
from audiogen_mlx.stable_audio import StableAudio
from support import recipes

TINY = {
    "depth": 2,
    "clock": True,
    "frames": 40,
    "width": 64,
    "heads": 2,
    "layers": 1,
    "hidden": 32,
    "batch": 3,
    "steps": 6,
    "warmup": 2,
    "checkpoint_every": 3,
    "evaluate_every": 3,
    "held_out": 2,
    "compile": False,
}


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    with recipes.recipe("demo_stable_audio", "demo_music") as modules:
        yield modules


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return recipes.tiny("demo_stable_audio", TINY, tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def corpus(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    encode = recipe.make.encoder()
    for split in ("train", "held"):
        recipe.make.make(folder, split, 3, encode, seconds=9.0)
    return folder


@pytest.fixture(scope="module")
def trained(recipe, config: Path, corpus: Path, tmp_path_factory) -> Path:
    return recipe.train.train(recipe.settings.Settings.read(config), corpus, tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_a_training_that_stopped_goes_on(
    recipe, config: Path, corpus: Path, trained: Path, tmp_path: Path
) -> None:
    settings = recipe.settings.Settings.read(config)
    splits = [recipe.make.Corpus.read(corpus, split) for split in ("train", "held")]
    run = recipe.train.Run(settings, *splits)
    for _ in range(3):
        run.advance()
    torch.save(run.state(), tmp_path / "checkpoint.pt")
    again = recipe.train.train(settings, corpus, tmp_path)
    whole, parts = (torch.load(path, weights_only=True)["mean"] for path in (trained, again))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_log_tells_losses_at_noise_levels(recipe, trained: Path) -> None:
    lines = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    judged = [line for line in lines if "held" in line]
    assert [line["step"] for line in judged] == [3, 6]
    assert all(set(line["levels"]) == {str(level) for level in recipe.train.LEVELS} for line in judged)
    assert 1 < judged[0]["held"] < 4  # of noise and latents of unit variance, by a network that says nothing


@pytest.fixture(scope="module")
def narrow(recipe, config: Path, tmp_path_factory) -> tuple[Any, Path]:
    """A network without a clock, and the folder that is exported of it."""
    settings = recipe.settings.Settings.read(config)
    settings = replace(settings, model=replace(settings.model, clock=False))
    torch.manual_seed(1)
    network = recipe.network.Network(settings, recipe.words.tokenizer().get_vocab_size())
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.05 * torch.randn(value.shape, generator=draw)
    folder = tmp_path_factory.mktemp("narrow")
    torch.save({"settings": settings.to_dict(), "mean": network.state_dict()}, folder / "checkpoint.pt")
    return network, recipe.export.export(folder / "checkpoint.pt", folder / "model", exact=True)


@pytest.fixture
def widened(recipe, config: Path, corpus: Path, narrow: tuple[Any, Path]) -> Callable[[bool], Any]:
    """A network of twice the width that begins with that folder."""

    def begun(clock: bool) -> Any:
        settings, words = recipe.settings.Settings.read(config), recipe.words.tokenizer()
        model = replace(settings.model, clock=clock, width=128, heads=4)
        settings = replace(settings, model=model)
        network = recipe.network.Network(settings, words.get_vocab_size())
        windows = recipe.data.Windows(recipe.make.Corpus.read(corpus, "train"), settings, 0)
        recipe.start.begin(network, narrow[1], words, windows.batch(8))
        return network

    return begun


def test_a_wider_network_begins_with_what_a_narrow_one_says(recipe, narrow, widened, corpus: Path) -> None:
    windows = recipe.data.Windows(recipe.make.Corpus.read(corpus, "held"), narrow[0].settings, 0)
    batch, said = windows.batch(3), []
    noise, t = torch.randn(batch.latents.shape), torch.tensor([0.3, 0.8, 1.0])
    for network in (narrow[0], widened(False)):
        with torch.no_grad():
            given = network.condition(batch.ids, batch.mask, batch.seconds, batch.told)
            said.append(network(noise, t, batch.beside, given))
    before, after = said
    assert (after - before).std() < 0.05 * before.std()


@pytest.mark.parametrize("anew", [True, False])
def test_the_first_layer_begins_with_the_beats_of_the_tempo_that_is_told(
    recipe, config: Path, widened, anew: bool
) -> None:
    words = recipe.words.tokenizer()
    if anew:
        network = recipe.network.Network(recipe.settings.Settings.read(config), words.get_vocab_size())
        recipe.beats.keep_time(network, words)
    else:
        network = widened(True)
    settings, layer, heard = network.settings, network.dit.transformer.layers[0], []
    layer.ff.register_forward_hook(lambda _, __, out: heard.append(out[0, settings.model.memory_tokens :]))
    frames = settings.model.frames
    beside = torch.zeros(1, frames, 1 + settings.model.latent_channels)
    own = (network.dit.transformer.project_in.weight == 0).all(dim=1)
    for caption in ("slow piano", "a steady beat", "fast chiptune", "piano"):
        ids = torch.tensor([[*words.encode(caption).ids, 1]])
        noise, one = torch.randn(1, frames, settings.model.latent_channels), torch.ones(1)
        with torch.no_grad():
            given = network.condition(ids, torch.ones(ids.shape), torch.tensor([[0.0, 10.0]]), one)
            network(noise, one, beside, given)
    beats = torch.stack([(2 * torch.pi * torch.arange(frames) / beat).sin() for beat in (12, 10, 9)])
    *told, untold = (each[:, own].float().T for each in heard)
    for tempo, sounds in enumerate(told):
        alike = torch.corrcoef(torch.cat([beats, sounds[sounds.std(dim=1) > 0]]))[:3, 3:].amax(dim=1)
        assert alike.argmax() == tempo and alike[tempo] > 0.95
    assert untold.abs().max() < 0.2 * min(each.abs().max() for each in told)


@pytest.mark.parametrize("told", [True, False])
def test_the_package_runs_the_same_network(
    recipe, trained: Path, corpus: Path, tmp_path: Path, told: bool
) -> None:
    """Text, seconds, what is known, and the network, in torch and in mlx."""
    state = torch.load(trained, weights_only=True)
    draw = torch.Generator().manual_seed(0)
    state["mean"] = {  # not only what few steps leave near zero
        name: value + 0.05 * torch.randn(value.shape, generator=draw) if value.ndim > 1 else value
        for name, value in state["mean"].items()
    }
    state["mean"]["text.encoder.embed_tokens.weight"] = state["mean"]["text.shared.weight"]
    torch.save(state, tmp_path / "checkpoint.pt")
    folder = recipe.export.export(tmp_path / "checkpoint.pt", tmp_path / "model", exact=True)
    settings = recipe.export.settings_of(state["settings"])
    windows = recipe.data.Windows(recipe.make.Corpus.read(corpus, "held"), settings, 0)
    network = recipe.network.Network(settings, windows.words.get_vocab_size())
    network.load_state_dict(state["mean"])
    batch = windows.held(2)
    known = torch.arange(settings.model.frames).expand(2, -1) < 9
    batch = replace(batch, known=known.float(), told=torch.full((2,), float(told)))
    x, t = torch.randn(batch.latents.shape, generator=draw), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        conditioning = network.condition(batch.ids, batch.mask, batch.seconds, batch.told)
        expected = network(x, t, batch.beside, conditioning).numpy()
    model = StableAudio.load(folder)
    captions = [facts["caption"] for facts in windows.corpus.facts[:2]]
    seconds = dict(zip(recipe.network.NUMBERS, batch.seconds.T.tolist(), strict=True))
    (given,) = model._parts.condition(captions, seconds)
    run = model._parts.dit().condition(
        given.tokens if told else None,
        given.global_,
        settings.model.frames,
        concat=mx.array(batch.beside.numpy().transpose(0, 2, 1)),
    )
    found = np.array(model._parts.dit()(mx.array(x.numpy().transpose(0, 2, 1)), mx.array(t.numpy()), run))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found.transpose(0, 2, 1), expected, atol=2e-4)


def test_the_folder_is_small_and_makes_sound(recipe, trained: Path, tmp_path: Path) -> None:
    folder = recipe.export.export(trained, tmp_path / "model")
    exact = recipe.export.export(trained, tmp_path / "exact", exact=True)
    sizes = [(place / "model.safetensors").stat().st_size for place in (folder, exact)]
    assert sizes[0] < 0.32 * sizes[1]
    model = StableAudio.load(folder)
    assert model.settings(seconds=1.0).steps == recipe.export.SAMPLING["steps"]
    clip = model.generate("piano in C major", seconds=1.5, seed=0, steps=2)
    assert clip.samples.shape == (1, 36_000)


def test_every_verb(recipe, trained: Path, tmp_path: Path) -> None:
    """A window of 2.13 s: lengths, what is kept of a clip, loops, several windows."""
    model = StableAudio.load(recipe.export.export(trained, tmp_path / "model"))
    piece, rate = compose(2_000_000_001, seconds=1.0).audio, 24_000
    kept, quick = rate - round(0.02 * rate), {"seed": 0, "steps": 2}
    longer = model.generate("beat", seconds=2.0, prompt_audio=piece, **quick).samples
    np.testing.assert_array_equal(longer[:, :kept], piece.samples[:, :kept])
    whole = compose(2_000_000_001, seconds=2.0).audio
    filled = model.generate("beat", seconds=2.0, init_audio=whole, inpaint=(0.5, 1.0), **quick).samples
    np.testing.assert_array_equal(filled[:, round(1.1 * rate) :], whole.samples[:, round(1.1 * rate) :])
    assert not np.allclose(filled[:, 12_000:rate], whole.samples[:, 12_000:rate], atol=1e-2)
    near, far = (
        model.generate("beat", seconds=2.0, init_audio=whole, init_noise_level=level, **quick).samples
        for level in (0.1, 0.9)
    )
    assert np.square(near - whole.samples).sum() < 0.5 * np.square(far - whole.samples).sum()
    assert model.generate_loop("beat", bpm=125, bars=1, **quick).samples.shape[1] == round(4 * 0.48 * rate)
    assert model.generate_long("beat", seconds=4.0, **quick).samples.shape == (1, 4 * rate)


def test_words_it_does_not_know_are_told(recipe, narrow, trained: Path, tmp_path: Path) -> None:
    """A tempo is one that a model without a clock does not follow."""
    models = StableAudio.load(narrow[1]), StableAudio.load(recipe.export.export(trained, tmp_path / "model"))
    quick: dict[str, Any] = {"seconds": 0.5, "seed": 0, "steps": 1}
    for model in models:
        with pytest.warns(UserWarning, match="never seen: zither"):
            model.generate("happy zither", **quick)
    with pytest.warns(UserWarning, match=r"cannot follow Fast \(it keeps to a tempo of its own choice\)$"):
        models[0].generate("Fast, chiptune in C minor!", **quick)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models[0].generate("Sad, chiptune in C minor!", **quick)
        models[1].generate("Fast, chiptune in C minor!", **quick)


def test_windows_begin_with_bars_or_have_something_given(recipe, config: Path, corpus: Path) -> None:
    settings = recipe.settings.Settings.read(config)
    read = recipe.make.Corpus.read(corpus, "train")
    windows = recipe.data.Windows(read, settings, 0)
    batch = windows.batch(200)
    free = batch.known.sum(1) == 0
    assert 0.4 < free.float().mean() < 0.7
    bars = [facts["frames_per_bar"] / 75 for facts in read.facts]
    for start in batch.seconds[free][:, 0].tolist():
        assert any(abs(start / bar - round(start / bar)) < 1e-4 for bar in bars)
    assert (batch.seconds[:, 1] > batch.seconds[:, 0]).all()
    assert batch.told.mean() > 0.8
    assert (batch.ids[torch.arange(200), batch.mask.sum(1).long() - 1] == windows.end).all()


def test_latents_are_those_of_the_autoencoder(recipe, corpus: Path) -> None:
    project = recipe.data.Latents(96)
    piece = compose(2_000_000_000, seconds=9.0)
    heard = codecs.load_autoencoder("demo").encode(piece.audio).values
    codes = recipe.make.Corpus.read(corpus, "held").codes[0]
    told = project(codes[:, :672]).T
    error = np.square(told - heard[:, :168]).mean() / np.square(heard).mean()
    assert error < 0.03  # what the codebooks leave over


def test_the_basis_is_the_shipped_kind(recipe) -> None:
    basis, draw = recipe.basis, np.random.default_rng(0)
    samples = (draw.standard_normal((2000, 6)) * [5, 1, 3, 0.1, 2, 0.5] + 1).astype(np.float32)
    found = basis.fit(samples, 4)
    np.testing.assert_allclose(found["axes"] @ found["axes"].T, np.eye(4), atol=1e-5)
    assert [int(np.abs(axis).argmax()) for axis in found["axes"]] == [0, 2, 4, 1]
    latents = ((samples - found["mean"]) @ found["axes"].T) * found["scale"]
    assert abs(latents.var() - 1) < 0.02 and (np.diff(latents.std(0)) < 0).all()


def test_settings_are_read_strictly(recipe, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for change, message in (("depth = 2", "depth"), ("seed = 0", "settings: seed")):
        path.write_text(config.read_text(encoding="utf-8").replace(change, "x = 1"), encoding="utf-8")
        with pytest.raises(OptionError, match=message):
            recipe.settings.Settings.read(path)
    path.write_text("[[", encoding="utf-8")
    with pytest.raises(OptionError, match="cannot be read as TOML"):
        recipe.settings.Settings.read(path)
