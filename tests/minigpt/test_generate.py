"""Generating: caches change nothing, seeds decide everything, chunks join to the whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_core import codecs
from audiogen_core.audio import Audio
from audiogen_core.codec import Codec, fingerprint
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.recipe import Recipe
from audiogen_core.sampling import Sampling
from audiogen_minigpt import sampling as draw
from audiogen_minigpt.decode import BatchDecoder, Decoder, RowDecoder
from audiogen_minigpt.generate import Generator
from audiogen_minigpt.model import GPT
from audiogen_minigpt.options import seeded
from audiogen_minigpt.sampling import BLOCK, Rollout, Sampler, filtered
from support.tiny_models import VARIANTS, some_codes, tiny_config, tiny_model

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"
GREEDY = Sampling(temperature=0)
DRAWN = Sampling(temperature=1.3, top_k=12, top_p=0.95, min_p=0.01, seed=5)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codecs.load(CODEC, ops="torch")


@pytest.fixture(scope="module")
def generator(codec: Codec) -> Generator:
    config = tiny_config(codebook_size=codec.info.codebook_size, context=40)
    return Generator(tiny_model(config), config, codec, {}, name="tiny")


class Uncached:
    """A decoder that puts the whole window through the model at every step."""

    rows = 1

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.position = 0
        self.seen = torch.empty(0)

    def prefill(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen = tokens
        self.position = tokens.shape[1]
        return self.model(tokens)[:, -1]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.prefill(torch.cat([self.seen, tokens.unsqueeze(1)], dim=1))


def roll(model: GPT, opening: torch.Tensor, frames: int, sampling: Sampling, block: int = 7) -> torch.Tensor:
    """The new codes (B, frames, K) of a rollout, seeds counted up from the sampling's."""
    layout = model.layout
    seeds = [(sampling.seed or 0) + row for row in range(opening.shape[0])]
    sampler = Sampler(sampling, layout.codebooks, layout.codebook_size, seeds, cycle=layout.name == "flatten")
    return torch.cat(list(Rollout(model, opening, frames, sampler).blocks(block)), dim=1)


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("opening", [1, 5, 40], ids=["short", "some", "beyond the context"])
def test_the_cache_changes_nothing(
    preset: str, layout: str, sampling: Sampling, opening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(preset, layout)
    model = tiny_model(config)
    start = some_codes(config, opening, rows=1)
    cached = roll(model, start, 50, sampling)  # twice the context: the cache is filled anew on the way
    monkeypatch.setattr(draw, "decoder_for", lambda model, *_: Uncached(model))
    assert torch.equal(cached, roll(model, start, 50, sampling))
    assert cached.shape == (1, 50, config.codebooks)
    assert 0 <= int(cached.min()) <= int(cached.max()) < config.codebook_size
    assert len(torch.unique(cached)) > 1


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
def test_the_batch_decoder_agrees_with_the_row_decoder(preset: str, layout: str) -> None:
    config = tiny_config(preset, layout)
    model = tiny_model(config)
    tokens = model.layout.tokens(some_codes(config, 12, rows=3))[:, : config.context]
    half = config.context // 8 * 4
    with torch.inference_mode():
        batch = BatchDecoder(model, 3)
        logits = [batch.prefill(tokens[:, :half])]
        logits += [batch.step(tokens[:, step]) for step in range(half, tokens.shape[1])]
        for row in range(3):
            single: Decoder = RowDecoder(model)
            expected = [single.prefill(tokens[row : row + 1, :half])]
            expected += [single.step(tokens[row : row + 1, step]) for step in range(half, tokens.shape[1])]
            for mine, theirs in zip(logits, expected, strict=True):
                torch.testing.assert_close(mine[row], theirs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
def test_the_captured_graph_agrees_with_the_plain_step(preset: str, layout: str) -> None:
    from audiogen_minigpt.decode import GraphDecoder

    config = tiny_config(preset, layout)
    model = tiny_model(config).cuda()
    tokens = model.layout.tokens(some_codes(config, 12, rows=3))[:, : config.context].cuda()
    with torch.inference_mode():
        graph = GraphDecoder(model, 3)
        plain = BatchDecoder(graph.model, 3)
        torch.testing.assert_close(graph.prefill(tokens[:, :4]), plain.prefill(tokens[:, :4]))
        for step in range(4, tokens.shape[1]):
            mine, theirs = graph.step(tokens[:, step]), plain.step(tokens[:, step])
            torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.1)


@pytest.mark.gpu
def test_generating_on_a_gpu(codec: Codec) -> None:
    config = tiny_config(codebook_size=codec.info.codebook_size, context=40)
    generator = Generator(tiny_model(config).cuda(), config, codec, {})
    whole = generator.generate_codes(1.0, sampling=DRAWN)
    again = generator.generate_codes(1.0, sampling=DRAWN)
    np.testing.assert_array_equal(whole.values, again.values)
    assert [clip.duration for clip in generator.generate_batch(3, 0.5, sampling=DRAWN)] == [0.5] * 3


def test_a_row_is_drawn_alike_in_any_batch(generator: Generator) -> None:
    batch = generator.generate_batch(3, 0.6, sampling=DRAWN)
    for row, clip in enumerate(batch):
        single = generator.generate(0.6, sampling=Sampling(**{**DRAWN.to_dict(), "seed": 5 + row}))
        np.testing.assert_array_equal(clip.samples, single.samples)
    assert not np.array_equal(batch[0].samples, batch[1].samples)


def test_rows_do_not_mix_in_a_batch_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    model = tiny_model(config)
    monkeypatch.setattr(draw, "decoder_for", BatchDecoder)
    opening = some_codes(config, 4, rows=3)
    together = roll(model, opening, 40, DRAWN)
    for row in range(3):
        seed = Sampling(**{**DRAWN.to_dict(), "seed": 5 + row})
        assert torch.equal(together[row : row + 1], roll(model, opening[row : row + 1], 40, seed))


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
def test_a_longer_clip_begins_like_a_shorter_one(preset: str, layout: str) -> None:
    config = tiny_config(preset, layout)
    model = tiny_model(config)
    opening = some_codes(config, 3, rows=1)
    long, short = roll(model, opening, 45, DRAWN), roll(model, opening, 20, DRAWN, block=20)
    assert torch.equal(long[:, :20], short)


@pytest.mark.parametrize("chunk_seconds", [0.02, 0.13, 5.0])
@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("only_new", [False, True])
def test_streamed_chunks_join_to_the_whole(
    generator: Generator, chunk_seconds: float, with_prompt: bool, only_new: bool
) -> None:
    prompt = noise(0.31) if with_prompt else None
    options = {"prompt_audio": prompt, "sampling": DRAWN, "only_new": only_new}
    whole = generator.generate(0.777, **options)  # type: ignore[arg-type]
    chunks = list(generator.stream(0.777, chunk_seconds=chunk_seconds, **options))  # type: ignore[arg-type]
    joined = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    np.testing.assert_allclose(joined, whole.samples, atol=1e-5)
    assert len(chunks) > 2 or chunk_seconds > 0.1


def noise(seconds: float, rate: int = 24000) -> Audio:
    rng = np.random.default_rng(0)
    return Audio((rng.standard_normal((1, round(seconds * rate))) * 0.1).astype(np.float32), rate)


def test_a_prompt_is_continued(generator: Generator, codec: Codec) -> None:
    prompt = noise(0.5)
    codes = generator.generate_codes(0.4, prompt_audio=prompt, sampling=DRAWN)
    frames = int(0.5 * codec.info.frame_rate)
    np.testing.assert_array_equal(codes.values[:, :frames], codec.encode(prompt, 4).values[:, :frames])
    assert codes.length == frames * codec.info.hop_length + 0.4 * 24000
    whole = generator.generate(0.4, prompt_audio=prompt, sampling=DRAWN)
    new = generator.generate(0.4, prompt_audio=prompt, sampling=DRAWN, only_new=True)
    assert new.duration == pytest.approx(0.4)
    np.testing.assert_array_equal(whole.samples[:, -new.samples.shape[1] :], new.samples)


def test_a_prompt_of_another_rate_and_more_channels(generator: Generator) -> None:
    stereo = Audio(np.tile(noise(0.5, 44100).samples, (2, 1)), 44100)
    assert generator.generate(0.1, prompt_audio=stereo, sampling=DRAWN).duration > 0.55


def test_another_prompt_makes_another_continuation(generator: Generator) -> None:
    quiet = Audio(np.full((1, 12000), 1e-4, np.float32), 24000)
    one, other = (
        generator.generate_codes(0.2, prompt_audio=prompt, sampling=GREEDY) for prompt in (noise(0.5), quiet)
    )
    assert not np.array_equal(one.values[:, -10:], other.values[:, -10:])


def test_a_length_between_frames(generator: Generator) -> None:
    assert generator.generate(0.1234, sampling=DRAWN).samples.shape == (1, round(0.1234 * 24000))


def test_progress_counts_frames_of_all_clips(generator: Generator) -> None:
    seen: list[tuple[int, int]] = []
    generator.generate_batch(2, 1.2, sampling=DRAWN, on_step=lambda *step: seen.append(step))
    assert seen[-1] == (180, 180)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seconds": 0}, OptionError, "seconds must be more than 0 and at most 3600"),
        ({"seconds": float("nan")}, OptionError, "seconds must be more than 0 and at most 3600"),
        ({"seconds": 1e9}, OptionError, "seconds must be more than 0 and at most 3600"),
        ({"seconds": 1, "prompt_audio": noise(0.005)}, AudioError, "less than a frame"),
        ({"seconds": 1, "sampling": Sampling(temperature=[1.0, 2.0])}, OptionError, "4 codebooks, but 2"),
    ],
)
def test_impossible_options(
    generator: Generator, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        generator.generate(**options)  # type: ignore[arg-type]


def test_impossible_counts_and_chunks(generator: Generator) -> None:
    with pytest.raises(OptionError, match="from 1 to 9999 clips"):
        generator.generate_batch(0, 1.0)
    with pytest.raises(OptionError, match="chunk_seconds"):
        generator.stream(1.0, chunk_seconds=0)


def test_a_codec_that_is_not_the_model_s(codec: Codec) -> None:
    config = tiny_config(codebook_size=codec.info.codebook_size)
    model = tiny_model(config)
    known = fingerprint(codec.codebook_vectors())
    Generator(model, config, codec, {"codec": codec.info.name, "codec_hash": known})
    with pytest.raises(ModelError, match="trained on codes of demo"):
        Generator(model, config, codec, {"codec": "demo"})
    with pytest.raises(ModelError, match="codebooks differ"):
        Generator(model, config, codec, {"codec": codec.info.name, "codec_hash": "12345678"})
    odd = tiny_config(codebook_size=16)
    with pytest.raises(ModelError, match="4 codebooks of 16"):
        Generator(tiny_model(odd), odd, codec, {})


def test_loading_from_a_checkpoint_alone(tmp_path: Path, codec: Codec, generator: Generator) -> None:
    from audiogen_minigpt import checkpoint

    facts = {
        "codec": codec.info.name,
        "codec_hash": fingerprint(codec.codebook_vectors()),
        "sample_rate": codec.info.sample_rate,
        "frame_rate": codec.info.frame_rate,
        "hop_length": codec.info.hop_length,
        "codebooks": 4,
        "codebook_size": codec.info.codebook_size,
    }
    state = {"model": generator.config.to_dict(), "data": facts}
    checkpoint.save(tmp_path, 7, dict(generator.model.named_parameters()), {}, state)
    loaded = Generator.load(tmp_path, device="cpu", codec=CODEC)
    ours, theirs = (each.generate(0.5, sampling=DRAWN) for each in (loaded, generator))
    np.testing.assert_array_equal(ours.samples, theirs.samples)
    path = ours.save(tmp_path / "out.wav")
    recipe = Recipe.read(path)
    assert (recipe.package, recipe.seed, recipe.revision) == ("audiogen-minigpt", 5, "step-00000007")
    assert (
        Sampling(**{key: recipe.settings[key] for key in ("temperature", "top_k", "top_p", "min_p")}, seed=5)
        == DRAWN
    )


def test_a_seed_is_drawn_where_none_is_given() -> None:
    drawn = seeded(None)
    assert drawn.seed is not None
    assert seeded(drawn) == drawn
    assert seeded(Sampling()).seed != seeded(Sampling()).seed


def test_filters_keep_what_they_should() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()

    def kept(**options: float) -> list[int]:
        defaults = {"top_k": 0}
        return filtered(logits, Sampling(**{**defaults, **options})).nonzero().flatten().tolist()  # type: ignore[arg-type]

    assert kept() == [0, 1, 2, 3]
    assert kept(top_k=2) == [0, 1]
    assert kept(top_p=0.6) == [0, 1]
    assert kept(top_p=0.4) == [0]
    assert kept(min_p=0.25) == [0, 1, 2]
    assert kept(top_k=3, top_p=0.8) == [0, 1]  # after top-k they hold 0.56, 0.28, 0.17
    assert kept(top_p=1.0, min_p=1.0) == [0]


def test_draws_follow_the_chances() -> None:
    sampler = Sampler(Sampling(temperature=2.0, top_k=3), 1, 4, [0])
    logits = torch.tensor([[[2.0, 1.0, 0.0, -9.0]]])
    counts = Counter(int(sampler.draw(logits)) for _ in range(6000))
    chances = torch.tensor([1.0, 0.5, 0.0]).softmax(0)
    for code, chance in enumerate(chances.tolist()):
        assert counts[code] / 6000 == pytest.approx(chance, abs=0.03)
    assert counts[3] == 0


def test_temperatures_of_their_own() -> None:
    logits = torch.zeros(1, 3, 50)
    logits[..., 7] = 3.0
    sampler = Sampler(Sampling(temperature=[0.0, 0.05, 50.0], top_k=0), 3, 50, [0])
    drawn = torch.cat([sampler.draw(logits) for _ in range(2 * BLOCK)])
    assert set(drawn[:, 0].tolist()) == set(drawn[:, 1].tolist()) == {7}
    assert len(set(drawn[:, 2].tolist())) > 20
    turns = Sampler(Sampling(temperature=[0.0, 50.0], top_k=0), 2, 50, [0], cycle=True)
    drawn = torch.cat([turns.draw(logits[:, :1]) for _ in range(2 * BLOCK)])
    assert set(drawn[::2, 0].tolist()) == {7}
    assert len(set(drawn[1::2, 0].tolist())) > 12


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), draw.limited_threads(1):
        assert torch.get_num_threads() == 1
        _ = 1 // 0
    assert torch.get_num_threads() == before
