"""The demo model of `stable-audio`: offline and at once, every verb, and music that keeps to its caption."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core.audio import Audio, probe
from audiogen_core.compose import TEMPI, compose
from audiogen_mlx.cli import cli
from audiogen_mlx.stable_audio import StableAudio
from support.heard import tempo

RATE = 24_000


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield StableAudio.load("demo")


@pytest.fixture(scope="module")
def piece() -> Audio:
    return compose(2_000_000_001, seconds=4.0).audio


def test_facts_come_from_its_folder(model: StableAudio) -> None:
    config = model.config
    assert (config.sample_rate, config.channels, config.autoencoder) == (RATE, 1, "demo-latents")
    assert config.inpaint and config.published is not None
    settings = model.settings(seconds=5.0)
    assert (settings.sampler, settings.steps) == (config.published.sampler, config.published.steps)
    assert settings.guidance.scale == config.published.guidance_scale


@pytest.mark.parametrize("seconds", [0.5, 3.21, 10.24])
def test_exactly_as_long_as_asked(model: StableAudio, seconds: float) -> None:
    clip = model.generate("fast chiptune", seconds=seconds, seed=0, steps=2)
    assert clip.samples.shape == (1, round(seconds * RATE))
    assert clip.peak > 0.01


def test_a_seed_repeats(model: StableAudio) -> None:
    first, again, other = (
        model.generate("slow piano", seconds=2.0, seed=seed, steps=3).samples for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-2)


def test_a_clip_is_gone_on_with_and_filled_in(model: StableAudio, piece: Audio) -> None:
    longer = model.generate("beat", seconds=6.0, seed=0, steps=3, prompt_audio=piece).samples
    kept = 4 * RATE - round(0.02 * RATE)
    np.testing.assert_array_equal(longer[:, :kept], piece.samples[:, :kept])
    filled = model.generate(
        "beat", seconds=4.0, seed=0, steps=3, init_audio=piece, inpaint=(1.0, 2.0)
    ).samples
    np.testing.assert_array_equal(filled[:, 3 * RATE :], piece.samples[:, 3 * RATE :])
    assert not np.allclose(filled[:, RATE : 2 * RATE], piece.samples[:, RATE : 2 * RATE], atol=1e-2)


def test_less_noise_stays_nearer_to_a_clip(model: StableAudio, piece: Audio) -> None:
    distances = []
    for level in (0.1, 0.9):
        made = model.generate("beat", seconds=4.0, seed=0, steps=6, init_audio=piece, init_noise_level=level)
        distances.append(float(np.square(made.samples - piece.samples).sum()))
    assert distances[0] < 0.5 * distances[1]


def test_loops_and_clips_longer_than_the_window(model: StableAudio) -> None:
    loop = model.generate_loop("chiptune", bpm=125, bars=4, seed=0, steps=2)
    assert loop.samples.shape[1] == round(4 * 4 * 60 / 125 * RATE)
    long = model.generate_long("chiptune", seconds=20.0, seed=0, steps=2)
    assert long.samples.shape == (1, 20 * RATE)


def test_the_command(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = tmp_path / "x.wav"
    arguments = ["stable-audio", "fast chiptune", "-m", "demo", "-o", str(output), "--steps", "2", "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"] == str(output)
    assert probe(output).frames == round(10.24 * RATE)


def test_words_it_does_not_know_are_told(model: StableAudio) -> None:
    with pytest.warns(UserWarning, match="never seen: zither"):
        model.generate("happy zither", seconds=0.5, seed=0, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate("Fast, sad chiptune in C minor!", seconds=0.5, seed=0, steps=1)


@pytest.mark.parametrize("asked", TEMPI)
def test_the_tempo_is_heard_that_was_asked_for(model: StableAudio, asked: str) -> None:
    styles = ("piano", "beat", "chiptune")
    clips = [model.generate(f"{asked} {style} in C minor", seconds=6, seed=3, steps=12) for style in styles]
    assert sum(tempo(clip) == asked for clip in clips) >= 2  # of 3; chance gives 1
