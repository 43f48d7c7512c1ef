"""The border of every codec: checks, chunks, ids, layouts and what bad input gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core import Audio, Codes, codecs
from audiogen_core.errors import (
    AudioError,
    AudioMismatch,
    CodesError,
    ModelError,
    OptionError,
    UnknownModel,
    WeightsError,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encodec"


@pytest.fixture(scope="module", params=["24k", "32k"])
def codec(request):
    return codecs.load(FIXTURES / request.param)


def noise(samples: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((channels, samples)).astype(np.float32) * 0.3


def clip(codec, samples: int) -> Audio:
    return Audio(noise(samples), codec.info.sample_rate)


@pytest.mark.parametrize("samples", [1, 7, 319, 320, 321, 5000])
def test_codes_and_audio_have_the_lengths_of_the_clip(codec, samples):
    codes = codec.encode(clip(codec, samples))
    assert codes.values.shape == (codec.info.codebooks, -(-samples // codec.info.hop_length))
    assert codes.values.dtype == np.int32
    assert codes.frame_rate == codec.info.sample_rate / codec.info.hop_length
    decoded = codec.decode(codes)
    assert decoded.samples.shape == (1, samples)
    assert decoded.sample_rate == codec.info.sample_rate


def test_fewer_codebooks_are_the_first_rows(codec):
    audio = clip(codec, 4000)
    np.testing.assert_array_equal(codec.encode(audio, 2).values, codec.encode(audio).values[:2])
    assert codec.decode(codec.encode(audio, 1)).samples.shape == (1, 4000)


@settings(max_examples=25)
@given(
    samples=st.integers(1, 9000),
    cuts=st.lists(st.integers(1, 4000), min_size=1, max_size=5),
    chunk=st.sampled_from([0.01, 0.02, 0.1, 5.0]),
)
@pytest.mark.parametrize("folder", ["24k", "32k"])
def test_blocks_give_the_codes_of_the_whole(folder, samples, cuts, chunk):
    codec = codecs.load(FIXTURES / folder)
    x = noise(samples, seed=samples)
    codec.chunk_seconds = 60.0
    whole = np.concatenate(list(codec.encode_blocks([x])), axis=1)
    decoded = np.concatenate(list(codec.decode_blocks([whole])), axis=1)
    codec.chunk_seconds = chunk
    bounds = np.minimum(np.cumsum([0, *cuts]), samples)
    blocks = [x[:, a:b] for a, b in zip(bounds, [*bounds[1:], samples], strict=True)]
    pieces = np.concatenate(list(codec.encode_blocks(blocks)), axis=1)
    assert (pieces == whole).mean() > 0.999  # a float32 sum in another order may tip an even choice
    chunked = np.concatenate(list(codec.decode_blocks([whole[:, :1], whole[:, 1:]])), axis=1)
    np.testing.assert_allclose(chunked, decoded, rtol=0, atol=1e-5)


def test_saved_codes_decode_to_the_same(codec, tmp_path):
    codes = codec.encode(clip(codec, 3000))
    loaded = Codes.load(codes.save(tmp_path / "clip.safetensors"))
    np.testing.assert_array_equal(codec.decode(loaded).samples, codec.decode(codes).samples)


def test_a_wrong_rate_or_channel_count_names_its_remedy(codec):
    with pytest.raises(AudioMismatch, match=rf"audio.resample\({codec.info.sample_rate}\)"):
        codec.encode(Audio(noise(100), 44100))
    with pytest.raises(AudioMismatch, match=r"audio.mix\(1\)"):
        codec.encode(Audio(noise(100, channels=2), codec.info.sample_rate))


@pytest.mark.parametrize("count", [0, -1, 9, 1000])
def test_an_impossible_number_of_codebooks_is_refused(codec, count):
    with pytest.raises(OptionError, match="codebooks"):
        codec.encode(clip(codec, 100), count)


@pytest.mark.parametrize(
    "change",
    [
        {"codebook_size": 1e30}, {"codebook_size": 0}, {"codebook_size": 4.5}, {"frame_rate": 0},
        {"frame_rate": -75}, {"frame_rate": 1e30}, {"frame_rate": "75"}, {"codec": 7}, {"codec": []},
        {"length": -1}, {"length": 2**70}, {"length": 1.5},
    ],
)  # fmt: skip
def test_facts_that_cannot_be_are_damage(tmp_path, monkeypatch, change):
    path = tmp_path / "a.codes"
    altered = SimpleNamespace(dumps=lambda facts: json.dumps({**facts, **change}))
    monkeypatch.setattr("audiogen_core.codes.json", altered)
    Codes(np.zeros((2, 3), int), 4, 75.0, "x", 9).save(path)
    with pytest.raises(CodesError, match=f"the description of the codes is damaged: {next(iter(change))} is"):
        Codes.load(path)


def test_codes_of_another_codec_are_refused():
    first, second = codecs.load(FIXTURES / "24k"), codecs.load(FIXTURES / "32k")
    with pytest.raises(CodesError, match=r"made by encodec-24khz@\w{8}; this codec is encodec-32khz@"):
        second.decode(first.encode(clip(first, 1000)))


def test_the_id_tells_weights_apart_but_not_layouts(tmp_path):
    folder = codecs.load(FIXTURES / "24k")
    original = codecs.load(FIXTURES / "24k" / "original_encodec_state_dict.th")
    assert folder.info == original.info
    assert folder.info.accepts("encodec-24khz")
    assert not folder.info.accepts("encodec-24khz@00000000")
    assert not folder.info.accepts("lac")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((9, 4), np.int32), "8 codebooks"),
        (np.zeros((2, 0), np.int32), "no frames"),
    ],
)
def test_codes_that_do_not_fit_are_refused(values, message):
    codec = codecs.load(FIXTURES / "24k")
    with pytest.raises(CodesError, match=message):
        codec.decode(Codes(values, 64, 75.0, codec.info.name))


def test_another_codebook_size_is_refused():
    codec = codecs.load(FIXTURES / "24k")
    with pytest.raises(CodesError, match="of 1024"):
        codec.decode(Codes(np.zeros((2, 4), np.int32), 1024, 75.0, codec.info.name))


def test_no_blocks_are_an_error(codec):
    with pytest.raises(AudioError, match="no samples"):
        list(codec.encode_blocks([]))


def test_an_unknown_name_offers_the_closest():
    with pytest.raises(UnknownModel, match="encodec-24khz"):
        codecs.load("encodec-24kzh")


def test_a_codec_inside_a_musicgen_folder_is_found(tmp_path):
    from safetensors.numpy import load_file, save_file

    config = json.loads((FIXTURES / "32k" / "config.json").read_text())
    tensors = load_file(FIXTURES / "32k" / "model.safetensors")
    save_file({f"audio_encoder.{name}": t for name, t in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "musicgen", "audio_encoder": config}))
    assert codecs.load(tmp_path).info == codecs.load(FIXTURES / "32k").info


def test_published_files_hold_weight_norm_under_its_older_names(tmp_path):
    from safetensors.numpy import load_file, save_file

    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(FIXTURES / "32k" / "model.safetensors").items()
    }
    save_file(older, tmp_path / "model.safetensors")
    shutil.copy(FIXTURES / "32k" / "config.json", tmp_path)
    new, old = codecs.load(FIXTURES / "32k"), codecs.load(tmp_path)
    audio = clip(new, 2000)
    np.testing.assert_array_equal(new.encode(audio).values, old.encode(audio).values)


def edited(tmp_path: Path, edit) -> Path:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(FIXTURES / "24k" / "model.safetensors")
    edit(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(FIXTURES / "24k" / "config.json", tmp_path)
    return tmp_path


def test_a_missing_tensor_is_named(tmp_path):
    path = edited(tmp_path, lambda t: t.pop("decoder.layers.15.conv.bias"))
    with pytest.raises(WeightsError, match=r"decoder\.layers\.15\.conv\.bias"):
        codecs.load(path)


def test_a_tensor_too_many_is_named(tmp_path):
    path = edited(tmp_path, lambda t: t.update({"decoder.layers.16.conv.bias": np.zeros(1, np.float32)}))
    with pytest.raises(WeightsError, match=r"decoder\.layers\.16\.conv\.bias"):
        codecs.load(path)


def test_a_misshapen_tensor_is_named(tmp_path):
    path = edited(tmp_path, lambda t: t.update({"decoder.layers.15.conv.bias": np.zeros(2, np.float32)}))
    with pytest.raises(WeightsError, match=r"decoder\.layers\.15\.conv\.bias.*\(2,\)"):
        codecs.load(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = edited(tmp_path, lambda t: t["encoder.layers.0.conv.bias"].fill(np.nan))
    with pytest.raises(WeightsError, match=r"encoder\.layers\.0\.conv\.bias"):
        codecs.load(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"model_type": "bert"}, "bert"),
        ({"normalize": True}, "48 kHz"),
        ({"pad_mode": "circular"}, "circular"),
        ({"num_filters": None}, "does not describe"),
        ({"upsampling_ratios": [8, 5, 4]}, "shape|missing|unexpected"),
        ({"upsampling_ratios": [8, 5, 4, 0]}, "does not describe"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, edit, message):
    path = edited(tmp_path, lambda t: None)
    config = json.loads((path / "config.json").read_text()) | edit
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        codecs.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"encodec"'])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    path = edited(tmp_path, lambda t: None)
    (path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        codecs.load(path)


def test_a_folder_without_a_codec_says_what_was_expected(tmp_path):
    with pytest.raises(ModelError, match="compression_state_dict"):
        codecs.load(tmp_path)


def test_an_audiocraft_pointer_is_followed_through_the_hub(monkeypatch):
    from audiogen_core import hub

    asked = []

    def fetch(spec, policy):
        asked.append(spec.repo)
        return FIXTURES / "32k"

    monkeypatch.setattr(hub, "fetch", fetch)
    codec = codecs.load(FIXTURES / "32k" / "compression_state_dict.bin")
    assert asked == ["facebook/encodec_32khz"]
    assert codec.info.name == "encodec-32khz"


def test_a_pointer_to_an_unlisted_codec_is_refused(tmp_path):
    import torch

    path = tmp_path / "compression_state_dict.bin"
    torch.save({"pretrained": "somebody/else", "exported": True, "version": "1"}, path)
    with pytest.raises(ModelError, match="somebody/else"):
        codecs.load(path)
