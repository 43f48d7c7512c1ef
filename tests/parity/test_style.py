"""Style conditioning against audiocraft's, stage by stage, with a small HuBERT in MERT's place."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from audiogen_core import weights
from audiogen_core.audio import Audio
from audiogen_core.musicgen import conditioning
from audiogen_core.musicgen.config import StyleConfig
from audiogen_core.musicgen.mert import MertConfig
from audiogen_core.musicgen.style import excerpt
from audiogen_core.sinc import resample
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.musicgen.style import StyleConditioner, load_style

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen" / "audiocraft-style"


@cache
def stored() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "io.npz") as file:
        return {key: file[key] for key in file.files}


@cache
def clip() -> Audio:
    return Audio(stored()["style_audio_int16"][None].astype(np.float32) / 32768, 32_000)


@cache
def conditioner() -> StyleConditioner:
    settings = yaml.safe_load(weights.read_checkpoint(FOLDER / "state_dict.bin")["xp.cfg"])
    table = weights.read(FOLDER / "state_dict.bin")
    return StyleConditioner(
        load_style(table, StyleConfig.from_audiocraft(settings)), lambda: Mert.load(FOLDER / "mert")
    )


@cache
def heard() -> mx.array:
    samples = resample(excerpt(clip(), 32_000, 3.0), 32_000, 24_000, hold_ends=True)
    return conditioner().mert(mx.array(samples)[None])


def close(made: mx.array, name: str, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(np.array(made), stored()[name], rtol=0, atol=atol)


def test_settings():
    assert conditioner().config == StyleConfig(heads=4)


def test_excerpt():
    first = int(stored()["excerpt_start"])
    taken = excerpt(clip(), 32_000, 3.0)
    np.testing.assert_array_equal(taken, clip().samples[0, first : first + 96_000])
    made = resample(taken, 32_000, 24_000, hold_ends=True)
    np.testing.assert_allclose(made[::37], stored()["excerpt_24k_sub"], rtol=0, atol=1e-6)


def test_mert():
    frames = int(stored()["mert_frames"])
    assert conditioner().mert.config.frames(72_000) == frames
    assert heard().shape == (1, frames, 48)
    close(heard()[:, ::3], "mert_last_hidden")


def test_transformer_and_batch_norm():
    context = conditioner().network.context(heard())
    close(context[:, ::15], "style_tr_out")
    close(conditioner().network.normalised(context)[:, ::15], "style_bn_out")


def test_codes():
    network = conditioner().network
    codes = network.codes(network.normalised(network.context(heard())), 3)
    np.testing.assert_array_equal(
        np.stack([np.array(book) for book in codes], axis=1), stored()["style_codes_eval3"]
    )


@pytest.mark.parametrize(
    ("eval_q", "name"),
    [(None, "style_embeds"), (3, "style_embeds"), (1, "style_embeds_q1"), (6, "style_embeds_q6")],
)
def test_tokens(eval_q, name):
    close(conditioner().embed(clip(), eval_q=eval_q)[None], name)
    assert stored()["style_mask"].all()


def test_no_style():
    close(conditioner().embed(None)[None], "null_style_embeds", atol=0)
    assert not stored()["null_style_mask"].any()


def test_prefix_is_the_style_then_the_text():
    prefix = mx.concatenate(
        [conditioner().embed(clip())[None], mx.array(stored()["description_cond"])], axis=1
    )
    close(prefix, "fused_prefix")


def test_dual_guidance_chooses_the_codes():
    """The stored logits of [text and style, style, nothing], step by step, under the delay pattern."""
    logits = mx.array(stored()["dual_raw_logits"])  # (3, S, K, N)
    chosen = np.array(mx.argmax(conditioning.combined(logits, 3.0, 5.0), axis=-1))[0].T  # (K, S)
    codes = stored()["dual_codes"][0]
    frames = codes.shape[1]
    for book, row in enumerate(codes):
        np.testing.assert_array_equal(chosen[book, book : book + frames], row)


@pytest.mark.parametrize("name", ["single_cfg", "text_only", "style_only"])
def test_plain_guidance_chooses_the_codes(name):
    logits = mx.array(stored()[f"{name}_raw_logits"])
    chosen = np.array(mx.argmax(conditioning.combined(logits, 3.0), axis=-1))[0].T
    codes = stored()[f"{name}_codes"][0]
    for book, row in enumerate(codes):
        np.testing.assert_array_equal(chosen[book, book : book + codes.shape[1]], row)


def test_mert_against_transformers_own():
    """The same weights at other lengths, and two clips at once."""
    import torch
    from transformers import HubertModel

    theirs = HubertModel.from_pretrained(FOLDER / "mert").eval()
    config = MertConfig.from_dict(json.loads((FOLDER / "mert" / "config.json").read_text()))
    rng = np.random.default_rng(2)
    for samples in (400, 1_999, 24_001):
        sound = rng.standard_normal((2, samples)).astype(np.float32)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(sound)).last_hidden_state.numpy()
        made = np.array(conditioner().mert(mx.array(sound)))
        assert made.shape[1] == config.frames(samples)
        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)
