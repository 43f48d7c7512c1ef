"""MusicGen in ONNX against transformers and audiocraft: logits, greedy codes, sound, in every variant."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from audiogen_core import patterns
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.musicgen.conditioning import Conditioner, Item, Rows
from audiogen_core.sampling import Sampling
from audiogen_onnx.musicgen.generate import MusicGen
from support.musicgen_onnx import FOLDER, model

GREEDY = Sampling(temperature=0)
PROMPTS = [
    "80s pop track with bassy drums and synth",
    "90s rock song with loud guitars and heavy drums",
]
ATTENDING = ("musicgen-mono", "musicgen-stereo")


@cache
def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


def prompt_of(ids: np.ndarray) -> str:
    """The text of the fixtures that these tokens stand for."""
    row = ids[ids != 0].tolist()
    entries = json.loads((FOLDER / "tokenizer" / "expected.json").read_text(encoding="utf-8"))["single"]
    return next(entry["text"] for entry in entries if entry["ids"] == row)


def single(name: str) -> str:
    return prompt_of(stored(name)["input_ids_single"][0])


def close(made: object, expected: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(np.array(made), expected, rtol=0, atol=atol)


def equal(made: Codes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(made.values, expected)


def rows(music: MusicGen, items: list[Item]) -> Rows:
    settings = music.settings(guidance_scale=1, style_guidance=None, compat="upstream")
    return Conditioner(music._parts, items, settings).rows()


def forced(music: MusicGen, tokens: np.ndarray, given: Rows, *, by_step: bool = False) -> np.ndarray:
    """Logits (rows, K, S, N) of given tokens, all at once or step by step."""
    tokens = tokens.astype(np.int32)
    run = music._parts.decoder.run(given, tokens.shape[2])
    if not by_step:
        return run(tokens)
    return np.concatenate(
        [run(tokens[:, :, step : step + 1]).copy() for step in range(tokens.shape[2])], axis=2
    )


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("name", ATTENDING)
def test_logits(name: str, by_step: bool) -> None:
    music, arrays = model(name), stored(name)
    items = [Item(prompt_of(ids)) for ids in arrays["input_ids"]]
    books = music.config.codebooks
    tokens = arrays["decoder_input_ids"].reshape(2, books, -1)
    logits = forced(music, tokens, rows(music, items), by_step=by_step)
    close(logits.reshape(2 * books, -1, logits.shape[-1]), arrays["logits"])


@pytest.mark.parametrize("name", ATTENDING)
def test_the_text(name: str) -> None:
    """What the graph gives is projected: so is what transformers gave."""
    from audiogen_core.musicgen.weights import pieces
    from audiogen_onnx.exporter.musicgen.source import Source
    from support.musicgen_onnx import files

    music, arrays, config = model(name), stored(name), model(name).config
    source = Source(files(name).table, pieces(config, "transformers"))
    weight = source.take("text.weight", config.width, config.text_width)
    expected = arrays["text_hidden"] @ weight.T + source.take("text.bias", config.width)
    for ids, mask, row in zip(arrays["input_ids"], arrays["attention_mask"], expected, strict=True):
        close(music._parts.text(ids[None].astype(np.int32), mask[None].astype(bool)), row)


def melody_rows(music: MusicGen, features: np.ndarray | None) -> Rows:
    """The rows of given chroma features and the fixture's two prompts, padded as transformers pads them."""
    made = rows(music, [Item(prompt_of(ids)) for ids in stored("musicgen-melody")["input_ids"]])
    if features is None:
        return made
    frames = music.config.melody_frames
    repeated = features[:, np.arange(frames) % features.shape[1]].astype(np.float32)
    heard = np.stack([music._parts.melody(each) for each in repeated])
    return Rows(2, prefix=np.concatenate([heard, made.prefix[:, frames:]], axis=1))


@pytest.mark.parametrize("by_step", [False, True])
def test_logits_with_a_melody(by_step: bool) -> None:
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    given = melody_rows(music, arrays["input_features"])
    close(given.prefix, arrays["encoder_hidden_states"])
    tokens = arrays["decoder_input_ids"].reshape(2, 4, -1)
    logits = forced(music, tokens, given, by_step=by_step)
    close(logits.reshape(8, tokens.shape[2], -1), arrays["logits"][:, -tokens.shape[2] :])


def test_logits_without_a_melody() -> None:
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    tokens = arrays["decoder_input_ids"].reshape(2, 4, -1)
    logits = forced(music, tokens, melody_rows(music, None))
    close(logits.reshape(8, tokens.shape[2], -1), arrays["logits_no_audio"][:, -tokens.shape[2] :])


def test_logits_of_audiocraft() -> None:
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    given = rows(music, [Item(prompt_of(ids)) for ids in arrays["batch_input_ids"]])
    close(given.text, arrays["batch_cond"])
    close(forced(music, arrays["tf_sequence"], given), arrays["tf_logits"])


@pytest.mark.parametrize("name", ATTENDING)
def test_greedy_codes(name: str) -> None:
    music, arrays, prompt = model(name), stored(name), single(name)
    options: dict[str, Any] = {"seconds": 17 / 50, "sampling": GREEDY}
    made = music.generate_codes(prompt, **options)
    equal(made, arrays["gen_single_codes"][0])
    close(music.decode(made).samples, arrays["gen_single_audio"][0])
    close(music.generate(prompt, **options).samples, arrays["gen_single_audio"][0])
    equal(music.generate_codes(prompt, guidance_scale=1, **options), arrays["gen_nocfg_codes"][0])
    equal(music.generate_codes(None, **options), arrays["gen_uncond_codes"][0])
    for one, expected in zip(
        music.generate_codes_batch(PROMPTS, **options), arrays["gen_batch_codes"], strict=True
    ):
        equal(one, expected)


@pytest.mark.parametrize("name", ATTENDING)
def test_a_clip_continued(name: str) -> None:
    music, arrays = model(name), stored(name)
    clip = Audio(arrays["prompt_audio"][0], 32_000)
    made = music.generate_codes(single(name), seconds=24 / 50, sampling=GREEDY, prompt_audio=clip)
    equal(made, arrays["gen_prompt_codes"][0])
    close(music.decode(made).samples, arrays["gen_prompt_audio"][0])


def check_guided_logits(music: MusicGen, items: list[Item], codes: np.ndarray, expected: np.ndarray) -> None:
    """The logits before guidance that the codes were drawn from: (rows * K, steps, N), rows as ours."""
    conditioner = Conditioner(music._parts, items, music.settings())
    laid = patterns.delay(codes.astype(np.int32), music.config.delays, music.config.special)
    tokens = np.pad(laid, ((0, 0), (1, 0)), constant_values=music.config.special)[None, :, :-1]
    logits = forced(music, np.tile(tokens, (len(conditioner.groups), 1, 1)), conditioner.rows())
    steps = expected.shape[1]
    close(logits.reshape(-1, *logits.shape[2:])[:, :steps], expected[:, : logits.shape[2]])


@pytest.mark.parametrize("name", [*ATTENDING, "musicgen-melody"])
def test_logits_of_both_sides_of_guidance(name: str) -> None:
    arrays = stored(name)
    codes = arrays["gen_single_codes"][0]
    check_guided_logits(model(name), [Item(single(name))], codes, arrays["gen_single_raw_logits"])


def test_a_melody_model_without_a_melody_and_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    music, arrays = model("musicgen-melody"), stored("musicgen-melody")
    options: dict[str, Any] = {"seconds": 17 / 50, "sampling": GREEDY}
    prompt = single("musicgen-melody")
    equal(music.generate_codes(prompt, **options), arrays["gen_single_codes"][0])
    equal(music.generate_codes(prompt, guidance_scale=1, **options), arrays["gen_nocfg_codes"][0])
    features = arrays["input_features"].astype(np.float32)
    clips = [Audio(np.full((1, 32_000), 0.1 * (i + 1), np.float32), 32_000) for i in range(2)]
    monkeypatch.setattr(
        "audiogen_core.musicgen.melody.chroma",
        lambda audio, config=None: features[round(float(audio.samples[0, 0]) * 10) - 1],
    )
    made = music.generate_codes_batch(PROMPTS, melody=clips, compat="upstream", **options)
    for one, expected in zip(made, arrays["gen_batch_codes"], strict=True):
        equal(one, expected)
    close(np.stack([music.decode(one).samples for one in made]), arrays["gen_batch_audio"])


def test_audiocraft() -> None:
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    options: dict[str, Any] = {"seconds": 12 / 50, "sampling": GREEDY}
    prompt = prompt_of(arrays["single_input_ids"][0])
    equal(music.generate_codes(prompt, **options), arrays["single_codes"][0])
    equal(music.generate_codes(None, **options), arrays["uncond_codes"][0])
    batch = [prompt_of(ids) for ids in arrays["batch_input_ids"]]
    made = music.generate_codes_batch(batch, compat="upstream", **options)
    for one, expected in zip(made, arrays["batch_codes"], strict=True):
        equal(one, expected)
    for one, expected in zip(
        music.generate_codes_batch([prompt, None], **options), arrays["batch_none_codes"], strict=True
    ):
        equal(one, expected)
    info = music.codec.info
    begun = Codes(arrays["prompt"][0], info.codebook_size, info.frame_rate, info.name)
    equal(music.generate_codes(prompt, prompt_codes=begun, **options), arrays["prompt_codes"][0])
    clip = Audio(arrays["cont_prompt_audio"][None], 32_000)
    continued = music.generate_codes(prompt, seconds=18 / 50, sampling=GREEDY, prompt_audio=clip)
    equal(continued, arrays["cont_codes"][0])


def test_audiocraft_windows() -> None:
    music, arrays = model("audiocraft-text"), stored("audiocraft-text")
    prompt = prompt_of(arrays["single_input_ids"][0])
    made = music.generate_codes(prompt, seconds=0.9, window_seconds=0.4, stride_seconds=0.24, sampling=GREEDY)
    equal(made, arrays["long_codes"][0])
    close(music.decode(made).samples, arrays["long_audio"][0])


# Style


def style_clip() -> Audio:
    return Audio(stored("audiocraft-style")["style_audio_int16"][None].astype(np.float32) / 32768, 32_000)


@pytest.mark.parametrize(
    ("eval_q", "name"), [(None, "style_embeds"), (1, "style_embeds_q1"), (6, "style_embeds_q6")]
)
def test_style_tokens(eval_q: int | None, name: str) -> None:
    arrays = stored("audiocraft-style")
    made = model("audiocraft-style")._parts.style(style_clip(), eval_q=eval_q)
    close(made[None], arrays[name])
    assert np.abs(made).max() > 0.1


def test_style_logits_and_codes() -> None:
    music, arrays = model("audiocraft-style"), stored("audiocraft-style")
    item = Item(PROMPTS[0], style=music._parts.style(style_clip()))
    given = rows(music, [item])
    close(given.prefix, arrays["fused_prefix"])
    close(forced(music, arrays["tf_sequence"], given), arrays["tf_logits"])
    raw = arrays["dual_raw_logits"].transpose(0, 2, 1, 3)
    check_guided_logits(music, [item], arrays["dual_codes"][0], raw.reshape(-1, *raw.shape[2:]))
    options: dict[str, Any] = {"seconds": 10 / 50, "sampling": GREEDY}
    equal(music.generate_codes(PROMPTS[0], style=style_clip(), **options), arrays["dual_codes"][0])
    plain = music.generate_codes(PROMPTS[0], style=style_clip(), style_guidance=None, **options)
    equal(plain, arrays["single_cfg_codes"][0])
    equal(music.generate_codes(PROMPTS[0], **options), arrays["text_only_codes"][0])
    equal(music.generate_codes(None, style=style_clip(), **options), arrays["style_only_codes"][0])
