"""Configurations: what they say, what is refused by name, windows and positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from audiogen_core import weights
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.musicgen.config import Config, from_audiocraft, from_transformers
from audiogen_core.musicgen.windows import Window, plan

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"


def transformers(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name / "config.json").read_text())


def audiocraft(name: str = "audiocraft-text") -> dict[str, Any]:
    return yaml.safe_load(weights.read_checkpoint(FOLDER / name / "state_dict.bin")["xp.cfg"])


def with_value(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The tree with one value put in, where dots lead."""
    node = tree
    *above, last = path.split(".")
    for part in above:
        node = node.setdefault(part, {})
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return tree


def test_transformers():
    config = from_transformers(transformers("musicgen-stereo"))
    assert (config.width, config.layers, config.heads, config.hidden) == (48, 2, 4, 96)
    assert (config.codebooks, config.channels, config.delays) == (8, 2, (0, 0, 1, 1, 2, 2, 3, 3))
    assert (config.special, config.clip, config.text_in_prefix, config.masks_text) == (64, "", False, True)


def test_melody():
    preprocessor = json.loads((FOLDER / "musicgen-melody" / "preprocessor_config.json").read_text())
    config = from_transformers(transformers("musicgen-melody"), preprocessor)
    assert (config.clip, config.text_in_prefix, config.melody_frames) == ("melody", True, 24)
    assert config.chroma is not None
    assert (config.chroma.bins, config.chroma.frames) == (12, 235)


def test_audiocraft():
    config = from_audiocraft(audiocraft(), 32)
    assert (config.width, config.heads, config.hidden, config.delays) == (48, 4, 96, (0, 1, 2, 3))
    assert (config.text_encoder, config.masks_text, config.window_seconds) == ("t5-base", False, 30)
    style = from_audiocraft(audiocraft("audiocraft-style"), 32)
    assert (style.clip, style.text_in_prefix) == ("style", True)
    assert style.style is not None


def test_audiocraft_in_stereo_and_with_a_melody():
    settings = with_value(audiocraft(), "interleave_stereo_codebooks", {"use": True, "per_timestep": False})
    settings = with_value(settings, "transformer_lm.n_q", 8)
    settings = with_value(settings, "codebooks_pattern.delay.delays", [0, 0, 1, 1, 2, 2, 3, 3])
    settings = with_value(settings, "fuser", {"cross": [], "prepend": ["self_wav", "description"], "sum": []})
    melody = {"model": "chroma_stem", "chroma_stem": {"sample_rate": 32000, "n_chroma": 12, "argmax": True}}
    config = from_audiocraft(with_value(settings, "conditioners.self_wav", melody), 32)
    assert (config.channels, config.codebooks, config.delays[-1]) == (2, 8, 3)
    assert (config.clip, config.melody_frames) == ("melody", 235)


@pytest.mark.parametrize("name", ["musicgen-mono", "musicgen-stereo", "musicgen-melody"])
def test_as_json_and_back(name: str):
    config = from_transformers(transformers(name))
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_style_as_json_and_back():
    config = from_audiocraft(audiocraft("audiocraft-style"), 32)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("values", [{}, {"width": 3}])
def test_damaged_json(values: dict[str, Any]):
    with pytest.raises(ModelError, match="damaged"):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "gpt2", "is of a 'gpt2', expected 'musicgen'"),
        ("decoder", None, "decoder is missing"),
        ("text_encoder", None, "text_encoder is missing"),
        ("decoder.hidden_size", None, "hidden_size"),
        ("decoder.scale_embedding", True, "scale_embedding True is not supported here"),
        ("decoder.cross_attention_hidden_size", 7, "cross_attention_hidden_size 7 is not supported here"),
        ("decoder.pad_token_id", 5, "special tokens"),
        ("decoder.activation_function", "tanh", "the activation 'tanh' is not known here"),
        ("decoder.num_attention_heads", 5, "the heads do not divide the width"),
        ("decoder.audio_channels", 3, "3 channels"),
        ("decoder.audio_channels", 0, "does not describe a MusicGen"),
        ("decoder.num_hidden_layers", "many", "many"),
        ("decoder.num_hidden_layers", -1, "layers is 0 or less"),
    ],
)
def test_transformers_refused(path: str, value: Any, message: str):
    with pytest.raises(ModelError, match=message):
        from_transformers(with_value(transformers("musicgen-mono"), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lm_model", "transformer_lm_magnet", "transformer_lm_magnet"),
        ("transformer_lm.bias_attn", True, "bias_attn True is not supported here"),
        ("transformer_lm.positional_embedding", "rope", "positional_embedding 'rope' is not supported here"),
        ("transformer_lm.qk_layer_norm", True, "qk_layer_norm True"),
        ("transformer_lm.dim", None, "dim is missing"),
        ("codebooks_pattern.modeling", "parallel", "the pattern 'parallel' is not known here"),
        ("codebooks_pattern.delay.flatten_first", 2, "flatten_first 2 is not supported here"),
        ("codebooks_pattern.delay.delays", [0, 1], "one delay of 0 or more per codebook"),
        ("codebooks_pattern.delay.delays", [0, 1, 2, 10**9], "delays of more than 1000 steps"),
        ("interleave_stereo_codebooks", {"use": True, "per_timestep": True}, "in turn by frame"),
        ("fuser.sum", ["description"], "conditions enter in a way that is not known here"),
        ("fuser.cross", [], "expected description and self_wav"),
        ("fuser.cross", ["description", "bpm"], "expected description and self_wav"),
        ("fuser.cross_attention_pos_emb", True, "not known here"),
        ("conditioners", {}, "description is missing"),
        ("dataset", {"segment_duration": 0}, "longer than nothing"),
        ("dataset", {"segment_duration": 1e30}, "at most an hour"),
    ],
)
def test_audiocraft_refused(path: str, value: Any, message: str):
    with pytest.raises(ModelError, match=message):
        from_audiocraft(with_value(audiocraft(), path, value), 32)


@pytest.mark.parametrize(
    ("fuser", "message"),
    [
        ({"cross": ["description", "self_wav"], "prepend": []}, "attended to is not known here"),
        (
            {"cross": ["description"], "prepend": ["self_wav"]},
            "the conditioner 'drums' on a clip is not known",
        ),
    ],
)
def test_clips_that_enter_otherwise(fuser: dict[str, Any], message: str):
    settings = with_value(audiocraft(), "fuser", fuser)
    settings = with_value(settings, "conditioners.self_wav", {"model": "drums"})
    with pytest.raises(ModelError, match=message):
        from_audiocraft(settings, 32)


# Windows


def test_one_window():
    assert plan(100, 0, 1500, 900) == [Window(0, 0, 100)]
    assert plan(1500, 20, 1500, 900) == [Window(0, 20, 1500)]


def test_windows_overlap_by_what_is_not_stride():
    assert plan(1501, 0, 1500, 900) == [Window(0, 0, 1500), Window(900, 600, 601)]
    assert plan(45, 0, 20, 12) == [Window(0, 0, 20), Window(12, 8, 20), Window(24, 8, 20), Window(36, 8, 9)]


def test_windows_after_a_beginning():
    assert plan(45, 10, 20, 12)[0] == Window(0, 10, 20)
    assert plan(45, 20, 20, 12)[0] == Window(12, 8, 20)  # the first would have nothing to make
    assert plan(45, 33, 20, 12) == [Window(25, 8, 20)]


def test_windows_make_every_frame_once():
    rng = np.random.default_rng(0)
    for _ in range(300):
        limit = int(rng.integers(2, 40))
        stride = int(rng.integers(1, limit))
        total = int(rng.integers(1, 200))
        prompt = int(rng.integers(0, total))
        done = prompt
        for window in plan(total, prompt, limit, stride):
            assert window.start + window.prompt == done
            assert 0 <= window.prompt < window.frames <= limit
            done = window.start + window.frames
        assert done == total


@pytest.mark.parametrize("stride", [0, 20, 25])
def test_impossible_strides(stride: int):
    with pytest.raises(OptionError, match="must be 1 to 19 apart"):
        plan(45, 0, 20, stride)


@pytest.mark.parametrize("clock", [(0.0,), (-9.0,), (9.0,) * 5, (float("nan"),), (float("inf"),)])
def test_a_clock_that_cannot_be_is_refused(clock: tuple[float, ...]):
    facts = {"width": 8, "layers": 1, "heads": 2, "hidden": 8, "codebooks": 1, "codebook_size": 4}
    facts |= {"delays": (0,), "channels": 1, "text_width": 8}
    assert Config(**facts, clock=(9.0, 4.5)).clock == (9.0, 4.5)
    with pytest.raises(ModelError, match="a clock"):
        Config(**facts, clock=clock)
