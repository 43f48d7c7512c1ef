"""What `StableAudio` makes: lengths, batches, kept sound, several windows, loops; and what it refuses."""

from __future__ import annotations

import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core.audio import Audio
from audiogen_core.errors import (
    AudioError,
    ModelError,
    OptionError,
    SoundWarning,
    UnknownModel,
    WeightsError,
)
from audiogen_core.noise import SeededNoise
from audiogen_mlx.stable_audio.generate import StableAudio

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
SMALL, ONE, INPAINT = "tiny-small", "tiny-1.0", "tiny-inpaint"
RATE = 44100


@cache
def model(name: str) -> StableAudio:
    return StableAudio.load(FIXTURES / name)


@cache
def sound(seconds: float, seed: int = 0) -> Audio:
    noise = np.random.default_rng(seed).normal(0, 0.1, (2, round(seconds * RATE)))
    return Audio(noise.astype(np.float32), RATE)


def generate(name: str, seconds: float = 0.3, **options) -> Audio:
    options = {"steps": 2, "seed": 1} | options
    return model(name).generate("a bell", seconds=seconds, **options)


# Length, seeds, batches


@pytest.mark.parametrize("seconds", [1 / RATE, 0.1, 0.12345, 20480 / RATE])
def test_exactly_as_long_as_asked(seconds: float) -> None:
    clip = generate(SMALL, seconds)
    assert (clip.channels, clip.samples.shape[1], clip.sample_rate) == (2, round(seconds * RATE), RATE)


def test_latents_are_of_the_whole_window_and_decode_to_the_clip() -> None:
    latents = model(SMALL).generate_latents("a bell", seconds=0.3, steps=2, seed=1)
    assert latents.values.shape == (8, 10)
    assert np.array_equal(model(SMALL).decode(latents).samples, generate(SMALL).samples)


def test_a_seed_repeats_and_another_does_not() -> None:
    assert np.array_equal(generate(ONE).samples, generate(ONE).samples)
    assert not np.array_equal(generate(ONE).samples, generate(ONE, seed=2).samples)
    assert np.array_equal(generate(ONE).samples, generate(ONE, seed=None, noise=SeededNoise(1)).samples)


@pytest.mark.parametrize("name", [SMALL, ONE])
def test_an_item_of_a_batch_is_what_it_is_alone(name: str) -> None:
    prompts = ["a bell", "a very long prompt about warm arpeggios on a slow house beat", "drums"]
    clips = model(name).generate_batch(prompts, seconds=0.3, steps=3, seed=5, init_audio=sound(0.2))
    for index, prompt in enumerate(prompts):
        alone = model(name).generate(prompt, seconds=0.3, steps=3, seed=5 + index, init_audio=sound(0.2))
        np.testing.assert_allclose(clips[index].samples, alone.samples, atol=2e-4)


def test_variations_count_seeds_up() -> None:
    clips = model(SMALL).variations("a bell", 2, seconds=0.3, steps=2, seed=1)
    assert len(clips) == 2
    np.testing.assert_allclose(clips[1].samples, generate(SMALL, seed=2).samples, atol=1e-5)


def test_defaults_are_the_published_ones() -> None:
    found = {name: model(name).settings(seconds=0.3) for name in (SMALL, ONE, INPAINT)}
    assert [(one.sampler, one.steps, one.guidance.scale) for one in found.values()] == [
        ("pingpong", 8, 1.0),
        ("dpmpp-3m-sde", 100, 7.0),
        ("dpmpp", 40, 4.0),
    ]
    assert (found[ONE].sigma_min, found[ONE].sigma_max, found[SMALL].sigma_max) == (0.3, 500.0, 1.0)


def test_progress_counts_steps_and_may_stop_the_run() -> None:
    seen: list[tuple[float, float]] = []
    generate(SMALL, steps=3, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, on_step=stop)
    assert mx.get_cache_memory() < 1 << 20


def test_both_layouts_are_one_model() -> None:
    for options in ({}, {"negative_prompt": "noise"}, {"init_audio": sound(0.2)}):
        ours, theirs = (generate(name, steps=3, **options) for name in (ONE, "tiny-1.0-diffusers"))
        np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(dtype: str) -> None:
    half = StableAudio.load(FIXTURES / SMALL, dtype=dtype)
    found = half.generate_latents("a bell", seconds=0.3, steps=2, seed=1).values
    exact = model(SMALL).generate_latents("a bell", seconds=0.3, steps=2, seed=1).values
    assert np.abs(found - exact).mean() < 0.1 * exact.std()


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frugal = StableAudio.load(FIXTURES / ONE, low_memory=True)
    parts = frugal._parts
    held: list[tuple[bool, bool]] = []
    clip = frugal.generate(
        "a bell",
        seconds=0.3,
        steps=2,
        seed=1,
        init_audio=sound(0.2),
        on_step=lambda *_: held.append((parts._text is not None, parts._autoencoder is not None)),
    )
    assert held == [(False, False)] * 2
    assert parts._dit is None
    assert np.array_equal(clip.samples, generate(ONE, init_audio=sound(0.2)).samples)
    assert np.array_equal(
        frugal.generate("a bell", seconds=0.3, steps=2, seed=1).samples, generate(ONE).samples
    )


# Beginning from a clip


@pytest.mark.parametrize("name", [SMALL, ONE])
def test_a_lower_level_stays_nearer_to_the_clip(name: str) -> None:
    latents = model(name)._parts.autoencoder().encode(model(name)._fitted(sound(0.3))).values
    far = []
    for level in (0.05, 0.9) if name == SMALL else (0.4, 50.0):
        found = model(name).generate_latents(
            "a bell", seconds=0.3, steps=8, seed=1, init_audio=sound(0.3), init_noise_level=level
        )
        far.append(np.abs(found.values - latents).mean())
    assert far[0] < far[1]


def test_a_clip_of_another_rate_and_one_channel_is_converted() -> None:
    mono = Audio(sound(0.3).samples[:1, ::2], RATE // 2)
    converted = mono.resample(RATE).mix(2)
    assert np.array_equal(
        generate(SMALL, init_audio=mono).samples, generate(SMALL, init_audio=converted).samples
    )


@pytest.mark.parametrize("options", [{}, {"inpaint": (0.1, 0.2)}])
def test_a_clip_cut_to_the_window_is_told(options: dict[str, Any]) -> None:
    window = model(ONE).config.window_seconds
    with pytest.warns(
        SoundWarning, match=rf"{window + 0.5:.2f} s; the model takes the first {window:.2f} s"
    ) as told:
        longer = generate(ONE, init_audio=sound(window + 0.5), **options)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = generate(ONE, init_audio=sound(window + 0.5).trim(window), **options)
    np.testing.assert_array_equal(longer.samples, cut.samples)


@pytest.mark.parametrize("name", ["init_audio", "prompt_audio"])
def test_a_clip_may_be_a_file(tmp_path: Path, name: str) -> None:
    clip = sound(0.2)
    path = clip.save(tmp_path / "clip.wav", subtype="FLOAT")
    assert np.array_equal(generate(SMALL, **{name: path}).samples, generate(SMALL, **{name: clip}).samples)


@pytest.mark.parametrize("sampler", ["pingpong", "euler", "rk4", "dpmpp"])
def test_inpainting_keeps_the_rest_with_every_flow_sampler(sampler: str) -> None:
    check_kept(SMALL, sampler)


@pytest.mark.parametrize(
    "sampler",
    ["dpmpp-3m-sde", "dpmpp-2m-sde", "dpmpp-2m", "k-heun", "v-ddim", "v-ddim-cfgpp", "cosine-dpm"],
)
def test_inpainting_keeps_the_rest_with_every_v_sampler(sampler: str) -> None:
    check_kept(ONE, sampler)


def check_kept(name: str, sampler: str) -> None:
    """Latents outside the made part are the clip's; inside they are not."""
    clip, hop = sound(0.4), model(name).config.hop_length
    noise = SeededNoise(1)
    latents = model(name).generate_latents(
        "a bell",
        seconds=0.4,
        steps=4,
        sampler=sampler,
        noise=noise,
        init_audio=clip,
        inpaint=(3 * hop / RATE, 6 * hop / RATE),
    )
    again = SeededNoise(1)
    again.normal((1, *latents.values.shape))
    known = model(name)._parts.autoencoder().encode(model(name)._fitted(clip), again).values
    kept = np.ones(latents.values.shape[1], dtype=bool)
    kept[3:6] = False
    np.testing.assert_allclose(latents.values[:, kept], known[:, kept], atol=2e-3)
    assert np.abs(latents.values[:, ~kept] - known[:, ~kept]).mean() > 0.1


@pytest.mark.parametrize("name", [SMALL, ONE])
def test_kept_sound_is_kept_sample_for_sample(name: str) -> None:
    clip = sound(0.4)
    made = generate(name, 0.4, init_audio=clip, inpaint=[(0.1, 0.15), (0.2, 0.25)])
    seam = round(0.02 * RATE)
    kept = np.ones(clip.samples.shape[1], dtype=bool)
    for start, end in ((0.1, 0.15), (0.2, 0.25)):
        kept[round(start * RATE) - seam : round(end * RATE) + seam] = False
    assert np.array_equal(made.samples[:, kept], clip.samples[:, kept])
    inside = slice(round(0.1 * RATE), round(0.15 * RATE))
    assert not np.array_equal(made.samples[:, inside], clip.samples[:, inside])


def test_seconds_and_a_mask_mean_the_same() -> None:
    mask = np.zeros(round(0.4 * RATE), dtype=bool)
    mask[round(0.1 * RATE) : round(0.2 * RATE)] = True
    options = {"seconds": 0.4, "init_audio": sound(0.4)}
    assert np.array_equal(
        generate(SMALL, inpaint=mask, **options).samples,
        generate(SMALL, inpaint=(0.1, 0.2), **options).samples,
    )


@pytest.mark.parametrize("name", [SMALL, ONE])
def test_a_continuation_begins_with_the_clip(name: str) -> None:
    clip = sound(0.2)
    made = generate(name, 0.4, prompt_audio=clip)
    until = clip.samples.shape[1] - round(0.02 * RATE)
    assert made.samples.shape[1] == round(0.4 * RATE)
    assert np.array_equal(made.samples[:, :until], clip.samples[:, :until])


# Several windows, loops


@pytest.mark.parametrize("name", [SMALL, ONE])
@pytest.mark.parametrize("seconds", [0.2, 0.46440, 1.0, 1.23456])
def test_clips_of_any_length(name: str, seconds: float) -> None:
    options = {"seconds": seconds, "steps": 2, "seed": 3}
    pieces = [piece.samples for piece in model(name).stream("a bell", **options)]
    whole = model(name).generate_long("a bell", **options)
    assert whole.samples.shape[1] == round(seconds * RATE)
    assert np.array_equal(np.concatenate(pieces, axis=1), whole.samples)


def test_windows_overlap_and_the_first_is_what_it_is_alone() -> None:
    window = model(SMALL).config.window_seconds
    long = model(SMALL).generate_long("a bell", seconds=1.0, overlap=0.2, steps=2, seed=3)
    first = model(SMALL).generate("a bell", seconds=window, steps=2, seed=3)
    until = round((window - 0.2) * RATE) - 4096
    assert np.array_equal(long.samples[:, :until], first.samples[:, :until])


def test_a_long_clip_continues_another_of_any_length() -> None:
    clip = sound(0.9)
    seen: list[tuple[float, float]] = []
    made = model(SMALL).generate_long(
        "a bell",
        seconds=1.5,
        steps=2,
        seed=3,
        prompt_audio=clip,
        on_step=lambda done, total: seen.append((done, total)),
    )
    until = clip.samples.shape[1] - round(0.02 * RATE)
    assert made.samples.shape[1] == round(1.5 * RATE)
    assert np.array_equal(made.samples[:, :until], clip.samples[:, :until])
    assert seen[-1][0] == seen[-1][1] == 2 * len(seen) / 2


@pytest.mark.parametrize(("bpm", "bars", "beats"), [(700 / 3, 1, 1), (350.0, 2, 1), (333.3, 1, 2)])
def test_a_loop_has_exactly_its_bars(bpm: float, bars: int, beats: int) -> None:
    loop = model(SMALL).generate_loop("drums", bpm=bpm, bars=bars, beats_per_bar=beats, steps=2, seed=3)
    assert loop.samples.shape[1] == round(bars * beats * 60 / bpm * RATE)


def test_a_loop_runs_on_from_its_end_to_its_beginning() -> None:
    options = {"steps": 2, "seed": 3, "seconds_total": 0.4}
    loop = model(SMALL).generate_loop("drums", bpm=300, bars=1, beats_per_bar=1, **options)
    length = loop.samples.shape[1]
    clip = model(SMALL).generate("drums", seconds=(length + 2205) / RATE, **options)
    assert np.array_equal(loop.samples[:, 0], clip.samples[:, length])
    assert np.array_equal(loop.samples[:, 2205:], clip.samples[:, 2205:length])


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.5}, "makes 0.46 s at most"),
        ({"seconds": 0.0}, "seconds must be more than 0"),
        ({"seconds": float("nan")}, "seconds must be more than 0"),
        ({"seconds": 1e-9}, "a sample or more"),
        ({"seconds": 600.0}, "makes 0.46 s at most"),
        ({"seconds": float("inf")}, "seconds must be more than 0"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"sampler": "v-ddim"}, "use one of pingpong, euler, rk4, dpmpp"),
        ({"sampler": "magic"}, "sampler must be one of pingpong, euler.*got 'magic'"),
        ({"guidance_scale": float("inf")}, "finite"),
        ({"guidance_rescale": 2.0}, "guidance_rescale must be from 0 to 1"),
        ({"guidance_interval": (0.8, 0.2)}, "guidance interval"),
        ({"guidance_interval": (0.8,)}, "guidance_interval must be two numbers"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number"),
        ({"seed": "lucky"}, "seed must be a whole number"),
        ({"seconds_start": 1.0}, "does not take seconds_start"),
        ({"seconds_total": 300.0}, "seconds_total must lie in"),
        ({"noise": SeededNoise(1)}, "not both"),
        ({"seed": -1}, "seed must be a whole number of 0 or more"),
        ({"sigma_max": 0.0}, "noise level of a rectified flow"),
        ({"init_noise_level": 0.5}, "give init_audio"),
        ({"inpaint": (0.1, 0.2)}, "give init_audio"),
        ({"init_audio": sound(0.3), "init_noise_level": 2.0}, r"must be in \(0, 1\]"),
        ({"init_audio": sound(0.3), "inpaint": (0.2, 0.1)}, "an end after it"),
        ({"init_audio": sound(0.3), "inpaint": (-1, 0.1)}, "a start of 0 or more"),
        ({"init_audio": sound(0.3), "inpaint": (3.0, 4.0)}, "after the model's"),
        ({"init_audio": sound(0.3), "inpaint": (0.1, 0.101)}, "make it longer"),
        ({"init_audio": sound(0.3), "inpaint": []}, "nothing to make anew"),
        ({"init_audio": sound(0.3), "inpaint": (0.1, 0.2, 0.3)}, "inpaint must be two numbers"),
        ({"init_audio": sound(0.3), "inpaint": np.zeros(9)}, "a mask must be bool"),
        ({"prompt_audio": sound(0.3), "init_audio": sound(0.3)}, "neither init_audio nor inpaint"),
        ({"prompt_audio": sound(0.4)}, "ask for more seconds"),
        ({"colour": 3}, "there is no option colour"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        generate(SMALL, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 600.0}, "sigma_min must be above 0"),
        ({"sigma_min": 0.0}, "sigma_min must be above 0"),
        ({"rho": 0.0}, "rho must be above 0"),
        ({"sampler": "pingpong"}, "use one of v-ddim"),
        ({"seconds_start": 600.0}, "seconds_start must lie in"),
        ({"init_audio": sound(0.3), "init_noise_level": -1.0}, "above 0"),
        ({"init_audio": sound(0.3), "init_noise_level": 0.1}, "sigma_min must be above 0"),
    ],
)
def test_options_that_make_no_sense_for_v(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        generate(ONE, **options)


def test_a_negative_prompt_without_guidance_is_said_to_do_nothing() -> None:
    with pytest.warns(UserWarning, match="no effect: guidance_scale is 1"):
        clip = generate(SMALL, negative_prompt="noise")
    assert np.array_equal(clip.samples, generate(SMALL).samples)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt(prompt: str) -> None:
    with pytest.raises(OptionError, match="the prompt is empty"):
        model(SMALL).generate(prompt, seconds=0.3)


def test_a_clip_of_one_sample() -> None:
    clip = Audio(np.zeros((2, 1), np.float32), RATE)
    with pytest.raises(AudioError, match="must have 2048 or more"):
        generate(SMALL, init_audio=clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bpm": 120, "bars": 1}, "bars that fit: none"),
        ({"bpm": 300, "bars": 9, "beats_per_bar": 1}, "bars that fit: at most 2"),
        ({"bpm": 5, "bars": 1}, "bpm must be from 20 to 400"),
        ({"bpm": 120, "bars": 0}, "bars must be"),
        ({"bpm": 120, "bars": 1, "beats_per_bar": 0}, "beats_per_bar must be a whole number from 1 to 32"),
    ],
)
def test_loops_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model(SMALL).generate_loop("drums", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1}, "seconds must be more than 0"),
        ({"seconds": 1, "overlap": 5}, "overlap must be"),
        ({"seconds": 1, "overlap": 0.0}, "overlap must be"),
        ({"seconds": 1, "init_audio": sound(0.3)}, "init_audio does not go"),
        ({"seconds": 1, "prompt_audio": sound(2)}, "ask for more seconds"),
    ],
)
def test_long_clips_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model(SMALL).generate_long("a bell", **options)


# Files


def copied(tmp_path: Path, name: str = SMALL) -> Path:
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    return folder


def test_a_text_encoder_that_is_not_there(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    with pytest.raises(ModelError, match=r"text encoder '../t5' is not there.*--t5 PATH"):
        StableAudio.load(folder)
    assert StableAudio.load(folder, t5=FIXTURES / "t5").revision == model(SMALL).revision
    shutil.copytree(FIXTURES / "t5", folder / "t5")
    assert StableAudio.load(folder).config == model(SMALL).config


def test_a_configuration_or_a_checkpoint_by_its_own_path(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for path in (folder / "model.safetensors", folder / "model_config.json"):
        assert StableAudio.load(path, t5=FIXTURES / "t5").config == model(SMALL).config
    (folder / "model.safetensors").rename(folder / "base_model.safetensors")
    (folder / "model_config.json").rename(folder / "base_model_config.json")
    for path in (folder / "base_model.safetensors", folder / "base_model_config.json"):
        assert StableAudio.load(path, t5=FIXTURES / "t5").config == model(SMALL).config


def test_a_transformer_alone_takes_the_rest_from_its_base(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    table = load_file(folder / "model.safetensors")
    table = {name: array for name, array in table.items() if name.startswith("model.model.")}
    save_file(table, folder / "model.safetensors")
    with pytest.raises(ModelError, match="--base"):
        StableAudio.load(folder, t5=FIXTURES / "t5")
    tuned = StableAudio.load(folder, t5=FIXTURES / "t5", base=FIXTURES / SMALL)
    clip = tuned.generate("a bell", seconds=0.3, steps=2, seed=1)
    assert np.array_equal(clip.samples, generate(SMALL).samples)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda folder: (folder / "model_config.json").unlink(),
            ModelError,
            "no Stable Audio model in this folder",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), ModelError, "found none"),
        (lambda folder: (folder / "model_config.json").write_text("{}"), ModelError, "no model_type"),
    ],
    ids=["no configuration", "no weights", "empty configuration"],
)
def test_folders_that_are_no_model(tmp_path: Path, spoil, error: type[Exception], message: str) -> None:
    folder = copied(tmp_path)
    spoil(folder)
    with pytest.raises(error, match=message):
        StableAudio.load(folder)


def test_names_paths_and_dtypes_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="stable-audio-open-small"):
        StableAudio.load("stable-audio-open-smal")
    with pytest.raises(OptionError, match="dtype must be one of"):
        StableAudio.load(FIXTURES / SMALL, dtype="int8")
    alone = tmp_path / "model.safetensors"
    shutil.copy(FIXTURES / SMALL / "model.safetensors", alone)
    with pytest.raises(ModelError, match="never guessed"):
        StableAudio.load(alone)


@pytest.mark.parametrize(
    "name",
    [
        "model.model.preprocess_conv.weight",
        "conditioner.conditioners.seconds_total.embedder.embedding.1.bias",
        "pretransform.model.decoder.layers.0.bias",
    ],
)
def test_weights_that_are_not_numbers(tmp_path: Path, name: str) -> None:
    folder = copied(tmp_path)
    table = load_file(folder / "model.safetensors")
    table[name][...] = np.nan
    save_file(table, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="NaN or infinity"):
        StableAudio.load(folder, t5=FIXTURES / "t5")


def test_a_run_that_overflows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = StableAudio.load(FIXTURES / SMALL)
    network = spoilt._parts.dit()
    network.project_out.weight = network.project_out.weight * mx.inf
    with pytest.raises(ModelError, match="sampling gave NaN or infinity"):
        spoilt.generate("a bell", seconds=0.3)
