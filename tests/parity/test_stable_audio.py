"""Stable Audio against outputs of stable-audio-tools and diffusers: network, samplers, conditioning."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from audiogen_core.audio import Audio
from audiogen_core.noise import RecordedNoise
from audiogen_mlx.stable_audio import inpaint, read_config, schedules, weights
from audiogen_mlx.stable_audio.conditioning import Conditioning, assemble, load_numbers
from audiogen_mlx.stable_audio.config import Config
from audiogen_mlx.stable_audio.diffusion import SAMPLERS, Task
from audiogen_mlx.stable_audio.generate import StableAudio
from audiogen_mlx.stable_audio.guidance import Guidance, predictor
from audiogen_mlx.stable_audio.model import DiT

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
FOLDERS = {
    "small": "tiny-small",
    "v10": "tiny-1.0",
    "diffusers": "tiny-1.0-diffusers",
    "inpaint": "tiny-inpaint",
}
LAYOUTS = ["small", "v10", "diffusers"]


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def arrays(layout: str, part: str) -> dict[str, np.ndarray]:
    return stored(f"{'v10' if layout == 'diffusers' else layout}_{part}")


@cache
def parts(layout: str) -> tuple[Config, weights.Tables]:
    folder = FIXTURES / FOLDERS[layout]
    if layout == "diffusers":
        return read_config.read_diffusers(folder), weights.read_diffusers(folder)
    return (
        read_config.read_stable_audio_tools(folder / "model_config.json"),
        weights.read_stable_audio_tools(folder / "model.safetensors"),
    )


@cache
def network(layout: str) -> DiT:
    config, tables = parts(layout)
    return weights.load_dit(config.dit, tables.dit)


def steering(layout: str, prefix: str = "") -> Conditioning:
    found = arrays(layout, "cond")
    return Conditioning(
        mx.array(found[f"{prefix}cross_attn_cond"]),
        found[f"{prefix}cross_attn_mask"].astype(bool),
        mx.array(found["global_cond"]),
    )


def predict(layout: str, guidance: Guidance, frames: int, negative: bool = False):
    return predictor(
        network(layout),
        steering(layout),
        guidance,
        frames,
        flow=parts(layout)[0].flow,
        negative=steering(layout, "negative_") if negative else None,
    )


def close(ours, theirs: np.ndarray, tolerance: float) -> None:
    ours = np.array(ours)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_pass_at_every_time(layout: str) -> None:
    found = arrays(layout, "dit")
    model, given = network(layout), steering(layout)
    x = mx.array(found["x"])
    run = model.condition(given.tokens, given.global_, x.shape[-1])
    for index, t in enumerate(found["t_values"]):
        close(model(x, float(t), run), found[f"out_cfg1_{index}"], 1e-4)
    close(model(x, mx.array(found["t_batch"]), run), found["out_tbatch"], 1e-4)
    short = mx.array(found["x_len5"])
    close(model(short, 0.6, model.condition(given.tokens, given.global_, 5)), found["out_len5"], 1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embeddings_within_the_network(layout: str) -> None:
    found, model, given = arrays(layout, "dit"), network(layout), steering(layout)
    features = model.time_features(mx.array(found["t_values"]))
    close(features, found["timestep_features"], 1e-5)
    close(model.time_embed(features), found["timestep_embed"], 1e-5)
    close(model.cond_embed(given.tokens), found["cond_embed"], 1e-5)
    close(model.global_embed(given.global_), found["global_embed"], 1e-5)
    cosine, sine = model.condition(None, given.global_, found["x"].shape[-1]).rotary
    angles = found["rotary_freqs"][:, : cosine.shape[-1]]
    close(cosine, np.cos(angles), 1e-5)
    close(sine, np.sin(angles), 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_state_after_the_first_block(layout: str) -> None:
    found, model, given = arrays(layout, "dit"), network(layout), steering(layout)
    run = model.condition(given.tokens, given.global_, found["x"].shape[-1])
    x = mx.array(found["x"]).transpose(0, 2, 1)
    x = model.project_in(x + model.preprocess(x))
    token = model.global_token(0.75, run)
    x = mx.concatenate([mx.broadcast_to(token, (2, token.shape[-1]))[:, None], x], axis=1)
    close(
        model.layers[0](x, run.rotary, (run.keys[0], run.values[0], None), None), found["hidden_layer0"], 1e-4
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "rescale", "interval", "negative"),
    [
        ("cfg", 0.0, (0.0, 1.0), False),
        ("cfg_neg", 0.0, (0.0, 1.0), True),
        ("cfg_phi075", 0.75, (0.0, 1.0), False),
        ("cfgint", 0.0, (0.4, 1.0), False),
    ],
)
def test_guidance(
    layout: str, name: str, rescale: float, interval: tuple[float, float], negative: bool
) -> None:
    found = arrays(layout, "dit")
    guidance = Guidance(float(found["cfg_scale"]), rescale, interval)
    x = mx.array(found["x"])
    call = predict(layout, guidance, x.shape[-1], negative)
    for index in (1, 3):
        close(call(x, float(found["t_values"][index])).velocity, found[f"out_{name}_{index}"], 1e-4)


VARIANTS = ["adaptive", "memory_patch", "scaled", "adaptive_scaled_memory", "no_tokens", "positions"]


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_of_the_family_that_were_never_published(tmp_path: Path, name: str) -> None:
    found = {
        key.removeprefix(f"{name}/"): array
        for key, array in stored("variants").items()
        if key.startswith(f"{name}/")
    }
    dit = read_config.read_network(json.loads(str(found["config"])), name)
    table = {
        f"model.model.{key.removeprefix('weights/')}": array
        for key, array in found.items()
        if key.startswith("weights/")
    }
    path = tmp_path / "model.safetensors"
    save_file(table, path)
    model = weights.load_dit(dit, weights.read_stable_audio_tools(path).dit)
    tokens = mx.array(found["tokens"]) if "tokens" in found else None
    run = model.condition(tokens, mx.array(found["global"]), found["x"].shape[-1])
    ours = model(mx.array(found["x"]), mx.array(found["t"]), run)
    close(ours, found["out"], 1e-5 * np.abs(found["out"]).max())


def test_diffusers_own_outputs() -> None:
    found, model, given = stored("diffusers"), network("diffusers"), steering("diffusers")
    x = mx.array(arrays("v10", "dit")["x"])
    run = model.condition(given.tokens, given.global_, x.shape[-1])
    for index, t in enumerate(arrays("v10", "dit")["t_values"]):
        close(model(x, float(t), run), found[f"dit_out_{index}"], 1e-4)


FLOW = {
    "pingpong": ("pingpong", 4, {"scale": 1.0}),
    "euler": ("euler", 5, {}),
    "euler_neg": ("euler", 5, {"negative": True}),
    "rk4": ("rk4", 3, {}),
    "rk4_shift": ("rk4", 3, {"shift": schedules.DistributionShift(0.5, 1.15, 4096, 8)}),
    "dpmpp": ("dpmpp", 4, {}),
    "pingpong_init": ("pingpong", 4, {"scale": 1.0, "sigma_max": 0.6}),
    "euler_init": ("euler", 5, {"sigma_max": 0.35}),
}
V = {
    "dpmpp_3m_sde": ("dpmpp-3m-sde", 6, {"sigma_max": 500.0}),
    "dpmpp_2m_sde": ("dpmpp-2m-sde", 6, {"sigma_max": 500.0}),
    "dpmpp_2m": ("dpmpp-2m", 6, {"sigma_max": 500.0}),
    "k_heun": ("k-heun", 4, {"sigma_max": 500.0}),
    "dpmpp_3m_sde_neg": ("dpmpp-3m-sde", 6, {"sigma_max": 500.0, "sigma_min": 0.03, "negative": True}),
    "dpmpp_3m_sde_init": ("dpmpp-3m-sde", 6, {"sigma_max": 8.0}),
    "v_ddim": ("v-ddim", 5, {}),
    "v_ddim_init": ("v-ddim", 5, {"sigma_max": 0.5}),
    "v_ddim_cfgpp": ("v-ddim-cfgpp", 5, {}),
}
CASES = [
    *(("small", name, *case) for name, case in FLOW.items()),
    *((layout, name, *case) for layout in ("v10", "diffusers") for name, case in V.items()),
]
AFTER = ("euler", "rk4", "v-ddim", "v-ddim-cfgpp")  # upstream's callback shows latents after the step


@pytest.mark.parametrize(("layout", "name", "sampler", "steps", "options"), CASES)
def test_samplers(layout: str, name: str, sampler: str, steps: int, options: dict) -> None:
    found = arrays(layout, "samplers")
    scale = options.get("scale", float(found["cfg_scale"]))
    call = predict(layout, Guidance(scale), found["noise"].shape[-1], options.get("negative", False))
    recorded = RecordedNoise(found.get(f"{name}_noise", ()))
    task = Task(
        call,
        mx.array(found["noise"]),
        lambda: mx.array(recorded.normal(found["noise"].shape)),
        steps,
        sigma_max=options.get("sigma_max", 1.0),
        sigma_min=options.get("sigma_min", 0.3),
        init=mx.array(found["init"]) if name.endswith("_init") else None,
        shift=options.get("shift"),
    )
    taken = list(SAMPLERS[sampler].run(task))
    tolerance = 1e-3 if SAMPLERS[sampler].shares else 2e-3
    assert recorded.left == 0
    close([step.level for step in taken], found[f"{name}_sigma"], 1e-3)
    for step, x, denoised in zip(taken, found[f"{name}_x"], found[f"{name}_denoised"], strict=True):
        ends = sampler in AFTER and not (sampler.startswith("v-ddim") and step.index == steps - 1)
        close(step.after if ends else step.before, x, tolerance)
        close(step.denoised, denoised, tolerance)
    close(taken[-1].after, found[f"{name}_out"], tolerance)


def test_every_schedule() -> None:
    seen = 0
    for name, theirs in stored("schedules").items():
        kind, *numbers = name.removesuffix("_t").split("_")
        if kind == "rf":
            steps, _, level = numbers[1].partition("_")
            level = numbers[2].removeprefix("smax") if len(numbers) > 2 else "1"
            ours = schedules.rectified_flow(int(steps), float(level))
        elif kind == "poly":
            ours = schedules.polyexponential(int(numbers[0]), *map(float, numbers[1:]))
            if name.endswith("_t"):
                ours = np.array([schedules.sigma_to_time(sigma) for sigma in ours])
        elif kind == "shift" and numbers[0] != "in":
            shift = schedules.DistributionShift(use_sine=numbers[0] == "sine")
            ours = shift(stored("schedules")["shift_in"].astype(np.float64), int(numbers[1]))
        else:
            continue
        seen += 1
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-7, err_msg=name)
    assert seen == 32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_seconds(layout: str) -> None:
    config, tables = parts(layout)
    found = arrays(layout, "cond")
    embedders = load_numbers(config, tables.embedders)
    for name, embedder in embedders.items():
        close(embedder(found["number_values"])[:, None], found[f"{name}_embed"], 1e-5)


@pytest.mark.parametrize("prefix", ["", "negative_"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conditioning_in_order(layout: str, prefix: str) -> None:
    config, tables = parts(layout)
    found = arrays(layout, "cond")
    rows = [3, 3] if prefix else [0, 1]
    text = mx.array(found["prompt_embed_fp32"][rows]), found["prompt_mask"][rows]
    seconds = {
        name: found[f"batch_{name}"].tolist()
        for name in ("seconds_start", "seconds_total")
        if f"batch_{name}" in found
    }
    made = assemble(config, text, load_numbers(config, tables.embedders), seconds)
    close(made.tokens, found[f"{prefix}cross_attn_cond"], 1e-5)
    close(made.global_, found["global_cond"], 1e-5)
    assert np.array_equal(made.mask, found[f"{prefix}cross_attn_mask"].astype(bool))


# From a prompt to latents and sound; the stored runs say 5 seconds in windows of half a second


@cache
def model(layout: str) -> StableAudio:
    return StableAudio.load(FIXTURES / FOLDERS[layout])


def prompt(index: int = 0) -> str:
    return str(stored("small_cond")["prompts"][index])


def whole(layout: str) -> dict[str, float]:
    """Options for a clip of the whole window that is told of 5 seconds."""
    return {"seconds": model(layout).config.window_seconds, "seconds_total": 5.0}


def recorded(layout: str, name: str) -> RecordedNoise:
    found = arrays(layout, "e2e")
    order = [found[f"{name}_noise0"]]
    if f"{name}_vae_noise" in found:
        order.append(found[f"{name}_vae_noise"])
    return RecordedNoise([*order, *found[f"{name}_noises"]])


@pytest.mark.parametrize(("layout", "steps"), [("small", 4), ("v10", 6), ("diffusers", 6)])
def test_text_to_audio(layout: str, steps: int) -> None:
    noise = recorded(layout, "t2a")
    clip = model(layout).generate(prompt(), **whole(layout), steps=steps, noise=noise)
    close(clip.samples[None], arrays(layout, "e2e")["t2a_out"], 1e-3)
    assert noise.left == 0


@pytest.mark.parametrize("layout", ["v10", "diffusers"])
def test_text_to_latents_with_a_negative_prompt(layout: str) -> None:
    latents = model(layout).generate_latents(
        prompt(),
        seconds=5.0,
        negative_prompt="low quality, noise",
        steps=6,
        noise=recorded(layout, "t2a_neg_lat"),
    )
    close(latents.values[None], arrays(layout, "e2e")["t2a_neg_lat_out"], 2e-3)


@pytest.mark.parametrize(
    ("layout", "steps", "level"), [("small", 4, 0.7), ("v10", 6, 5.0), ("diffusers", 6, 5.0)]
)
def test_audio_to_audio(layout: str, steps: int, level: float) -> None:
    clip = Audio(arrays(layout, "vae")["audio"][0], 44100)
    latents = model(layout).generate_latents(
        prompt(),
        seconds=5.0,
        steps=steps,
        init_audio=clip,
        init_noise_level=level,
        noise=recorded(layout, "a2a_lat"),
    )
    close(latents.values[None], arrays(layout, "e2e")["a2a_lat_out"], 2e-3)


def test_two_prompts_in_one_run() -> None:
    config = model("small").config
    conditions = stored("small_cond")
    assert conditions["batch_seconds_total"].tolist() == [5.0, 9.5]
    found = arrays("small", "e2e")
    noise = recorded("small", "t2a_b2_lat")
    parts_of_model = model("small")._parts
    given = parts_of_model.condition(
        [prompt(0), prompt(1)], {"seconds_start": [0.0, 0.0], "seconds_total": [5.0, 9.5]}
    )[0]
    call = predictor(parts_of_model.dit(), given, Guidance(), config.frames, flow=True)
    first = mx.array(noise.normal(found["t2a_b2_lat_noise0"].shape))
    task = Task(call, first, lambda: mx.array(noise.normal(first.shape)), 4)
    close(list(SAMPLERS["pingpong"].run(task))[-1].after, found["t2a_b2_lat_out"], 1e-3)


@pytest.mark.parametrize("layout", ["v10", "diffusers"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t2a", {}),
        ("t2a_neg", {"negative_prompt": "low quality, noise"}),
        ("t2a_nocfg", {"guidance_scale": 1.0}),
    ],
)
def test_the_pipeline_of_diffusers(layout: str, name: str, options: dict) -> None:
    found = stored("diffusers")
    noise = RecordedNoise([found["latents0"], *found[f"{name}_noises"]])
    clip = model(layout).generate(
        prompt(), seconds=0.12, steps=6, sampler="cosine-dpm", noise=noise, **options
    )
    close(clip.samples[None], found[f"{name}_audio"], 1e-3)
    assert noise.left == 0


def inpaint_options() -> dict:
    found = stored("inpaint")
    return {"seconds": 5.0, "init_audio": Audio(found["audio"], 44100), "inpaint": found["mask"][0] == 0}


def test_inpainting_checkpoint_with_euler() -> None:
    found = stored("inpaint")
    noise = RecordedNoise([found["noise0"], found["euler_vae_noise"]])
    latents = model("inpaint").generate_latents(
        prompt(), steps=5, sampler="euler", guidance_scale=4.0, noise=noise, **inpaint_options()
    )
    close(latents.values[None], found["euler_out"], 1e-3)


def test_inpainting_checkpoint_with_pingpong_and_times_for_a_mask() -> None:
    found = stored("inpaint")
    noise = RecordedNoise([found["noise0"], found["pingpong_vae_noise"], *found["pingpong_noises"]])
    options = inpaint_options() | {"inpaint": (307 / 44100, 634 / 44100)}
    latents = model("inpaint").generate_latents(
        prompt(), steps=4, sampler="pingpong", guidance_scale=1.0, noise=noise, **options
    )
    close(latents.values[None], found["pingpong_out"], 1e-3)


def test_inpainting_checkpoint_with_nothing_to_keep() -> None:
    found = stored("inpaint")
    latents = model("inpaint").generate_latents(
        prompt(),
        seconds=5.0,
        steps=5,
        sampler="euler",
        guidance_scale=1.0,
        noise=RecordedNoise([found["noise0"]]),
    )
    close(latents.values[None], found["nomask_out"], 1e-3)


def test_what_an_inpainting_checkpoint_sees() -> None:
    found = stored("inpaint")
    config = model("inpaint").config
    mask = inpaint.latent_mask(inpaint.sample_mask(found["mask"][0] == 0, config), config.frames)
    autoencoder = model("inpaint")._parts.autoencoder()
    clip = Audio(found["audio"], 44100)
    for name in ("euler", "pingpong"):
        latents = autoencoder.encode(clip, RecordedNoise([found[f"{name}_vae_noise"]])).values
        seen = inpaint.beside(config, mx.array(latents[None]), mask)
        close(seen, found[f"{name}_input_concat"], 1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_through_t5(layout: str) -> None:
    found = arrays(layout, "cond")
    embedder = model(layout)._parts.text()
    tokens, mask = embedder([str(text) for text in found["prompts"]])
    close(tokens, found["prompt_embed_fp32"], 1e-5)
    close(tokens, found["prompt_embed_fp16_upstream"], 2e-2)
    assert np.array_equal(mask, found["prompt_mask"])
