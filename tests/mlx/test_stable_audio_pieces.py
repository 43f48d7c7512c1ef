"""The small parts: padding in one token, guidance, seams, windows, loops."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_mlx.stable_audio import inpaint, loops, read_config, weights
from audiogen_mlx.stable_audio.conditioning import Conditioning, collapsed
from audiogen_mlx.stable_audio.guidance import Guidance, predictor
from audiogen_mlx.stable_audio.windows import plan

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"


@cache
def network(name: str):
    folder = FIXTURES / name
    config = read_config.read_stable_audio_tools(folder / "model_config.json")
    table = weights.read_stable_audio_tools(folder / "model.safetensors")
    return config, weights.load_dit(config.dit, table.dit)


def steering(lengths: list[int], width: int, seed: int = 0) -> Conditioning:
    """Prompts of these many tokens of 16, and one number."""
    mask = np.zeros((len(lengths), 17), dtype=bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = mask[row, -1] = True
    draw = np.random.default_rng(seed).standard_normal
    tokens = draw((len(lengths), 17, 64)) * mask[..., None]
    return Conditioning(
        mx.array(tokens.astype(np.float32)), mask, mx.array(draw((len(lengths), width)).astype(np.float32))
    )


@pytest.mark.parametrize("name", ["tiny-small", "tiny-1.0"])
@pytest.mark.parametrize("lengths", [[3, 9], [16, 1], [15, 2], [16, 16], [5, 5]])
def test_padding_in_one_token_changes_nothing(name: str, lengths: list[int]) -> None:
    config, model = network(name)
    steered = steering(lengths, config.dit.global_cond_dim)
    tokens, bias = collapsed(steered.tokens, steered.mask)
    padding = 16 - max(lengths)
    assert tokens.shape[1] == (17 if padding < 2 else 17 - padding + 1)
    assert (bias is None) == (padding < 2)
    x = mx.random.normal((2, config.dit.io_channels, 10))
    plain = model(x, 0.5, model.condition(steered.tokens, steered.global_, 10))
    short = model(x, 0.5, model.condition(tokens, steered.global_, 10, bias=bias))
    np.testing.assert_allclose(np.array(short), np.array(plain), atol=1e-5)


def test_the_null_half_without_attention_equals_tokens_of_zeros() -> None:
    config, model = network("tiny-small")
    steered = steering([4, 7], config.dit.global_cond_dim)
    x = mx.random.normal((2, config.dit.io_channels, 10))
    zeros = model.condition(mx.zeros_like(steered.tokens), steered.global_, 10)
    call = predictor(model, steered, Guidance(3.0), 10, flow=True)
    found = call(x, 0.5)
    np.testing.assert_allclose(np.array(found.unguided), np.array(model(x, 0.5, zeros)), atol=1e-5)
    assert np.abs(np.array(found.velocity - found.unguided)).max() > 0.01


def test_guidance_below_one_acts_and_outside_its_interval_does_not() -> None:
    config, model = network("tiny-small")
    steered = steering([4], config.dit.global_cond_dim)
    x = mx.random.normal((1, config.dit.io_channels, 10))
    plain = predictor(model, steered, Guidance(1.0), 10, flow=True)
    half = predictor(model, steered, Guidance(0.5, interval=(0.3, 0.6)), 10, flow=True)
    assert np.abs(np.array(half(x, 0.5).velocity - plain(x, 0.5).velocity)).max() > 0.001
    assert np.array_equal(np.array(half(x, 0.7).velocity), np.array(plain(x, 0.7).velocity))
    # of the v objective the level is a sine: t = 0.5 lies at 0.71
    angled = predictor(model, steered, Guidance(0.5, interval=(0.3, 0.6)), 10, flow=False)
    assert np.array_equal(np.array(angled(x, 0.5).velocity), np.array(plain(x, 0.5).velocity))


def test_what_is_fixed_is_worked_out_once() -> None:
    config, model = network("tiny-small")
    steered = steering([4], config.dit.global_cond_dim)
    run = model.condition(steered.tokens, steered.global_, 10)
    first = model.global_token(0.5, run)
    assert model.global_token(0.5, run) is first
    assert model.global_token(0.25, run) is not first


# Seams


@given(
    edges=st.lists(st.integers(1, 399), min_size=1, max_size=6, unique=True),
    seam=st.integers(0, 80),
    first=st.booleans(),
)
@settings(max_examples=60)
def test_a_splice_keeps_what_is_far_and_makes_what_is_masked(
    edges: list[int], seam: int, first: bool
) -> None:
    mask = np.zeros(400, dtype=bool)
    for index, (start, end) in enumerate(zip([0, *sorted(edges)], [*sorted(edges), 400], strict=True)):
        mask[start:end] = (index % 2 == 0) == first
    made, kept = np.full((2, 400), 3.0, np.float32), np.full((2, 400), -1.0, np.float32)
    mixed = inpaint.splice(made, kept, mask, seam)
    assert (mixed[:, mask] == 3.0).all()
    near = np.convolve(mask, np.ones(2 * seam + 1), "same") > 0.5
    assert (mixed[:, ~near] == -1.0).all()
    assert (mixed >= -1.0).all() and (mixed <= 3.0).all()


def test_a_seam_rises_without_a_jump() -> None:
    mask = np.zeros(300, dtype=bool)
    mask[150:] = True
    mixed = inpaint.splice(np.ones((1, 300), np.float32), np.zeros((1, 300), np.float32), mask, 100)[0]
    assert (np.diff(mixed) >= 0).all()
    assert np.diff(mixed).max() < 0.02


# Windows


@given(samples=st.integers(1, 300_000), overlap=st.floats(0.05, 0.4), known=st.integers(0, 60_000))
@settings(max_examples=200)
def test_windows_cover_everything_once(samples: int, overlap: float, known: int) -> None:
    config, _ = network("tiny-small")
    known = min(known, samples - 1)
    windows = plan(config, samples, overlap, known)
    assert windows[0].fresh == known
    assert windows[-1].end == samples
    for window in windows:
        assert window.start <= window.fresh < window.end <= window.start + config.window
    for before, after in pairwise(windows):
        assert after.fresh == before.end
        assert (after.fresh - after.start) % config.hop_length == 0
        assert before.start < after.start


# Loops


def test_a_loop_of_one_tone_has_no_seam() -> None:
    time = np.arange(3000)
    tone = np.sin(2 * np.pi * time / 100)[None].astype(np.float32)
    looped = loops.circular(tone, 2000)
    np.testing.assert_allclose(looped, tone[:, :2000], atol=1e-5)


def test_a_loop_of_noise_keeps_its_loudness_and_joins_its_ends() -> None:
    noise = np.random.default_rng(0).standard_normal((2, 60_000)).astype(np.float32)
    looped = loops.circular(noise, 50_000)
    assert np.array_equal(looped[:, 0], noise[:, 50_000])
    assert np.array_equal(looped[:, 10_000:], noise[:, 10_000:50_000])
    for start in range(0, 10_000, 2000):
        assert looped[:, start : start + 2000].std() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("bpm", [87.5, 120.0, 173.3])
def test_bars_last_what_the_tempo_says(bpm: float) -> None:
    assert loops.loop_samples(bpm, 4, 4, 44100) == round(16 * 60 / bpm * 44100)
