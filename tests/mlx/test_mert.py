"""MERT: the layouts it is stored in, what is refused, and its full size against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core.errors import AudioError, ModelError, WeightsError
from audiogen_core.musicgen.catalog import MERT
from audiogen_core.musicgen.mert import MertConfig
from audiogen_mlx.musicgen.mert import Mert, OverTime

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen" / "audiocraft-style" / "mert"
NEW = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
OLD = "encoder.pos_conv_embed.conv.weight_"
SOUND = np.random.default_rng(8).standard_normal((1, 4_000)).astype(np.float32)


def settings(**changed: object) -> dict:
    return {**json.loads((FOLDER / "config.json").read_text()), **changed}


def tensors() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "model.safetensors")


def write(folder: Path, table: dict[str, np.ndarray], **changed: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings(**changed)))
    save_file(table, folder / "model.safetensors")
    return folder


def listen(folder: Path) -> np.ndarray:
    return np.array(Mert.load(folder)(mx.array(SOUND)))


def test_names_of_the_older_weight_norm(tmp_path):
    table = tensors()
    table[f"{OLD}g"], table[f"{OLD}v"] = table.pop(f"{NEW}0"), table.pop(f"{NEW}1")
    np.testing.assert_array_equal(listen(write(tmp_path, table)), listen(FOLDER))


def test_torch_file_and_the_class_of_its_authors(tmp_path):
    import torch

    (tmp_path / "config.json").write_text(json.dumps(settings(model_type="mert_model", deepnorm=False)))
    torch.save(
        {name: torch.from_numpy(array) for name, array in tensors().items()}, tmp_path / "pytorch_model.bin"
    )
    np.testing.assert_array_equal(listen(tmp_path), listen(FOLDER))


def test_convolutions_with_biases(tmp_path):
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(4)
    theirs = HubertModel(HubertConfig(**settings(conv_bias=True))).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(SOUND)).last_hidden_state.numpy()
    np.testing.assert_allclose(listen(tmp_path), expected, rtol=0, atol=1e-4)


def test_clips_of_a_batch_do_not_hear_each_other():
    model = Mert.load(FOLDER)
    other = np.random.default_rng(9).standard_normal(SOUND.shape).astype(np.float32)
    both = np.array(model(mx.array(np.concatenate([SOUND, other]))))
    np.testing.assert_allclose(both[0], np.array(model(mx.array(SOUND)))[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(both[1], np.array(model(mx.array(other)))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("samples", "frames"), [(399, 0), (400, 1), (719, 1), (720, 2), (72_000, 224)])
def test_vectors_per_clip(samples, frames):
    assert MertConfig.from_dict(settings()).frames(samples) == frames


def test_clip_too_short_for_a_vector():
    with pytest.raises(AudioError, match="399 samples are too few"):
        Mert.load(FOLDER)(mx.zeros((1, 399)))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model_type": "wav2vec2"}, "'wav2vec2'"),
        ({"do_stable_layer_norm": True}, "do_stable_layer_norm: True"),
        ({"feat_extract_norm": "layer"}, "feat_extract_norm: layer"),
        ({"hidden_act": "relu"}, "hidden_act: relu"),
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt: True"),
        ({"hidden_size": None}, "does not describe a MERT"),
        ({"num_attention_heads": 5}, "does not describe a MERT"),
        ({"num_attention_heads": 0}, "does not describe a MERT"),
        ({"conv_stride": [5, 2]}, "does not describe a MERT"),
        ({"conv_dim": [], "conv_kernel": [], "conv_stride": []}, "does not describe a MERT"),
    ],
)
def test_settings_of_something_else(changed, reason):
    with pytest.raises(ModelError, match=reason):
        MertConfig.from_dict(settings(**changed))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_settings_that_cannot_be_read(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        Mert.load(tmp_path)


def test_folder_without_settings(tmp_path):
    with pytest.raises(ModelError, match="expected the folder of a MERT"):
        Mert.load(tmp_path)


def test_weights_too_few_too_many_or_misshapen(tmp_path):
    table = tensors()
    lost = table.pop("encoder.layers.1.attention.k_proj.bias")
    with pytest.raises(WeightsError, match=r"missing \(1\): .*layers\.1\.attention\.k_proj\.bias"):
        Mert.load(write(tmp_path, table))
    with pytest.raises(WeightsError, match=r"k_proj\.bias \(47,\) instead of \(48,\)"):
        Mert.load(write(tmp_path, {**table, "encoder.layers.1.attention.k_proj.bias": lost[:-1].copy()}))
    with pytest.raises(WeightsError, match="lm_head"):
        Mert.load(write(tmp_path, {**tensors(), "lm_head.weight": lost}))


def test_weight_norm_of_a_damaged_file(tmp_path):
    table = tensors()
    table[f"{NEW}1"][:, :, 7] = 0
    with pytest.raises(WeightsError, match="only zeros somewhere"):
        Mert.load(write(tmp_path, table))


def test_published_one_is_pinned():
    assert MERT.pinned
    assert MERT.size == 1_817 + 377_552_987
    assert all(file.sha256 for file in MERT.files)


def test_norm_over_the_time_of_a_long_style():
    """Thirty seconds, of which the first convolution leaves 144,000 steps, not centred."""
    x = np.random.default_rng(8).standard_normal((1, 144_000, 4)).astype(np.float32) * 0.5 + 1.5
    exact = x.astype(np.float64) - x.mean(axis=1, dtype=np.float64)
    expected = exact / np.sqrt(np.square(exact).mean(axis=1) + 1e-5)
    np.testing.assert_allclose(np.array(OverTime(4)(mx.array(x))), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_full_size(tmp_path):
    """The geometry of MERT-v1-95M, which is that of HuBERT base, with random weights."""
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(6)
    theirs = HubertModel(HubertConfig()).eval()
    theirs.save_pretrained(tmp_path)
    sound = np.random.default_rng(7).standard_normal((1, 72_000)).astype(np.float32) * 0.1
    with torch.no_grad():
        expected = theirs(torch.from_numpy(sound)).last_hidden_state.numpy()
    made = np.array(Mert.load(tmp_path)(mx.array(sound)))
    assert made.shape == (1, 224, 768)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)
