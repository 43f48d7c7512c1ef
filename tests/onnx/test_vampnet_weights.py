"""Checkpoints in the wrong place, of another kind, or damaged: one sentence that says which."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from audiogen_core.errors import ModelError, WeightsError
from audiogen_onnx.exporter.weights import load, load_codec
from support.vampnet_files import write_codec, write_network
from support.vampnet_numpy import FIXTURES

SMALL = FIXTURES / "small"


@pytest.fixture(scope="module")
def vectors():
    return load_codec(SMALL / "codec.pth", "numpy").codebook_vectors()


def changed(tmp_path, name="coarse", **settings):
    """A copy of a small checkpoint with other settings, and its path."""
    tree = torch.load(SMALL / f"{name}.pth", weights_only=True)
    tree["metadata"]["kwargs"] |= settings
    path = tmp_path / f"{name}.pth"
    torch.save(tree, path)
    return path, tree


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flash_attn": True}, "was trained with flash attention"),
        ({"r_cond_dim": 16}, "conditioned on more than codes"),
        ({"cond_dim": 2}, "conditioned on more than codes"),
        ({"noise_mode": "random"}, "has noise mode 'random'"),
        ({"n_heads": 5}, "32 channels cannot be split into 5 heads"),
        ({"n_heads": 0}, "its n_heads is 0"),
        ({"n_layers": "two"}, "its n_layers is 'two'"),
        ({"n_layers": True}, "its n_layers is True"),
        ({"n_layers": 1 << 40}, "its n_layers is"),
        ({"n_conditioning_codebooks": 2}, "all 2 codebooks are conditioning"),
        ({"n_conditioning_codebooks": -1}, "its n_conditioning_codebooks is -1"),
        ({"vocab_size": 49}, "the codec has 5 of 48 x 4"),
        ({"latent_dim": 8}, "the codec has 5 of 48 x 4"),
        ({"n_codebooks": 6}, "reads 6 codebooks"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, vectors, settings, message):
    path, _ = changed(tmp_path, **settings)
    with pytest.raises(ModelError, match=message):
        load(path, vectors)


def test_settings_left_out_mean_flash_attention(tmp_path, vectors):
    path, tree = changed(tmp_path)
    del tree["metadata"]["kwargs"]["flash_attn"]
    torch.save(tree, path)
    with pytest.raises(ModelError, match="flash attention"):
        load(path, vectors)


def test_files_in_one_anothers_place(tmp_path, vectors):
    with pytest.raises(ModelError, match="is a codec, but a VampNet network belongs here"):
        load(SMALL / "codec.pth", vectors)
    with pytest.raises(ModelError, match=r"is no codec, but VampNet's codec.pth belongs here"):
        load_codec(SMALL / "coarse.pth")
    with pytest.raises(ModelError, match="carries no settings"):
        load(SMALL / "coarse_lora.pth", vectors)


def test_dac_is_not_lac(tmp_path):
    tree = torch.load(SMALL / "codec.pth", weights_only=True)
    tree["state_dict"] = {
        name: values for name, values in tree["state_dict"].items() if "mrf_blocks" not in name
    }
    tree["state_dict"]["decoder.model.1.block.2.block.0.alpha"] = torch.ones(1, 8, 1)
    torch.save(tree, tmp_path / "codec.pth")
    with pytest.raises(WeightsError, match="DAC"):
        load_codec(tmp_path / "codec.pth", "numpy")


def test_codebooks_of_different_widths(tmp_path):
    path, _ = changed(tmp_path, "codec", codebook_dim=[4, 4, 4, 4, 2])
    with pytest.raises(ModelError, match="different widths"):
        load_codec(path, "numpy")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("transformer.norm.weight", None, r"missing \(1\): norm.weight"),
        ("transformer.layers.9.norm_1.weight", torch.ones(32), r"unexpected \(1\): layers.9.attention_norm"),
        ("transformer.layers.0.self_attn.fc.weight", torch.ones(32, 31), r"\(32, 31\) instead of \(32, 32\)"),
        ("transformer.norm.weight", torch.full((32,), torch.nan), "holds NaN or infinity"),
        ("classifier.layers.0.weight_v", torch.zeros(96, 32, 1), "holds NaN or infinity"),
        ("transformer.layers.0.self_attn.fc.lora_A", None, "lora_A' is missing"),
        (
            "transformer.layers.0.self_attn.fc.lora_A",
            torch.ones(4, 32),
            r"shape \(4, 32\), expected \(8, 32\)",
        ),
        ("transformer.layers.9.self_attn.fc.lora_A", torch.ones(8, 32), "which this network does not have"),
        (
            "transformer.layers.0.self_attn.other.lora_A",
            torch.ones(8, 32),
            "which this network does not have",
        ),
    ],
)
def test_tensors_are_taken_strictly(tmp_path, vectors, name, change, message):
    path, tree = changed(tmp_path)
    if change is None:
        del tree["state_dict"][name]
    else:
        tree["state_dict"][name] = change
    torch.save(tree, path)
    with pytest.raises(WeightsError, match=message):
        load(path, vectors)


def test_controls_that_are_never_used_are_left_out(tmp_path, vectors):
    path, tree = changed(tmp_path)
    tree["state_dict"]["ctrl_encoder.ctrl_encoders.pitch.weight"] = torch.ones(32, 3)
    torch.save(tree, path)
    assert load(path, vectors).config == load(SMALL / "coarse.pth", vectors).config


def test_checkpoints_without_low_rank_updates_load(tmp_path, vectors):
    path, tree = changed(tmp_path)
    tree["state_dict"] = {name: value for name, value in tree["state_dict"].items() if "lora_" not in name}
    torch.save(tree, path)
    plain = load(path, vectors).tensors["layers.0.attention.query.weight"]
    assert (plain == tree["state_dict"]["transformer.layers.0.self_attn.w_qs.weight"].numpy()).all()


def test_a_whole_checkpoint_is_no_update(vectors):
    with pytest.raises(WeightsError, match="takes the place of"):
        load(SMALL / "coarse.pth", vectors, SMALL / "coarse.pth")


def test_an_update_of_another_network_is_refused(vectors):
    with pytest.raises(WeightsError, match=r"shape|does not have"):
        load(SMALL / "coarse.pth", vectors, FIXTURES / "big" / "coarse_lora.pth")


def test_random_checkpoints_of_any_size_load(tmp_path):
    """The makers of checkpoints that other tests use write what upstream writes."""
    codec = {**torch.load(SMALL / "codec.pth", weights_only=True)["metadata"]["kwargs"], "n_codebooks": 3}
    found = load_codec(write_codec(tmp_path / "codec.pth", codec), "numpy")
    assert found.info.codebooks == 3
    settings = torch.load(SMALL / "coarse.pth", weights_only=True)["metadata"]["kwargs"]
    path = write_network(tmp_path / "coarse.pth", {**settings, "n_layers": 1})
    assert load(path, found.codebook_vectors()).config.layers == 1


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod.", "generator.", "_fsdp_wrapped_module."])
def test_wrapped_checkpoints_are_the_same(tmp_path, vectors, prefix):
    for name in ("coarse", "coarse_lora"):
        stored = torch.load(SMALL / f"{name}.pth", weights_only=True)
        whole = stored if "state_dict" in stored else {"state_dict": stored}
        whole["state_dict"] = {prefix + key: value for key, value in whole["state_dict"].items()}
        torch.save(whole, tmp_path / f"{name}.pth")
    with pytest.warns(UserWarning, match=rf"the weights taken are state_dict\.{re.escape(prefix)}\*"):
        made = load(tmp_path / "coarse.pth", vectors, tmp_path / "coarse_lora.pth")
    expected = load(SMALL / "coarse.pth", vectors, SMALL / "coarse_lora.pth")
    assert made.config == expected.config
    for key, values in expected.tensors.items():
        np.testing.assert_array_equal(made.tensors[key], values)


def test_a_prefix_is_no_low_rank_update(tmp_path, vectors):
    tree = torch.load(SMALL / "coarse.pth", weights_only=True)
    tree["state_dict"] = {f"foo.{key}": value for key, value in tree["state_dict"].items()}
    torch.save(tree, tmp_path / "coarse.pth")
    with pytest.raises(
        WeightsError, match=r"coarse\.pth: all \d+ names begin with foo\., which is no wrapper"
    ):
        load(tmp_path / "coarse.pth", vectors)
    torch.save(tree["state_dict"], tmp_path / "bare.pth")
    with pytest.raises(ModelError, match=r"bare\.pth: all \d+ names begin with foo\.; carries no settings"):
        load(tmp_path / "bare.pth", vectors)


@pytest.mark.parametrize("kind", ["lightning", "average", "halves"])
def test_whole_fine_tunes_of_others(tmp_path, vectors, kind):
    """As training leaves them: what is taken is told, and an average goes before what was trained last."""
    tree = torch.load(SMALL / "coarse.pth", weights_only=True)
    plain = tree["state_dict"]
    if kind == "lightning":
        tree |= {"state_dict": {f"model.{key}": value for key, value in plain.items()}, "epoch": 3}
    elif kind == "average":
        spoilt = {f"model.{key}": torch.zeros_like(value) for key, value in plain.items()}
        tree["state_dict"] = spoilt | {f"model_ema.module.{key}": value for key, value in plain.items()}
    else:
        tree["state_dict"] = {key: value.half() for key, value in plain.items()}
    torch.save(tree, tmp_path / "coarse.pth")
    told = {
        "lightning": r"taken are state_dict\.model\.\*",
        "average": r"model_ema\.module\.\*, not .*model\.\*",
    }
    if kind in told:
        with pytest.warns(UserWarning, match=told[kind]):
            made = load(tmp_path / "coarse.pth", vectors)
    else:
        made = load(tmp_path / "coarse.pth", vectors)
    expected = load(SMALL / "coarse.pth", vectors)
    for key, values in expected.tensors.items():
        within = 0.01 if kind == "halves" else 0.0
        np.testing.assert_allclose(made.tensors[key], values, rtol=0, atol=within)
