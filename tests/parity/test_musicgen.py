"""MusicGen against transformers and audiocraft: logits, greedy codes, sound, in every variant and layout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from audiogen_core import patterns
from audiogen_core.audio import Audio
from audiogen_core.codecs import load_codec
from audiogen_core.codes import Codes
from audiogen_core.musicgen.conditioning import Conditioner, Item, Rows
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.stereo import StereoCodec
from audiogen_core.musicgen.windows import plan
from audiogen_core.sampling import Sampling
from audiogen_mlx import cpu
from audiogen_mlx.musicgen.generate import MusicGen
from audiogen_mlx.musicgen.sampling import filtered
from audiogen_mlx.ops import MlxOps

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"
GREEDY = Sampling(temperature=0)
TRANSFORMERS = ("musicgen-mono", "musicgen-stereo", "musicgen-melody")
PROMPTS = [
    "80s pop track with bassy drums and synth",
    "90s rock song with loud guitars and heavy drums",
]
RATE = 50  # frames per second of every model here


@pytest.fixture(autouse=True, params=["as small models", "as large models"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the steps of large models go through numpy; these are small."""
    if request.param == "as large models":
        monkeypatch.setattr(cpu, "WORTH_ROWS", 0)


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


@cache
def model(name: str) -> MusicGen:
    beside: dict[str, Any] = {"tokenizer": FOLDER / "tokenizer"}
    if name.startswith("audiocraft"):
        beside |= {"t5": FOLDER / "t5", "codec": FOLDER.parent / "encodec" / "32k"}
    return MusicGen.load(FOLDER / name, **beside)


def prompt_of(ids: np.ndarray) -> str:
    """The text of the fixtures that these tokens stand for."""
    row = ids[ids != 0].tolist()
    entries = json.loads((FOLDER / "tokenizer" / "expected.json").read_text(encoding="utf-8"))["single"]
    return next(entry["text"] for entry in entries if entry["ids"] == row)


def seconds(frames: int) -> float:
    return frames / RATE


def close(made: object, expected: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(np.array(made), expected, rtol=0, atol=atol)


def equal(made: Codes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(made.values, expected)


def rows(parts: Any, items: list[Item], **options: Any) -> Rows:
    settings = parts.settings(guidance_scale=1, style_guidance=None, compat="upstream", **options)
    return Conditioner(parts._parts, items, settings).rows()


def forced(music: MusicGen, tokens: np.ndarray, given: Rows, *, by_step: bool = False) -> np.ndarray:
    """Logits (rows, K, S, N) of given tokens, all at once or step by step."""
    network = music._parts.transformer
    tokens = mx.array(tokens.astype(np.int32))
    run = network.run(given, tokens.shape[2])
    if not by_step:
        return np.array(network(tokens, run))
    steps = [network(tokens[:, :, step : step + 1], run) for step in range(tokens.shape[2])]
    return np.array(mx.concatenate(steps, axis=2))


# The network


def test_positions():
    close(positions(40, 48), stored("musicgen-mono")["sin_positions"], 1e-5)


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_logits(name: str, by_step: bool):
    music, arrays = model(name), stored(name)
    items = [Item(prompt_of(ids)) for ids in arrays["input_ids"]]
    books = music.config.codebooks
    tokens = arrays["decoder_input_ids"].reshape(2, books, -1)
    logits = forced(music, tokens, rows(music, items), by_step=by_step)
    close(logits.reshape(2 * books, -1, logits.shape[-1]), arrays["logits"])


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_text(name: str):
    music, arrays = model(name), stored(name)
    ids, mask = mx.array(arrays["input_ids"]), mx.array(arrays["attention_mask"])
    close(music._parts.t5(ids, mask), arrays["text_hidden"])


def melody_rows(music: MusicGen, features: np.ndarray | None) -> Rows:
    """The rows of given chroma features and the fixture's two prompts, padded as transformers pads them."""
    arrays = stored("musicgen-melody")
    items = [Item(prompt_of(ids)) for ids in arrays["input_ids"]]
    made = rows(music, items)
    if features is None:
        return made
    repeated = features[:, np.arange(music.config.melody_frames) % features.shape[1]]
    heard = music._parts.transformer.project_melody(mx.array(repeated))
    text = made.prefix[:, music.config.melody_frames :]
    return Rows(2, prefix=np.concatenate([heard, text], axis=1))


@pytest.mark.parametrize("by_step", [False, True])
def test_logits_with_a_melody(by_step: bool):
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    given = melody_rows(music, arrays["input_features"])
    close(given.prefix, arrays["encoder_hidden_states"])
    tokens = arrays["decoder_input_ids"].reshape(2, 4, -1)
    logits = forced(music, tokens, given, by_step=by_step)
    steps = tokens.shape[2]
    close(logits.reshape(8, steps, -1), arrays["logits"][:, -steps:])


def test_logits_without_a_melody():
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    tokens = arrays["decoder_input_ids"].reshape(2, 4, -1)
    logits = forced(music, tokens, melody_rows(music, None))
    close(logits.reshape(8, tokens.shape[2], -1), arrays["logits_no_audio"][:, -tokens.shape[2] :])


def test_logits_of_audiocraft():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    items = [Item(prompt_of(ids)) for ids in arrays["batch_input_ids"]]
    given = rows(music, items)
    close(given.text, arrays["batch_cond"])
    close(forced(music, arrays["tf_sequence"], given), arrays["tf_logits"])


def test_logits_are_those_that_audiocraft_calls_predictions():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    items = [Item(prompt_of(ids)) for ids in arrays["batch_input_ids"]]
    mask = arrays["predictions_mask"]
    codes = arrays["tf_sequence"].astype(np.int32)
    frames = codes.shape[2]
    laid = np.stack([patterns.template(frames, music.config.delays, 64, prompt=one) for one in codes])
    tokens = np.pad(laid, ((0, 0), (0, 0), (1, 0)), constant_values=64)
    logits = forced(music, tokens[:, :, :-1], rows(music, items))
    late = music.config.delays
    undone = np.stack([logits[:, k, d : d + frames] for k, d in enumerate(late)], axis=1)
    close(undone[mask], arrays["predictions_logits"][mask])
    steps = np.arange(frames) + np.array(late)[:, None]  # audiocraft leaves out what follows the last frame
    np.testing.assert_array_equal(mask, np.broadcast_to(steps < frames, mask.shape))


# Greedy codes and sound: transformers


def single(name: str) -> str:
    return prompt_of(stored(name)["input_ids_single"][0])


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_one_prompt(name: str):
    music, arrays = model(name), stored(name)
    made = music.generate_codes(single(name), seconds=seconds(17), sampling=GREEDY)
    equal(made, arrays["gen_single_codes"][0])
    close(music.decode(made).samples, arrays["gen_single_audio"][0])
    heard = music.generate(single(name), seconds=seconds(17), sampling=GREEDY)
    close(heard.samples, arrays["gen_single_audio"][0])


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_a_batch(name: str):
    music, arrays = model(name), stored(name)
    made = music.generate_codes_batch(PROMPTS, seconds=seconds(17), sampling=GREEDY)
    for one, expected in zip(made, arrays["gen_batch_codes"], strict=True):
        equal(one, expected)


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_without_guidance_and_without_a_prompt(name: str):
    music, arrays = model(name), stored(name)
    options = {"seconds": seconds(17), "sampling": GREEDY}
    equal(music.generate_codes(single(name), guidance_scale=1, **options), arrays["gen_nocfg_codes"][0])
    equal(music.generate_codes(None, **options), arrays["gen_uncond_codes"][0])


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_a_clip_continued(name: str):
    music, arrays = model(name), stored(name)
    clip = Audio(arrays["prompt_audio"][0], 32_000)
    made = music.generate_codes(single(name), seconds=seconds(24), sampling=GREEDY, prompt_audio=clip)
    equal(made, arrays["gen_prompt_codes"][0])
    close(music.decode(made).samples, arrays["gen_prompt_audio"][0])


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo"])
def test_logits_of_both_sides_of_guidance(name: str):
    music, arrays = model(name), stored(name)
    codes = arrays["gen_single_codes"][0].astype(np.int32)
    check_guided_logits(music, [Item(single(name))], codes, arrays["gen_single_raw_logits"])


def check_guided_logits(music: MusicGen, items: list[Item], codes: np.ndarray, expected: np.ndarray) -> None:
    """The logits before guidance that the codes were drawn from: (rows * K, steps, N), rows as ours."""
    conditioner = Conditioner(music._parts, items, music.settings())
    laid = patterns.delay(codes, music.config.delays, music.config.special)
    tokens = np.pad(laid, ((0, 0), (1, 0)), constant_values=music.config.special)[None, :, :-1]
    groups = len(conditioner.groups)
    logits = forced(music, np.tile(tokens, (groups, 1, 1)), conditioner.rows())
    steps = expected.shape[1]
    close(logits.reshape(-1, logits.shape[2], logits.shape[3])[:, :steps], expected[:, : logits.shape[2]])


@pytest.fixture
def given_melodies(monkeypatch: pytest.MonkeyPatch):
    """Clips that stand for the chroma features transformers was given."""
    features = stored("musicgen-melody")["input_features"]
    clips = [Audio(np.full((1, 32_000), 0.1 * (i + 1), np.float32), 32_000) for i in range(2)]
    monkeypatch.setattr(
        "audiogen_core.musicgen.melody.chroma",
        lambda audio, config=None: features[round(float(audio.samples[0, 0]) * 10) - 1],
    )
    return clips


def test_a_melody_model_without_a_melody():
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    options = {"seconds": seconds(17), "sampling": GREEDY}
    prompt = single("musicgen-melody")
    made = music.generate_codes(prompt, **options)
    equal(made, arrays["gen_single_codes"][0])
    close(music.decode(made).samples, arrays["gen_single_audio"][0])
    made = music.generate_codes(prompt, guidance_scale=1, **options)
    equal(made, arrays["gen_nocfg_codes"][0])
    codes = arrays["gen_single_codes"][0].astype(np.int32)
    check_guided_logits(music, [Item(prompt)], codes, arrays["gen_single_raw_logits"])


def test_a_batch_of_melodies(given_melodies: list[Audio]):
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    made = music.generate_codes_batch(
        PROMPTS, melody=given_melodies, seconds=seconds(17), sampling=GREEDY, compat="upstream"
    )
    for one, expected in zip(made, arrays["gen_batch_codes"], strict=True):
        equal(one, expected)

    heard = [music.decode(one).samples for one in made]
    close(np.stack(heard), arrays["gen_batch_audio"])


# Greedy codes and sound: audiocraft


def test_audiocraft_prompts():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    options = {"seconds": seconds(12), "sampling": GREEDY}
    prompt = prompt_of(arrays["single_input_ids"][0])
    equal(music.generate_codes(prompt, **options), arrays["single_codes"][0])
    equal(music.generate_codes(prompt, **options), arrays["two_step_codes"][0])
    equal(music.generate_codes(None, **options), arrays["uncond_codes"][0])
    batch = [prompt_of(ids) for ids in arrays["batch_input_ids"]]
    made = music.generate_codes_batch(batch, compat="upstream", **options)
    for one, expected in zip(made, arrays["batch_codes"], strict=True):
        equal(one, expected)
    for one, expected in zip(
        music.generate_codes_batch([prompt, None], **options), arrays["batch_none_codes"], strict=True
    ):
        equal(one, expected)


def test_audiocraft_guided_logits():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    prompt = prompt_of(arrays["single_input_ids"][0])
    raw = arrays["single_raw_logits"].transpose(0, 2, 1, 3)  # (rows, K, steps, N)
    codes = arrays["single_codes"][0].astype(np.int32)
    check_guided_logits(music, [Item(prompt)], codes, raw.reshape(-1, *raw.shape[2:]))


def test_audiocraft_codes_continued():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    info = music.codec.info
    begun = Codes(arrays["prompt"][0], info.codebook_size, info.frame_rate, info.name)
    prompt = prompt_of(arrays["single_input_ids"][0])
    made = music.generate_codes(prompt, seconds=seconds(12), sampling=GREEDY, prompt_codes=begun)
    equal(made, arrays["prompt_codes"][0])
    np.testing.assert_array_equal(made.values[:, 5:], arrays["prompt_codes_removed"][0])


def test_audiocraft_sound_continued():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    clip = Audio(arrays["cont_prompt_audio"][None], 32_000)
    prompt = prompt_of(arrays["single_input_ids"][0])
    made = music.generate_codes(prompt, seconds=seconds(18), sampling=GREEDY, prompt_audio=clip)
    equal(made, arrays["cont_codes"][0])
    close(music.decode(made).samples, arrays["cont_audio"][0])


def test_audiocraft_windows():
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    windows = plan(45, 0, 20, 12)
    assert [[one.prompt, one.frames, one.frames] for one in windows] == arrays["long_windows"].tolist()
    prompt = prompt_of(arrays["single_input_ids"][0])
    made = music.generate_codes(prompt, seconds=0.9, window_seconds=0.4, stride_seconds=0.24, sampling=GREEDY)
    equal(made, arrays["long_codes"][0])
    close(music.decode(made).samples, arrays["long_audio"][0])


def test_stereo_codec():
    arrays = stored("audiocraft-text")
    codec = StereoCodec(load_codec(FOLDER.parent / "encodec" / "32k", MlxOps()))
    codes = codec.encode(Audio(arrays["stereo_in"][0], 32_000))
    equal(codes, arrays["stereo_codes"][0])
    close(codec.decode(codes).samples, arrays["stereo_decoded"][0])


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_delay_patterns(kind: str):
    arrays = stored("audiocraft-text")
    sequence, mask = arrays[f"pattern_{kind}_seq"][0], arrays[f"pattern_{kind}_mask"]
    books, steps = sequence.shape
    delays = [k // (2 if kind == "stereo" else 1) for k in range(books)]
    frames = steps - 1 - max(delays)
    numbered = np.arange(books * frames, dtype=np.int32).reshape(books, frames)
    laid = np.pad(patterns.delay(numbered, delays, -1), ((0, 0), (1, 0)), constant_values=-1)
    np.testing.assert_array_equal(laid, sequence)
    np.testing.assert_array_equal(laid >= 0, mask)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_delay_masks_of_transformers(name: str):
    music, arrays = model(name), stored(name)
    special = music.config.special
    for begun in (arrays["delay_mask_len15"][:, :0], arrays["delay_prompt_in"][:, 1:]):
        frames = 15 - 1 - max(music.config.delays)
        laid = patterns.template(frames, music.config.delays, special, prompt=begun.astype(np.int32))
        laid = np.pad(laid, ((0, 0), (1, 0)), constant_values=special)
        expected = arrays["delay_prompt_mask_len15" if begun.shape[1] else "delay_mask_len15"]
        np.testing.assert_array_equal(laid, expected)


@pytest.mark.parametrize(
    ("name", "options"), [("topk5", {"top_k": 5}), ("topp0.8", {"top_k": 0, "top_p": 0.8})]
)
def test_filters(name: str, options: dict[str, Any]):
    arrays = stored("audiocraft-text")
    kept = np.array(filtered(mx.array(arrays["filter_logits"]), Sampling(**options)))
    close(kept / kept.sum(axis=-1, keepdims=True), arrays[f"filter_{name}_probs"], 1e-6)


# Style


@cache
def style_clip() -> Audio:
    return Audio(stored("audiocraft-style")["style_audio_int16"][None].astype(np.float32) / 32768, 32_000)


@pytest.mark.parametrize(
    ("name", "prompt", "styled", "weight"),
    [
        ("dual", PROMPTS[0], True, 5.0),
        ("single_cfg", PROMPTS[0], True, None),
        ("text_only", PROMPTS[0], False, 5.0),
        ("style_only", None, True, 5.0),
    ],
)
def test_styles(name: str, prompt: str | None, styled: bool, weight: float | None):
    music, arrays = model("audiocraft-style"), stored("audiocraft-style")
    clip = style_clip() if styled else None
    made = music.generate_codes(
        prompt, seconds=seconds(10), sampling=GREEDY, style=clip, style_guidance=weight
    )
    equal(made, arrays[f"{name}_codes"][0])


def test_style_prefix_and_logits():
    music, arrays = model("audiocraft-style"), stored("audiocraft-style")
    item = Item(PROMPTS[0], style=music._parts.style(style_clip()))
    given = rows(music, [item])
    close(given.prefix, arrays["fused_prefix"])
    close(given.prefix[:, 15:], arrays["description_cond"])
    close(forced(music, arrays["tf_sequence"], given), arrays["tf_logits"])
    raw = arrays["dual_raw_logits"].transpose(0, 2, 1, 3)
    codes = arrays["dual_codes"][0].astype(np.int32)
    check_guided_logits(music, [item], codes, raw.reshape(-1, *raw.shape[2:]))
