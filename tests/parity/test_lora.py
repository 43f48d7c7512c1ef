"""Adapters against peft: merged weights, logits, greedy codes, for every kind, strength and stack."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core.audio import Audio
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen.generate import MusicGen

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "lora"
MODELS = FIXTURES / "musicgen"
CASES = [(base, path.name) for base in ("mono", "melody") for path in sorted((FOLDER / base).iterdir())]
PROMPT = "slow ambient track with flute"
CODES = [
    ("mono", "qv"),
    ("mono", "dora"),
    ("mono", "dreambooth"),
    *(("melody", n) for n in ("qv", "dora", "dreambooth")),
]


@cache
def stored(base: str) -> Any:
    return np.load(FOLDER / f"{base}.npz")


def adapted(base: str, *names: str, **more: Any) -> MusicGen:
    """The model with adapters of that name, each followed by :STRENGTH or nothing."""
    paths = [f"{FOLDER / base / name}" for name in names]
    return MusicGen.load(MODELS / f"musicgen-{base}", tokenizer=MODELS / "tokenizer", lora=paths, **more)


def logits(music: MusicGen, base: str) -> np.ndarray:
    """Of the fixture's tokens for its two texts, whose padding is masked; (2 K, S, N)."""
    arrays, parts = stored(base), music._parts
    network, mask = parts.transformer, mx.array(arrays["attention_mask"])
    text = network.project_text(parts.t5(mx.array(arrays["input_ids"]), mask))
    given = Rows(2, text=text, mask=mask.astype(mx.bool_))
    if base == "melody":
        features = arrays["input_features"]
        repeated = features[:, np.arange(music.config.melody_frames) % features.shape[1]]
        heard = network.project_melody(mx.array(repeated))
        text = text * mask[..., None]
        given = Rows(2, prefix=mx.concatenate([heard, text], axis=1))
    tokens = mx.array(arrays["decoder_input_ids"].reshape(2, 4, -1).astype(np.int32))
    made = network(tokens, network.run(given, tokens.shape[2]))
    return np.array(made).reshape(8, tokens.shape[2], -1)


def agree(made: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(made, expected[:, -made.shape[1] :], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("base", "name"), CASES)
def test_merged_weights(base: str, name: str):
    arrays = stored(base)
    if f"{name}_merged_names" not in arrays:
        pytest.skip("what it is merged into is not stored")
    table = Files(MODELS / f"musicgen-{base}", Places(lora=(str(FOLDER / base / name),))).table
    plain = Files(MODELS / f"musicgen-{base}").table
    names = [str(each) for each in arrays[f"{name}_merged_names"]]
    np.testing.assert_allclose(table[names[0]], arrays[f"{name}_merged_first"], rtol=0, atol=1e-6)
    for each, expected in zip(names, arrays[f"{name}_merged_sums"], strict=True):
        flat = table[each].astype(np.float64).ravel()
        sums = flat.sum(), np.abs(flat).sum(), (flat * (np.arange(flat.size) + 1) / flat.size).sum()
        np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-6 * flat.size)
    for each in set(table) - set(names):
        np.testing.assert_array_equal(table[each], plain[each])


@pytest.mark.parametrize(("base", "name"), CASES)
def test_logits_at_full_and_half_strength(base: str, name: str):
    agree(logits(adapted(base, name), base), stored(base)[f"{name}_logits"])
    if f"{name}_half_logits" in stored(base) and name != "dreambooth":
        agree(logits(adapted(base, f"{name}:0.5"), base), stored(base)[f"{name}_half_logits"])


@pytest.mark.parametrize("base", ["mono", "melody"])
def test_half_of_an_adapter_with_embeddings(base: str, tmp_path: Path):
    """The stored logits halve all but the embeddings; so does a stack in which these are at strength 1."""
    tensors = load_file(FOLDER / base / "dreambooth" / "adapter_model.safetensors")
    paths = []
    for part, strength in (("embed", 1.0), ("", 0.5)):
        folder = tmp_path / f"part {part}"
        shutil.copytree(FOLDER / base / "dreambooth", folder)
        kept = {name: array for name, array in tensors.items() if ("embed" in name) == bool(part)}
        save_file(kept, folder / "adapter_model.safetensors")
        paths.append(f"{folder}:{strength}")
    music = MusicGen.load(MODELS / f"musicgen-{base}", tokenizer=MODELS / "tokenizer", lora=paths)
    agree(logits(music, base), stored(base)["dreambooth_half_logits"])


@pytest.mark.parametrize(("base", "name"), CASES)
def test_at_no_strength_nothing_is_left(base: str, name: str):
    agree(logits(adapted(base, f"{name}:0"), base), stored(base)["base_logits"])


@pytest.mark.parametrize("base", ["mono", "melody"])
def test_a_stack_is_the_sum(base: str):
    first, second = stored(base)["stack_weights"]
    names = STACKS[base]
    made = logits(adapted(base, f"{names[0]}:{first}", f"{names[1]}:{second}"), base)
    agree(made, stored(base)["stack_logits"])


STACKS = {"mono": ("qv", "all"), "melody": ("qv", "dreambooth")}


@pytest.mark.parametrize(("base", "name"), CODES)
def test_greedy_codes(base: str, name: str, monkeypatch: pytest.MonkeyPatch):
    arrays = stored(base)
    heard: dict[str, Any] = {}
    if base == "melody":  # a clip that stands for the chroma features transformers was given
        monkeypatch.setattr(
            "audiogen_core.musicgen.melody.chroma", lambda audio, config=None: arrays["input_features"][0]
        )
        heard["melody"] = Audio(np.full((1, 32_000), 0.1, np.float32), 32_000)
    expected = arrays[f"{name}_codes"][0]
    made = adapted(base, name).generate_codes(
        PROMPT, seconds=expected.shape[1] / 50, sampling=Sampling(temperature=0), whole_frames=True, **heard
    )
    np.testing.assert_array_equal(made.values, expected)


def test_mlx_audiogens_format_is_the_same_adapter():
    music = MusicGen.load(
        MODELS / "musicgen-mono", tokenizer=MODELS / "tokenizer", lora=[FOLDER / "mlx-audiogen"]
    )
    agree(logits(music, "mono"), stored("mono")["selfattn_logits"])
