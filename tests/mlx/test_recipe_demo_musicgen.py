"""The demo MusicGen's training recipe: a tiny run from a corpus to a folder that the package plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

from audiogen_core.errors import OptionError
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.files import Files
from audiogen_mlx.musicgen.generate import MusicGen
from audiogen_mlx.musicgen.load import Parts
from support import recipes

TINY = {
    "width": 64,
    "layers": 1,
    "heads": 2,
    "hidden": 64,
    "window": 40,
    "batch": 2,
    "silent": 10,
    "frames": 20,
    "steps": 20,
    "decay_steps": 5,
    "warmup": 2,
    "checkpoint_every": 20,
    "evaluate_every": 20,
    "held_out": 2,
}


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with recipes.recipe("demo_musicgen", "demo_music") as modules:
        yield modules
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(recipe, tmp_path_factory):
    """A few seconds of made-up codes of real pieces."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for split, pieces in (("train", 4), ("held", 2)):
        codes = lambda piece: rng.integers(0, 1024, (8, 150), np.int16)  # noqa: E731
        recipe.make.make(folder, split, pieces, codes, seconds=2.0)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return recipes.tiny("demo_musicgen", TINY, tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def trained(recipe, config, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return recipe.train.train(recipe.settings.Settings.read(config), corpus, out)


def test_twenty_steps_make_a_folder_that_plays(recipe, trained, tmp_path):
    folder = recipe.export.export(trained, tmp_path / "model")
    model = MusicGen.load(folder)
    audio = model.generate("slow piano in C minor", seconds=0.4, seed=1)
    assert audio.samples.shape == (1, 30 * 320)
    lines = [json.loads(line) for line in trained.with_name("log.jsonl").read_text().splitlines()]
    assert len(lines[0]["unigram"]) == 4
    assert lines[-1]["step"] == 20
    assert all(np.isfinite([*lines[-1]["told"], *lines[-1]["untold"]]))
    assert model.config.clock[:3] == (4.5, 9.0, 18.0)


def test_the_package_computes_what_was_trained(recipe, trained, tmp_path):
    parts = Parts(Files(recipe.export.export(trained, tmp_path / "exact", exact=True)))
    state = torch.load(trained, weights_only=True)
    settings = recipe.settings.Settings.read_dict(state["settings"])
    network = recipe.network.Network(settings, state["network"]["text_encoder.shared.weight"].shape[0])
    network.load_state_dict(state["network"])
    network.eval()
    codes = torch.randint(0, 1024, (1, 4, 40), generator=torch.Generator().manual_seed(0))
    ids, mask = parts.tokenizer.encode(["fast chiptune in A minor"])
    with torch.no_grad():
        told, untold = (
            network(codes, torch.from_numpy(ids).long(), torch.from_numpy(mask).long(), torch.tensor([told]))
            for told in (1.0, 0.0)
        )
    laid = mx.array(network.lay(codes).numpy())[:, :, :-1]
    text = parts.transformer.project_text(parts.t5(mx.array(ids), mx.array(mask)))
    for rows, expected in ((Rows(1, text=text), told), (Rows(1), untold)):
        logits = np.array(parts.transformer(laid, parts.transformer.run(rows, laid.shape[2])))
        for k in range(4):
            np.testing.assert_allclose(logits[0, k, k : k + 40], expected[0, k], rtol=0, atol=2e-4)


def test_a_run_begins_with_what_an_exported_model_has_learned(recipe, config, corpus, trained, tmp_path):
    folder = recipe.export.export(trained, tmp_path / "model", exact=True)
    settings = recipe.settings.Settings.read(config)
    before = torch.load(trained, weights_only=True)["network"]
    after = recipe.train.Run(settings, corpus, folder).network.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_a_clock_that_is_new_takes_the_place_of_what_hardly_moved(recipe, config, corpus, trained, tmp_path):
    folder = recipe.export.export(trained, tmp_path / "model", exact=True)
    settings = recipe.settings.Settings.read(config)
    other = replace(settings, model=replace(settings.model, clock=(9.0, 36.0)))
    before, after = (
        recipe.train.Run(each, corpus, folder).network.decoder.model.decoder for each in (settings, other)
    )
    one, two = (
        sum(table.weight.mean(dim=0) for table in each.embed_tokens)
        + each.embed_positions.weights[:40].mean(dim=0)
        for each in (before, after)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # on average nothing changed
    waves = after.embed_positions.weights[:40, 30:32]
    torch.testing.assert_close(waves[36], torch.tensor([1.0, 1.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(waves[9, 0], waves[0, 0], rtol=0, atol=1e-6)


def test_first_heads_attend_to_the_tempo_on_its_beats(recipe):
    """At every tempo, whatever is played: to the word for it where a sixteenth begins, and nowhere else."""
    settings = recipe.settings.Settings.read(recipes.RECIPES / "demo_musicgen" / "config.toml")
    words = recipe.words.tokenizer()
    torch.manual_seed(0)
    network = recipe.network.Network(settings, words.get_vocab_size())
    recipe.beats.keep_time(network, words)
    layer = network.decoder.model.decoder.layers[0]
    queries = []
    layer.encoder_attn_layer_norm.register_forward_hook(lambda _, __, made: queries.append(made[0]))
    codes = torch.randint(0, 1024, (1, 4, 300), generator=torch.Generator().manual_seed(0))
    for text, at, frames in (
        ("slow piano in C minor", 0, 12),
        ("a beat, 125 bpm", 2, 9),
        ("Medium piano", 0, 10),
    ):
        ids = torch.tensor([[*words.encode(text).ids, 1]])
        with torch.no_grad():
            network(codes, ids, torch.ones_like(ids), torch.ones(1))
            said = network.enc_to_dec_proj(network.text_encoder(input_ids=ids).last_hidden_state[0])
            for head, beats in zip(range(6)[-4:], recipe.beats.BEATS, strict=True):
                rows = slice(32 * head, 32 * head + 32)
                query = queries[-1] @ layer.encoder_attn.q_proj.weight[rows].T
                key = said @ layer.encoder_attn.k_proj.weight[rows].T
                looks = (query @ key.T / 32**0.5).softmax(dim=-1)[:, at]
                on = torch.arange(len(looks)) % (beats * frames) == 0
                near = torch.arange(len(looks)) % frames
                assert looks[on].mean() > 0.7, (text, beats)
                assert looks[(near > 2) & (near < frames - 2)].mean() < 0.05, (text, beats)


def test_muon_moves_matrices_as_far_as_torch_s_own(recipe):
    generator = torch.Generator().manual_seed(0)
    first = [torch.randn(8, 24, generator=generator) for _ in range(2)] + [torch.randn(6, 6)]
    grads = [torch.randn(each.shape, generator=generator) for each in first]
    moved, ours = [], {"dtype": torch.float32}
    for kind, more in ((torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}), (recipe.training.Muon, ours)):
        matrices = [torch.nn.Parameter(each.clone()) for each in first]
        optimizer = kind(matrices, momentum=0.9, weight_decay=0.1, **more)
        optimizer.param_groups[0]["lr"] = 0.01
        for _ in range(3):
            for matrix, grad in zip(matrices, grads, strict=True):
                matrix.grad = grad.clone()
            optimizer.step()
        moved.append(matrices)
    for one, two, start in zip(*moved, first, strict=True):
        assert (two - start).norm() > 0.01
        assert (one - two).norm() < 0.02 * (two - start).norm()  # theirs computes in bfloat16


def test_eight_bits_change_little(recipe, trained, tmp_path):
    exact, small = (
        Parts(Files(recipe.export.export(trained, tmp_path / str(flag), exact=flag)))
        for flag in (True, False)
    )
    tokens = mx.array(np.random.default_rng(0).integers(0, 1024, (1, 4, 20)))
    first, second = (
        np.array(parts.transformer(tokens, parts.transformer.run(Rows(1), 20))) for parts in (exact, small)
    )
    assert 0 < np.abs(first - second).max() < 0.05 * np.abs(first).max()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(recipe, config, corpus, tmp_path):
    settings = recipe.settings.Settings.read(config)
    whole = recipe.train.Run(settings, corpus)
    for step in range(8):
        whole.advance()
        if step == 4:
            torch.save(whole.state(), tmp_path / "c.pt")
    again = recipe.train.Run(settings, corpus)
    again.take(torch.load(tmp_path / "c.pt", weights_only=True))
    while again.step < 8:
        again.advance()
    expected = whole.network.state_dict()
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused(recipe, config, corpus, trained, tmp_path):
    other = tmp_path / "other.toml"
    for old, new, fits in (("clip = 1.0", "clip = 2.0", False), ("\nsteps = 20", "\nsteps = 30", True)):
        other.write_text(config.read_text().replace(old, new), encoding="utf-8")
        run = recipe.train.Run(recipe.settings.Settings.read(other), corpus)
        state = torch.load(trained, weights_only=True)
        if fits:
            run.take(state)
            assert run.step == 20
        else:
            with pytest.raises(OptionError, match="other settings"):
                run.take(state)


def test_only_beginnings_of_phrases_are_learned_as_beginnings(recipe, config, corpus):
    settings = recipe.settings.Settings.read(config)
    excerpts = recipe.data.Excerpts(recipe.make.Corpus.read(corpus, "train"), settings, 0)
    batches = [excerpts.batch() for _ in range(20)]
    weights = torch.cat([batch.weights for batch in batches])
    assert (weights[:, 10:] >= 1).all()
    assert 0.2 < (weights[:, 0] > 0).float().mean() < 0.95
    told = torch.cat([batch.told for batch in batches])
    assert 0.5 < told.mean() < 1


def test_beginnings_of_sixteenths_weigh_more(recipe):
    near = recipe.data.on_beat(np.arange(30), frames_per_bar=160)
    assert np.flatnonzero(near).tolist() == [0, 1, 9, 10, 11, 19, 20, 21, 29]


def test_what_is_heard_is_spoilt_and_what_is_learned_is_not(recipe):
    codes = np.arange(2 * 400, dtype=np.int16).reshape(2, 400)
    mistakes = recipe.settings.Mistakes(
        share=1.0, codes=0.0, stretches=1, length=(50, 50), frames=3, forgotten=0.0
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        late = recipe.data.spoilt(codes, mistakes, rng) - codes
        assert abs(late).max() <= 3 and 0 <= np.count_nonzero(late[0]) <= 50
        np.testing.assert_array_equal(late[0], late[1])
    wrong = recipe.settings.Mistakes(
        share=1.0, codes=0.4, stretches=0, length=(50, 50), frames=3, forgotten=0.0
    )
    shares = [np.mean(recipe.data.spoilt(codes, wrong, rng) != codes) for _ in range(50)]
    assert max(shares) < 0.45 and np.std(shares) > 0.05
    never = recipe.settings.Mistakes(
        share=0.0, codes=0.4, stretches=2, length=(50, 50), frames=3, forgotten=0.0
    )
    assert recipe.data.spoilt(codes, never, rng) is codes


def test_first_heads_look_back_by_beats(recipe, config):
    text = (recipes.RECIPES / "demo_musicgen" / "config.toml").read_text(encoding="utf-8")
    path = config.with_name("full.toml")
    path.write_text(text, encoding="utf-8")
    network = recipe.network.Network(recipe.settings.Settings.read(path), vocabulary=20)
    decoder = network.decoder.model.decoder
    laid = network.lay(torch.randint(0, 1024, (1, 4, 300), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        x = sum(decoder.embed_tokens[k](laid[:, k]) for k in range(4)) + decoder.embed_positions(laid)
        for layer, distances in zip(decoder.layers, recipe.network.LOOK_BACK, strict=False):
            x = layer.self_attn_layer_norm(x)
            for head, distance in enumerate(distances):
                rows = slice(32 * head, 32 * head + 32)
                queries = x[0] @ layer.self_attn.q_proj.weight[rows].T
                keys = x[0] @ layer.self_attn.k_proj.weight[rows].T
                scores = (queries[250] @ keys[:251].T) / 32**0.5
                assert abs(int(scores.argmax()) - (250 - distance)) <= 1


def test_captions_say_what_the_piece_is(recipe):
    rng = np.random.default_rng(0)
    piece = {"style": "piano", "key": "C minor", "tempo": "slow", "bpm": 93.75}
    made = {recipe.captions.caption(rng, piece).lower() for _ in range(500)}
    assert len(made) > 200
    assert not any(word in text for text in made for word in ("fast", "major", "drum", "chiptune"))
    assert sum("c minor" in text or "cm" in text for text in made) > 100


def test_words_are_the_same_every_time_and_unknown_ones_have_a_token(recipe):
    words = recipe.words.tokenizer()
    assert words.to_str() == recipe.words.tokenizer().to_str()
    assert words.encode("Slow PIANO, in C# minor!").tokens == ["slow", "piano", "in", "<unk>", "minor"]
