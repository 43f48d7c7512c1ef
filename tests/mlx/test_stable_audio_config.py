"""Configurations: read in full, or refused by the name of what is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiogen_core.errors import ModelError, OptionError
from audiogen_mlx.stable_audio.config import Config
from audiogen_mlx.stable_audio.read_config import read_diffusers, read_stable_audio_tools
from audiogen_mlx.stable_audio.schedules import DistributionShift
from support import stable_audio_full as full

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"


def parsed(tmp_path: Path, tree: object) -> Config:
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(tree))
    return read_stable_audio_tools(path)


def test_small(tmp_path: Path) -> None:
    config = parsed(tmp_path, full.configuration("small"))
    dit = config.dit
    assert (config.objective, config.frames, config.text.max_length) == ("rf_denoiser", 256, 64)
    assert (dit.head_dim, dit.rotary_dim, dit.context_dim, dit.context_heads) == (128, 64, 1024, 8)
    assert (dit.qk_norm, config.cross_ids) == ("ln", ("prompt", "seconds_total"))
    assert config.max_seconds == pytest.approx(524288 / 44100)


def test_one(tmp_path: Path) -> None:
    config = parsed(tmp_path, full.configuration("1.0"))
    dit = config.dit
    assert (config.objective, config.frames, config.text.max_length) == ("v", 1024, 128)
    assert (dit.head_dim, dit.rotary_dim, dit.context_dim, dit.context_heads) == (64, 32, 768, 12)
    assert (dit.qk_norm, config.global_ids) == ("none", ("seconds_start", "seconds_total"))


def test_both_layouts_of_one_model_agree() -> None:
    ours = read_stable_audio_tools(FIXTURES / "tiny-1.0" / "model_config.json")
    theirs = read_diffusers(FIXTURES / "tiny-1.0-diffusers")
    assert (ours.dit, ours.numbers, ours.sample_size) == (theirs.dit, theirs.numbers, theirs.sample_size)
    assert (ours.cross_ids, ours.global_ids) == (theirs.cross_ids, theirs.global_ids)
    assert ours.text.max_length == theirs.text.max_length


def changed(path: str, value: object) -> dict:
    tree = full.configuration("small")
    node = tree
    *way, last = path.split("/")
    for key in way:
        node = node.setdefault(key, {})
    node[last] = value
    return tree


DIT = "model/diffusion/config"


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        (f"{DIT}/num_memory_tokens", 4, "memory_tokens", 4),
        (f"{DIT}/global_cond_type", "adaLN", "adaptive_norm", True),
        (f"{DIT}/patch_size", 2, "patch_size", 2),
        (f"{DIT}/final_cross_attn_ix", 7, "cross_layers", 8),
        (f"{DIT}/layer_scale", True, "layer_scale", True),
        (f"{DIT}/ff_kwargs", {"mult": 2, "no_bias": True}, "ff_dim", 2048),
        (f"{DIT}/ff_kwargs", {"no_bias": True}, "ff_out_bias", False),
        (f"{DIT}/norm_kwargs", {"eps": 1e-6}, "norm_eps", 1e-6),
        (f"{DIT}/attn_kwargs/qk_norm", "l2", "qk_norm", "l2"),
        (f"{DIT}/use_abs_pos_emb", True, "positions", 10_000),
        (f"{DIT}/abs_pos_emb_max_length", 300, "positions", 0),
    ],
)
def test_settings_of_the_network_are_honoured(
    tmp_path: Path, path: str, value: object, field: str, expected: object
) -> None:
    assert getattr(parsed(tmp_path, changed(path, value)).dit, field) == expected


def test_shift_and_whole_numbers_are_honoured(tmp_path: Path) -> None:
    options = {"base_shift": 0.4, "max_length": 2048, "use_sine": True}
    config = parsed(tmp_path, changed("model/diffusion/distribution_shift_options", options))
    assert config.shift == DistributionShift(0.4, 1.15, 2048, 256, True)
    tree = full.configuration("small")
    tree["model"]["conditioning"]["configs"][1]["type"] = "int"
    assert parsed(tmp_path, tree).numbers[0].whole
    with pytest.raises(OptionError, match="max_length"):
        parsed(tmp_path, changed("model/diffusion/distribution_shift_options", {"max_length": 8}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "autoencoder", "model_type 'autoencoder' is not supported"),
        ("model_type", "lm", "another family"),
        ("sample_size", 0, "sample_size must be 1 or more"),
        ("sample_rate", "fast", "sample_rate must be int"),
        ("model/pretransform/type", "dac_pretrained", "dac_pretrained"),
        ("model/diffusion/type", "adp_cfg_1d", "adp_cfg_1d"),
        ("model/diffusion/diffusion_objective", "x0", "diffusion_objective 'x0'"),
        ("model/diffusion/prepend_cond_ids", ["prompt"], "prepend_cond_ids"),
        ("model/diffusion/mystery", 1, "unknown settings: mystery"),
        ("model/diffusion/cross_attention_cond_ids", ["prompt", "bpm"], "no conditioner is called bpm"),
        ("model/diffusion/global_cond_ids", ["prompt"], "it is text"),
        ("model/diffusion/global_cond_ids", [], "global_cond_dim does not fit"),
        ("model/diffusion/input_concat_ids", ["inpaint_mask"], "do not fit the model_type"),
        (f"{DIT}/mystery", 1, "unknown settings: mystery"),
        (f"{DIT}/conformer", True, "conformer True"),
        (f"{DIT}/sliding_window", [64, 64], "sliding_window"),
        (f"{DIT}/attn_kwargs/differential", True, "differential True"),
        (f"{DIT}/attn_kwargs/qk_norm", "dyt", "qk_norm 'dyt'"),
        (f"{DIT}/num_heads", 7, "embed_dim must be a multiple of num_heads"),
        (f"{DIT}/num_heads", 64, "32 or more channels"),
        (f"{DIT}/cond_token_dim", 512, "cond_token_dim is not cond_dim"),
        (f"{DIT}/patch_size", 3, "whole patches"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parsed(tmp_path, changed(path, value))
    assert str(tmp_path) in str(caught.value)


def test_too_few_positions_for_a_window(tmp_path: Path) -> None:
    tree = changed(f"{DIT}/use_abs_pos_emb", True)
    network = tree["model"]["diffusion"]["config"]
    network["abs_pos_emb_max_length"] = 257  # the global token and 256 frames
    assert parsed(tmp_path, tree).dit.positions == 257
    network["abs_pos_emb_max_length"] = 256
    with pytest.raises(ModelError, match="abs_pos_emb_max_length is less than the positions of a window"):
        parsed(tmp_path, tree)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("clap_text", "type 'clap_text'"), ("t5", "one t5 conditioner is expected, found 2")],
)
def test_conditioners_of_other_kinds(tmp_path: Path, kind: str, message: str) -> None:
    tree = full.configuration("small")
    entry = {"id": "other", "type": kind, "config": {"t5_model_name": "t5-base"}}
    tree["model"]["conditioning"]["configs"].append(entry)
    with pytest.raises(ModelError, match=message):
        parsed(tmp_path, tree)


def test_a_number_nobody_can_give(tmp_path: Path) -> None:
    tree = full.configuration("small")
    conditioning = tree["model"]["conditioning"]
    conditioning["configs"][1]["id"] = "bpm"
    tree["model"]["diffusion"]["cross_attention_cond_ids"] = ["prompt", "bpm"]
    tree["model"]["diffusion"]["global_cond_ids"] = ["bpm"]
    with pytest.raises(ModelError, match="bpm is not known here"):
        parsed(tmp_path, tree)
    conditioning["default_keys"] = {"bpm": "seconds_total"}
    assert dict(parsed(tmp_path, tree).defaults) == {"bpm": "seconds_total"}


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "expected a JSON object"), ("{}", "no model_type")]
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model_config.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_stable_audio_tools(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_stable_audio_tools(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("model_index.json", "_class_name", "FluxPipeline", "not a StableAudioPipeline"),
        ("transformer/config.json", "out_channels", 8, "out_channels"),
        ("transformer/config.json", "mystery", 8, "unknown settings: mystery"),
        ("transformer/config.json", "cross_attention_dim", 96, "cross_attention_dim 96"),
    ],
)
def test_diffusers_folders_of_another_kind(
    tmp_path: Path, file: str, key: str, value: object, message: str
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "tiny-1.0-diffusers", folder)
    tree = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(tree | {key: value}))
    with pytest.raises(ModelError, match=message):
        read_diffusers(folder)
