"""Stable Audio 3 in Python: what comes out, and what is refused with a sentence."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core import Audio, SeededNoise
from audiogen_core.errors import AudioError, ModelError, OptionError, SoundWarning, UnknownModel, WeightsError
from audiogen_mlx.stable_audio.loops import BLEND_SECONDS
from audiogen_mlx.stable_audio_3 import StableAudio3

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
SMALL, BASE = FIXTURES / "tiny-small", FIXTURES / "tiny-small-base"
RATE = 1280
TEXT = str(SMALL / "t5gemma-b-b-ul2")


@cache
def model(path: Path = SMALL) -> StableAudio3:
    return StableAudio3.load(path, t5=TEXT, low_memory=False)


def generate(path: Path = SMALL, **options: Any) -> Audio:
    return model(path).generate("a bell", **{"seconds": 0.5, "steps": 2, "seed": 1, **options})


def sound(seconds: float, rate: int = RATE) -> Audio:
    return Audio(0.3 * np.sin(np.arange(2 * round(seconds * rate)).reshape(2, -1) / 7), rate)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.1, 0.5, 1.2345])
def test_exactly_as_long_as_asked(seconds):
    clip = generate(seconds=seconds)
    assert clip.samples.shape == (2, round(seconds * RATE))
    assert np.abs(clip.samples).max() <= 1


def test_a_seed_repeats_and_another_does_not():
    one, same, other = (generate(seed=seed).samples for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_defaults_are_the_published_ones():
    found = [model(path).settings(seconds=0.3) for path in (SMALL, BASE)]
    assert [(one.sampler, one.steps, one.guidance.scale) for one in found] == [
        ("pingpong", 8, 1.0),
        ("euler", 50, 7.0),
    ]


def test_progress_counts_steps_and_may_stop_the_run():
    seen: list[tuple[float, float]] = []
    generate(steps=3, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(on_step=stop)
    assert mx.get_cache_memory() < 1 << 20


def test_a_clip_of_another_rate_and_one_channel_is_converted():
    mono = Audio(sound(0.5).samples[:1, ::2], RATE // 2)
    converted = mono.resample(RATE).mix(2)
    assert np.array_equal(generate(init_audio=mono).samples, generate(init_audio=converted).samples)


def test_a_lower_level_stays_nearer_to_the_clip():
    clip = sound(0.5)
    away = [
        generate(init_audio=clip, init_noise_level=level).samples - clip.samples for level in (0.9, 0.3, 0.05)
    ]
    made = model()._parts.autoencoder().encode(clip)
    coded = model().decode(made).samples[:, : clip.samples.shape[1]]
    near = np.abs(generate(init_audio=clip, init_noise_level=0.01).samples - coded).mean()
    assert near < np.abs(away[0]).mean()


def test_a_clip_cut_to_what_the_model_makes_is_told(monkeypatch):
    made = model()
    monkeypatch.setattr(made, "config", replace(made.config, sample_size=10 * 128))
    with pytest.warns(SoundWarning, match=r"would end at 1.50 s; the model takes the first 1.00 s") as told:
        longer = made.generate("a bell", init_audio=sound(1.5), steps=1, seed=1)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = made.generate("a bell", init_audio=sound(1.5).trim(1.0), steps=1, seed=1)
    np.testing.assert_array_equal(longer.samples, cut.samples)


@pytest.mark.parametrize("name", ["init_audio", "prompt_audio"])
def test_a_clip_may_be_a_file(name, tmp_path):
    path = sound(0.3).save(tmp_path / "clip.wav", subtype="FLOAT")
    assert np.array_equal(generate(**{name: path}).samples, generate(**{name: sound(0.3)}).samples)


@pytest.mark.parametrize("sampler", ["pingpong", "euler", "rk4", "dpmpp"])
def test_two_regions_are_made_anew_and_the_rest_kept(sampler):
    """With every sampler: what is kept is the clip, and what is made depends on the seed."""
    clip, regions = sound(1.0), [(0.2, 0.3), (0.6, 0.8)]
    made = [
        generate(
            init_audio=clip, inpaint=regions, sampler=sampler, seconds=1.0, exact=True, seed=seed
        ).samples
        for seed in (1, 2)
    ]
    anew = np.zeros(RATE, bool)
    for start, stop in regions:
        anew[round(start * RATE) - 26 : round(stop * RATE) + 26] = True
    assert np.array_equal(made[0][:, ~anew], clip.samples[:, ~anew])
    inside = slice(round(0.65 * RATE), round(0.75 * RATE))
    assert np.abs(made[0][:, inside] - made[1][:, inside]).max() > 1e-3


def test_a_loop_runs_on_from_its_end_to_its_beginning():
    loop = model().generate_loop("drums", bpm=120, bars=1, steps=2, seed=1)
    length, blend = loop.samples.shape[1], round(BLEND_SECONDS * RATE)
    clip = model().generate("drums", seconds=(2 * length + blend) / RATE, steps=2, seed=1)  # a bar more
    assert np.array_equal(loop.samples[:, 0], clip.samples[:, length])
    assert np.array_equal(loop.samples[:, blend:], clip.samples[:, blend:length])


def test_a_stream_hears_as_much_as_is_asked_for(monkeypatch):
    made = model()
    monkeypatch.setattr(made, "config", replace(made.config, sample_size=20 * 128))
    asked = {"seconds": 3.0, "overlap": 0.5, "steps": 1, "seed": 1, "duration_padding": 0.0}
    pieces = [piece.samples.shape[1] for piece in made.stream("a bell", **asked)]
    assert pieces == [15 * 128, 3 * RATE - 15 * 128]
    assert made.generate_long("a bell", **asked).samples.shape[1] == 3 * RATE
    assert made.generate_long("a bell", seconds=1.0, steps=1).samples.shape[1] == RATE


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, "seconds must be more than 0"),
        ({"seconds": float("nan")}, "seconds must be more than 0"),
        ({"seconds": 1e-9}, "a sample or more"),
        ({"seconds": 600.0}, r"makes 51\.20 s at most"),
        ({"seconds": float("inf")}, "seconds must be more than 0"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"sampler": "v-ddim"}, "sampler must be one of pingpong, euler, rk4, dpmpp, got 'v-ddim'"),
        ({"guidance_scale": float("inf")}, "finite"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number"),
        ({"guidance_rescale": 2.0}, "guidance_rescale must be from 0 to 1"),
        ({"guidance_projection": -0.1}, "guidance_projection must be from 0 to 1"),
        ({"guidance_threshold": -1.0}, "guidance_threshold must be 0 or more"),
        ({"guidance_interval": (0.8, 0.2)}, "guidance interval"),
        ({"guidance_interval": (0.8,)}, "guidance_interval must be two numbers"),
        ({"duration_padding": 100.0}, "duration_padding must be from 0 to 60"),
        ({"seed": "lucky"}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of 0 or more"),
        ({"noise": SeededNoise(1)}, "not both"),
        ({"times": (1.0,)}, "two or more"),
        ({"times": (1.0, 0.5, 0.0), "steps": 3}, "one more than steps"),
        ({"compat": "downstream"}, "compat must be one of"),
        ({"init_noise_level": 0.5}, "give init_audio"),
        ({"inpaint": (0.1, 0.2)}, "give init_audio"),
        ({"before": 1.0}, "give init_audio"),
        ({"init_audio": sound(0.5), "init_noise_level": 2.0}, "init_noise_level must be"),
        ({"init_audio": sound(0.5), "inpaint": (0.2, 0.1)}, "an end after it"),
        ({"init_audio": sound(0.5), "inpaint": (-1, 0.1)}, "a start of 0 or more"),
        ({"init_audio": sound(0.5), "inpaint": (3.0, 4.0)}, "after the clip's"),
        ({"init_audio": sound(0.5), "inpaint": []}, "nothing to make anew"),
        ({"init_audio": sound(0.5), "inpaint": (0.1, 0.2, 0.3)}, "inpaint must be two numbers"),
        ({"prompt_audio": sound(0.3), "init_audio": sound(0.3)}, "neither init_audio nor inpaint"),
        ({"prompt_audio": sound(0.6)}, "ask for more seconds"),
        ({"colour": 3}, "there is no option colour"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(OptionError, match=message):
        generate(**{"steps": None, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1}, "seconds must be more than 0"),
        ({"seconds": 60, "overlap": 55}, "overlap must be"),
        ({"seconds": 60, "overlap": 0.0}, "overlap must be"),
        ({"seconds": 60, "init_audio": sound(0.3)}, "init_audio does not go"),
        ({"seconds": 60, "compat": "upstream"}, "compat does not go"),
        ({"seconds": 60, "prompt_audio": sound(70)}, "ask for more seconds"),
    ],
)
def test_long_clips_that_make_no_sense(options, message):
    with pytest.raises(OptionError, match=message):
        model().generate_long("a bell", **options)


@pytest.mark.parametrize("name", ["init_audio", "prompt_audio"])
def test_a_clip_of_one_sample(name):
    with pytest.raises(AudioError, match="must have 128 or more"):
        generate(**{name: Audio(np.zeros((2, 1), np.float32), RATE)})


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_one_of_padding(prompt):
    """The original takes it, so it is taken; spaces are tokens of their own."""
    assert model().generate(prompt, seconds=0.3, steps=1, seed=1).samples.shape[1] == round(0.3 * RATE)


def test_a_negative_prompt_without_guidance_is_said_to_do_nothing():
    with pytest.warns(UserWarning, match="no effect: guidance_scale is 1"):
        clip = generate(negative_prompt="noise")
    assert np.array_equal(clip.samples, generate().samples)


def test_batches_that_are_none():
    for prompts in ([], "a bell", None):
        with pytest.raises(OptionError, match="a list of one prompt or more"):
            model().generate_batch(prompts, seconds=0.3)
    with pytest.raises(OptionError, match="2 durations for 1 prompts"):
        model().generate_batch(["a"], durations=(0.3, 0.4))
    with pytest.raises(OptionError, match="variations must be from 1"):
        model().variations("a bell", 0, seconds=0.3)


# Files


def test_names_and_dtypes_that_are_none(tmp_path):
    with pytest.raises(UnknownModel, match="stable-audio-3-medium"):
        StableAudio3.load("stable-audio-3-medum")
    with pytest.raises(OptionError, match="dtype must be one of"):
        StableAudio3.load(SMALL, dtype="int8")
    with pytest.raises(OptionError, match="bits must be 4 or 8"):
        StableAudio3.load(SMALL, bits=6)
    alone = tmp_path / "model.safetensors"
    shutil.copy(SMALL / "model.safetensors", alone)
    with pytest.raises(ModelError, match="no Stable Audio 3 in this folder"):
        StableAudio3.load(alone)


@pytest.mark.parametrize(
    "name",
    [
        "model.model.preprocess_conv.weight",
        "conditioner.conditioners.seconds_total.embedder.embedding.1.bias",
        "pretransform.model.decoder.layers.1.bias",
    ],
)
def test_weights_that_are_not_numbers(name, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    table = load_file(folder / "model.safetensors")
    table[name][...] = np.nan
    save_file(table, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="NaN or infinity"):
        StableAudio3.load(folder, low_memory=False).generate("a bell", seconds=0.3, steps=1)


def test_a_run_that_overflows_says_so():
    spoilt = StableAudio3.load(SMALL, low_memory=False)
    network = spoilt._parts.dit(1.0)
    network.project_out.weight = network.project_out.weight * mx.inf
    with pytest.raises(ModelError, match="sampling gave NaN or infinity"):
        spoilt.generate("a bell", seconds=0.3)
