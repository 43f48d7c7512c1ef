"""Stable Audio 3 against arrays of the original: conditioning, network, guidance, samplers, whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core import Audio, RecordedNoise
from audiogen_core.tokenizer import Tokenizer
from audiogen_mlx import t5gemma
from audiogen_mlx.stable_audio.conditioning import Conditioning
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Task
from audiogen_mlx.stable_audio_3 import StableAudio3
from audiogen_mlx.stable_audio_3.conditioning import FREQUENCIES, assemble, features
from audiogen_mlx.stable_audio_3.generate import SNR_FLOOR, lengths
from audiogen_mlx.stable_audio_3.guidance import Guidance, predictor
from audiogen_mlx.stable_audio_3.schedules import Shift, times

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
TEXT = FIXTURES / "tiny-small" / "t5gemma-b-b-ul2"
PATHS = {"small": "tiny-small", "medium": "tiny-medium", "base": "tiny-small-base"}
PROMPTS = [
    "warm lofi house loop with dusty drums, 120 BPM",
    "glass breaks; café chatter ☃",
    "",
    "a bright piano arpeggio over soft strings, deep house beat with rolling bass, and rain on a tin roof "
    "with distant thunder, 174 BPM",
]
NEGATIVE = "no drums, distant thunder"
SECONDS = [1.3, 0.7, 2.1, 500.0]


@cache
def model(size: str) -> StableAudio3:
    return StableAudio3.load(FIXTURES / PATHS[size], t5=str(TEXT), low_memory=False)


@cache
def stored(name: str) -> Any:
    return np.load(FIXTURES / f"{name}.npz")


def agree(made: Any, expected: np.ndarray, within: float = 1e-4) -> None:
    made = np.array(made)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=0, atol=within)


@pytest.fixture(params=list(PATHS))
def size(request):
    return request.param


# Text and conditions


def test_tokens_are_those_of_the_original():
    tokenizer = Tokenizer.load(TEXT, ends=False)
    for case in json.loads((FIXTURES / "tokenizer_expected.json").read_text()):
        assert tokenizer.encode([case["text"] or ""])[0][0].tolist() == case["ids"]
        padded, mask = tokenizer.encode([case["text"]], max_length=24, pad_to=24)
        assert padded[0].tolist() == case["ids_padded"]
        assert mask.sum() == min(24, len(case["ids"]))


def test_t5gemma():
    arrays = stored("text")
    config = t5gemma.T5GemmaConfig.from_dict(json.loads((TEXT / "config.json").read_text()))
    encoder = t5gemma.load_t5gemma(config, t5gemma.read(TEXT))
    ids, mask = mx.array(arrays["input_ids"]), mx.array(arrays["attention_mask"]).astype(mx.bool_)
    real = arrays["attention_mask"] == 1
    x = encoder.embed_tokens.weight[ids] * config.width**0.5
    agree(x, arrays["embed_scaled"], 1e-5)
    first = np.array(encoder.layers[0](x, mask[:, None, None, :], mx.float32))
    agree(first[real], arrays["layer0"][real])
    last = np.array(encoder(ids, mask))
    assert np.isfinite(last).all()
    agree(last[real], arrays["last_hidden_state"][real])


def test_prompts_and_seconds_become_conditions(size):
    """Through the tokenizer and T5Gemma, of which padding is not computed."""
    arrays, parts = stored(f"{size}_cond"), model(size)._parts
    (made,) = parts.condition(PROMPTS, SECONDS)
    agree(made.tokens, arrays["cross"])
    agree(made.global_, arrays["global"])
    np.testing.assert_array_equal(made.mask, arrays["cross_mask"].astype(bool))
    if size == "small":
        agree(made.tokens[:, :-1], stored("text")["prompt_embed"])
    agree(parts.embedders.seconds(arrays["seconds"].tolist())[:, None], arrays["seconds_embed"])


def test_features_of_times_are_exact_in_their_last_bits(size):
    arrays = stored(f"{size}_cond")
    np.testing.assert_array_equal(FREQUENCIES.view(np.uint32), arrays["expo_freqs"].view(np.uint32))
    agree(features(arrays["t"].tolist()), arrays["t_features"], 1e-5)
    share = np.clip(arrays["seconds"], 0, 384).astype(np.float32) / np.float32(384)
    agree(features(share.tolist()), arrays["seconds_features"], 1e-5)


def test_what_the_network_makes_of_conditions(size):
    arrays, dit = stored(f"{size}_cond"), model(size)._parts.dit(1.0)
    run = dit.condition(None, mx.array(arrays["global"][:1]), 1, local=None)
    agree(dit.time_embed(mx.array(features(arrays["t"].tolist()))), arrays["t_embed"])
    token = mx.concatenate([dit.global_token(float(t), run) for t in arrays["t"]])
    agree(token, arrays["global_embed"])
    agree(dit.modulation(token), arrays["modulation"])
    agree(dit.cond_embed(mx.array(arrays["cross"])), arrays["context"])


# The network


def level(name: str) -> float:
    return float(np.float32(name.split("_t")[-1].replace("p", ".")))


def silent(size: str) -> mx.array:
    return mx.zeros((1, 1 + model(size).config.dit.io_channels, 1))


def test_one_pass(size):
    arrays, dit = stored(f"{size}_dit"), model(size)._parts.dit(1.0)
    cross, whole = mx.array(arrays["cross"]), mx.array(arrays["global"])
    names = [name for name in arrays.files if name.startswith(("out_T", "out_inpaint"))]
    assert len(names) >= 6
    for name in names:
        inpaints = name.startswith("out_inpaint")
        x = mx.array(arrays["x_T16" if inpaints else f"x_{name.split('_')[1]}"])
        local = mx.array(arrays["local"]) if inpaints else silent(size)
        run = dit.condition(cross[:1], whole[:1], x.shape[2], local=local)
        agree(dit(x, level(name), run), arrays[name])
    run = dit.condition(cross[:1], whole[:1], 7, local=None)
    agree(dit(mx.array(arrays["x_T7"]), 0.6, run), arrays["out_no_local"])
    run = dit.condition(cross[:3], whole[:3], 16, local=silent(size))
    agree(dit(mx.array(arrays["x_batch"]), mx.array(arrays["t_batch"]), run), arrays["out_batch"])


def test_block_by_block(size):
    arrays, dit = stored(f"{size}_dit"), model(size)._parts.dit(1.0)
    x = mx.array(arrays["x_T7"]).swapaxes(1, 2)
    run = dit.condition(mx.array(arrays["cross"][:1]), mx.array(arrays["global"][:1]), 7, local=silent(size))
    x = mx.concatenate([dit.memory_tokens[None], dit.project_in(x + dit.preprocess(x))], axis=1)
    modulation = dit.modulation(dit.global_token(0.6, run))
    for index, layer in enumerate(dit.layers):
        x = layer(x, modulation, run, index)
        if index == 0:
            agree(x, arrays["block0"])
    agree(x, arrays["block_last"])


def test_positions_after_the_end_of_a_clip(size):
    """Left in with values of zero, as the original does on a CPU; or taken out, as it does on a GPU."""
    arrays, dit = stored(f"{size}_dit"), model(size)._parts.dit(1.0)
    cross, whole = mx.array(arrays["cross"][:2]), mx.array(arrays["global"][:2])
    x, valid = mx.array(arrays["x_pm"]), arrays["padding_mask"].astype(np.float32)
    run = dit.condition(cross, whole, 33, local=silent(size))
    agree(dit(x, 0.6, run), arrays["out_pm_none"])
    run = dit.condition(cross, whole, 33, local=silent(size), valid=mx.array(valid))
    agree(dit(x, 0.6, run), arrays["out_pm_vzero"])
    for item, count in enumerate(valid.sum(axis=1).astype(int)):
        one = slice(item, item + 1)
        run = dit.condition(cross[one], whole[one], int(count), local=silent(size))
        agree(dit(x[one, :, :count], 0.6, run), arrays["out_pm_flash"][one, :, :count])


GUIDED = {
    "cfg3_apg0": {"projection": 0.0},
    "cfg3_apg0p5": {"projection": 0.5},
    "cfg3_apg1": {},
    "cfg0p5_apg0": {"scale": 0.5, "projection": 0.0},
    "cfg0p5_apg0p5": {"scale": 0.5, "projection": 0.5},
    "cfg0p5_apg1": {"scale": 0.5},
    "cfg3_apg1_neg": {},
    "cfg3_apg0_neg": {"projection": 0.0},
    "cfg3_apg1_neg_nomask": {},
    "cfg3_apg1_inpaint": {},
    "cfg3_apg1_pm": {},
    "cfg3_interval_off": {"interval": (0.0, 0.5)},
    "cfg3_phi": {"rescale": 0.7},
    "cfg3_thresh": {"threshold": 1.5},
}


@pytest.mark.parametrize("name", list(GUIDED))
def test_guidance(size, name):
    arrays, dit = stored(f"{size}_dit"), model(size)._parts.dit(1.0)
    if name not in arrays:
        pytest.skip("not among the arrays of this model")
    mask = stored(f"{size}_cond")["cross_mask"].astype(bool)
    items = slice(0, 2) if name.endswith("_pm") else slice(0, 1)
    x = arrays["x_pm" if name.endswith("_pm") else "x_T16" if name.endswith("_inpaint") else "x_T7"]
    negative = None
    if "_neg" in name:
        negative = Conditioning(mx.array(arrays["neg_cross"]), arrays["neg_mask"].astype(bool), None)
    predict = predictor(
        dit,
        Conditioning(mx.array(arrays["cross"][items]), mask[items], mx.array(arrays["global"][items])),
        Guidance(**{"scale": 3.0, **GUIDED[name]}),
        x.shape[2],
        local=mx.array(arrays["local"]) if name.endswith("_inpaint") else silent(size),
        negative=negative,
        valid=mx.array(arrays["padding_mask"].astype(np.float32)) if name.endswith("_pm") else None,
        shown=name.endswith("_nomask"),
    )
    agree(predict(mx.array(x), 0.6).velocity, arrays[name], 2e-4)


# Times and samplers


@pytest.mark.parametrize("name", [name for name in stored("schedules").files if name != "default_batch"])
def test_schedules(name):
    kind, _, rest = name.partition("_")
    frames = int(name.split("len")[1]) if "len" in name else 100
    if kind == "default":
        steps, first = rest.removeprefix("steps").split("_max")
        made = times(int(steps), float(first.replace("p", ".")), Shift(), frames)
    else:
        shift = {
            "linear": Shift("none", ()),
            "full": Shift("full", (("use_sine", float("sine" in name)),)),
            "flux": Shift("flux", (("alpha_min", 1.5),)),
            "logsnr": Shift("logsnr", ()),
        }[kind]
        made = times(8, 0.8 if kind == "logsnr" else 1.0, shift, frames)
    assert made.dtype == np.float32
    agree(made, stored("schedules")[name], 1e-6)


def test_published_times_agree_in_nearly_every_bit():
    """A last bit of a time moves the network's output in its third digit."""
    arrays = stored("schedules")
    pairs = [
        (times(int(name.split("_")[1][5:]), 1.0, Shift(), 1), arrays[name])
        for name in arrays.files
        if name.startswith("default_steps") and name.endswith("max1")
    ]
    assert sum(np.count_nonzero(made != exact) for made, exact in pairs) <= 3
    np.testing.assert_array_equal(times(8, 1.0, Shift(), 1), arrays["default_steps8_max1"])
    for row in arrays["default_batch"]:  # of two clips at once: their lengths do not count
        agree(times(8, 1.0, Shift(), 1), row, 1e-6)


def test_every_step_of_every_sampler(size):
    arrays, dit = stored(f"{size}_samplers"), model(size)._parts.dit(1.0)
    mask = stored(f"{size}_cond")["cross_mask"][:2].astype(bool)
    names = [name.removesuffix("_sigmas") for name in arrays.files if name.endswith("_sigmas")]
    assert len(names) >= 3
    for name in names:
        sigmas, noise = arrays[f"{name}_sigmas"], iter(arrays.get(f"{name}_noise", []))
        scale = float(name.split("cfg")[1][0]) if "cfg" in name else 1.0
        negative = None
        if "neg" in name:
            negative = Conditioning(mx.array(arrays["neg_cross"]), arrays["neg_mask"].astype(bool), None)
        predict = predictor(
            dit,
            Conditioning(mx.array(arrays["cross"]), mask, mx.array(arrays["global"])),
            Guidance(scale, projection=0.0 if "apg0" in name else 1.0),
            arrays["x0"].shape[2],
            local=silent(size),
            negative=negative,
        )
        task = Task(
            predict,
            mx.array(arrays["x0"]),
            lambda noise=noise: mx.array(next(noise)),
            len(sigmas) - 1,
            times=sigmas.tolist(),
            floor=SNR_FLOOR,
        )
        sampler = name.split("_")[0]
        for step in SAMPLERS[sampler].run(task):
            agree(step.before, arrays[f"{name}_x"][step.index], 5e-4)
            denoised = step.denoised
            if sampler == "rk4":  # its step says what it went towards in the end
                t = float(sigmas[step.index])
                denoised = step.before - t * predict(step.before, t).velocity
            agree(denoised, arrays[f"{name}_denoised"][step.index], 5e-4)
        agree(step.after, arrays[f"{name}_final"], 5e-4)
        assert next(noise, None) is None


# From a prompt to sound


SOURCE = {"init_audio": "source", "duration_padding": 1.0, "prompt": 1}
INPAINT = {**SOURCE, "seconds": 1.0, "inpaint": [(0.35, 0.7)]}
RUNS: dict[str, dict[str, Any]] = {
    "text": {},
    "text_flash": {"compat": None},
    "text_pad0": {"duration_padding": 0.0},
    "text_noisy": {"codec_noise": True},
    "empty": {"prompt": 2, "seconds": 0.7},
    "limit": {"prompt": 1, "limited": True},
    "batch": {"seconds": [1.3, 0.7], "duration_padding": 0.5},
    "batch_flash": {"seconds": [1.3, 0.7], "duration_padding": 0.5, "compat": None},
    "a2a_0p9": {**SOURCE, "init_noise_level": 0.9},
    "a2a_0p4": {**SOURCE, "init_noise_level": 0.4},
    "inpaint": INPAINT,
    "inpaint2": {**INPAINT, "inpaint": [(0.1, 0.3), (0.6, 0.85)]},
    "inpaint_init": {**INPAINT, "init_noise_level": 0.8},
    "continue": {"prompt_audio": "source", "seconds": 1.8, "duration_padding": 1.0},
    "runtime": {"compat": "runtime"},
    "runtime_inpaint": {**INPAINT, "compat": "runtime"},
    "euler_cfg7": {"duration_padding": 1.0, "guidance_scale": 7.0},
    "euler_cfg4_neg_apg0": {
        "prompt": 1,
        "seconds": 0.7,
        "duration_padding": 1.0,
        "guidance_scale": 4.0,
        "negative_prompt": NEGATIVE,
        "guidance_projection": 0.0,
    },
    "dpmpp_cfg3_neg": {
        "seconds": 0.7,
        "duration_padding": 1.0,
        "guidance_scale": 3.0,
        "negative_prompt": NEGATIVE,
        "sampler": "dpmpp",
    },
    "a2a_cfg3": {**SOURCE, "prompt": 0, "init_noise_level": 0.6, "guidance_scale": 3.0},
    "inpaint_cfg3": {**INPAINT, "prompt": 0, "guidance_scale": 3.0},
}
CASES = [(size, name) for size in PATHS for name in RUNS if f"{name}_latents" in stored(f"{size}_e2e").files]


@pytest.mark.parametrize(("size", "name"), CASES)
def test_whole_runs(size, name, monkeypatch):
    arrays, made = stored(f"{size}_e2e"), model(size)
    options = {"seconds": 1.3, "compat": "upstream", **RUNS[name]}
    if options.pop("limited", False):
        small = replace(made.config, sample_size=14 * made.config.hop_length)
        monkeypatch.setattr(made, "config", small)
    for key in ("init_audio", "prompt_audio"):
        if key in options:
            options[key] = Audio(arrays["source"], made.config.sample_rate)
    first = options.pop("prompt", 0)
    latents = arrays[f"{name}_latents"]
    prompts = PROMPTS[first : first + len(latents)]
    draws = [arrays[key] for key in sorted_draws(arrays, name)]
    options["times"] = arrays[f"{name}_sigmas"]
    seconds = options.pop("seconds")
    each = seconds if isinstance(seconds, list) else [seconds]
    lengthy = {"durations": tuple(each)} if isinstance(seconds, list) else {"seconds": seconds}
    if options["compat"] is None:
        # What is after the end of each clip is not made here, so its noise is not drawn.
        plans = [lengths(made.config, [one], options.get("duration_padding", 6.0), None) for one in each]
        cut = [[draw[item : item + 1, :, : plan.frames] for draw in draws] for item, plan in enumerate(plans)]
        for item, (prompt, one) in enumerate(zip(prompts, each, strict=True)):
            found = made.generate_latents([prompt], seconds=one, noise=RecordedNoise(cut[item]), **options)
            agree(found, latents[item : item + 1, :, : plans[item].frames], 5e-4)
        noise = RecordedNoise([one for drawn in cut for one in drawn])
        clips = made.generate_batch(prompts, **lengthy, noise=noise, **options)
    else:
        found = made.generate_latents(prompts, **lengthy, noise=RecordedNoise(draws), **options)
        agree(found, latents, 5e-4)
        noise = RecordedNoise(draws)
        clips = made.generate_batch(prompts, **lengthy, noise=noise, **options)
        assert noise.left == 0
    if f"{name}_audio" in arrays:
        for clip, expected, one in zip(clips, arrays[f"{name}_audio"], each, strict=True):
            samples = int(one * made.config.sample_rate)
            agree(clip.samples, expected[:, :samples], 5e-4)


def sorted_draws(arrays: Any, name: str) -> list[str]:
    found = [key for key in arrays.files if key.startswith(f"{name}_draw")]
    return sorted(found, key=lambda key: int(key.rpartition("draw")[2]))


@pytest.mark.parametrize("size", ["small", "medium"])
def test_runs_with_times_of_our_own(size):
    arrays, made = stored(f"{size}_e2e"), model(size)
    draws = [arrays[key] for key in sorted_draws(arrays, "text")]
    steps = len(arrays["text_sigmas"]) - 1
    clip = made.generate(PROMPTS[0], seconds=1.3, steps=steps, compat="upstream", noise=RecordedNoise(draws))
    agree(clip.samples, arrays["text_audio"][0], 5e-3)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_the_source_and_the_mask_of_inpainting(size):
    arrays, made = stored(f"{size}_e2e"), model(size)
    source = Audio(arrays["source"], made.config.sample_rate)
    options = {"init_audio": source, "inpaint": [(0.35, 0.7)], "seconds": 1.0, "duration_padding": 1.0}
    settings = made.settings(compat="upstream", **options)
    plan = lengths(made.config, [1.0], 1.0, "upstream")
    agree(made._encoded(settings.known, 0.0, plan, settings), arrays["inpaint_source_latents"][0])
    np.testing.assert_array_equal(made._kept([1.0], plan, settings), arrays["inpaint_mask"][0, 0])


def test_rk4_moves_where_the_original_stands_still():
    """Its rk4 goes round the batch instead of the times, and gives the noise back."""
    arrays, made = stored("base_e2e"), model("base")
    draws = [arrays[key] for key in sorted_draws(arrays, "rk4_is_broken")]
    np.testing.assert_array_equal(arrays["rk4_is_broken_latents"], draws[0])
    found = made.generate_latents(
        [PROMPTS[0]],
        seconds=0.7,
        duration_padding=1.0,
        sampler="rk4",
        compat="upstream",
        guidance_scale=1.0,
        times=arrays["rk4_is_broken_sigmas"],
        noise=RecordedNoise(draws),
    )
    assert np.abs(found - draws[0]).max() > 0.1


def test_the_original_conditions_are_assembled_from_rows():
    arrays, parts = stored("small_cond"), model("small")._parts
    mask = stored("text")["attention_mask"].astype(bool)
    made = assemble(parts.embedders, (mx.array(stored("text")["last_hidden_state"]), mask), SECONDS)
    agree(made.tokens, arrays["cross"])


def test_the_layout_of_diffusers():
    """One model in both layouts, and what diffusers makes of it, whose norms have another epsilon."""
    folder = FIXTURES / "tiny-medium-diffusers"
    made, arrays = StableAudio3.load(folder, low_memory=False), stored("medium_dit")
    passes, dit = stored("diffusers"), made._parts.dit(1.0)
    cross, whole = mx.array(arrays["cross"][:1]), mx.array(arrays["global"][:1])
    latents = {"out_no_local": "x_T7", "out_inpaint_t0p6": "x_T16"}
    for name in passes.files:
        x = mx.array(arrays[latents.get(name, f"x_{name.split('_')[1]}")])
        local = mx.array(arrays["local"]) if "inpaint" in name else silent("medium")
        run = dit.condition(cross, whole, x.shape[2], local=None if "no_local" in name else local)
        agree(dit(x, 0.6, run), passes[name])
        agree(dit(x, 0.6, run), arrays[name])
    other = model("medium")
    seconds = np.array(other._parts.embedders.seconds([1.3]))
    agree(made._parts.embedders.seconds([1.3]), seconds, 0)
    latents = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    sounds = [list(each._parts.autoencoder().decode_blocks([latents])) for each in (made, other)]
    np.testing.assert_array_equal(*sounds)
    assert made.config.dit == other.config.dit
    clip = made.generate(PROMPTS[0], seconds=1.0, steps=2, seed=1)
    assert clip.samples.shape == (2, 960)
