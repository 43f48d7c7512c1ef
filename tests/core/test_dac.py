"""LAC and DAC: checkpoints of both families, what is refused, and clips in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core import Audio, Codes, codecs
from audiogen_core.codecs import dac
from audiogen_core.errors import AudioMismatch, CodesError, ModelError, WeightsError
from audiogen_core.ops import resolve
from support import lac
from support.pieces import cut_small

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vampnet"
DAC = lac.TINY | {"encoder_rates": [2, 5], "decoder_rates": [5, 2], "latent_dim": 12}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dac")
    return {
        "lac": lac.save(folder / "lac.pth", lac.TINY),
        "dac": lac.save(folder / "dac.pth", DAC, "dac"),
    }


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, samples)).astype(np.float32) * 0.3


def test_the_geometry_of_the_full_size():
    """As many tensors as VampNet's codec has, and their widths."""
    shapes = lac.shapes(lac.FULL)
    assert len(shapes) == 680
    assert shapes["decoder.model.1.block.1.weight_v"] == (1536, 768, 12)
    config = dac.from_audiotools(lac.FULL, "lac")
    assert config.hop_length == 768
    assert config.latent_width == 1024


@pytest.mark.parametrize("family", ["lac", "dac"])
def test_a_checkpoint_of_audiotools(files, family):
    codec = codecs.load_codec(files[family])
    assert codec.info.name.partition("@")[0] == {"lac": "lac", "dac": "dac-16khz"}[family]
    assert codec.info.hop_length == {"lac": 8, "dac": 10}[family]
    assert codec.codebook_vectors().shape == (5, 48, 4)
    codes = codec.encode(Audio(noise(95), 16000))
    assert codes.values.shape == (5, {"lac": 12, "dac": 10}[family])
    assert codec.decode(codes).samples.shape == (1, 95)


def test_two_seconds_of_the_24_khz_model_come_back_whole(tmp_path):
    """Its stride of five leaves the decoder eight samples short of 48,000: those are silence."""
    rates = {"encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2], "sample_rate": 24000}
    codec = codecs.load_codec(lac.save(tmp_path / "24k.pth", DAC | rates | {"decoder_dim": 32}, "dac"))
    sound = codec.decode(codec.encode(Audio(noise(48_000), 24_000))).samples[0]
    assert sound.shape == (48_000,)
    assert sound[:-8].any() and not sound[-8:].any()
    assert np.flatnonzero(sound)[-1] == 47_991


def test_newer_names_of_weight_norm(files, tmp_path):
    """torch's parametrizations hold the same two tensors under other names."""
    tree = torch.load(files["lac"])
    renamed = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in tree["state_dict"].items()
    }
    torch.save({**tree, "state_dict": renamed}, tmp_path / "new.pth")
    old, new = codecs.load_codec(files["lac"]), codecs.load_codec(tmp_path / "new.pth")
    assert old.info == new.info
    codes = old.encode(Audio(noise(200), 16000))
    np.testing.assert_array_equal(old.decode(codes).samples, new.decode(codes).samples)


def test_codebooks_of_different_widths(tmp_path):
    codec = codecs.load_codec(lac.save(tmp_path / "a.pth", lac.TINY | {"codebook_dim": [4, 2, 3, 4, 1]}))
    vectors = codec.codebook_vectors()
    assert vectors.shape == (5, 48, 4)
    assert not vectors[1][:, 2:].any()
    assert vectors[1][:, :2].any()
    codes = codec.encode(Audio(noise(300), 16000))
    assert codec.decode(codes).samples.shape == (1, 300)


def test_one_family_is_not_taken_for_the_other(files):
    ops = resolve("numpy")
    assert dac.load_audiotools(files["lac"], ops, family="lac").info.codebooks == 5
    with pytest.raises(WeightsError, match="weights are DAC's, but a LAC is needed here"):
        dac.load_audiotools(files["dac"], ops, family="lac")
    with pytest.raises(WeightsError, match="weights are LAC's, but a DAC is needed here"):
        dac.load_audiotools(files["lac"], ops, family="dac")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_rates": [2, 2]}, "do not multiply to the same hop length"),
        ({"n_codebooks": 6}, "missing|needs"),
        ({"codebook_size": 47}, r"shape \(48, 4\), expected \(47, 4\)"),
        ({"encoder_dim": 8}, "expected"),
        ({"decoder_dim": 6}, "cannot be halved 2 times"),
        ({"n_codebooks": 0}, "codebooks is 0"),
        ({"sample_rate": -1}, "sample_rate is -1"),
        ({"codebook_dim": [4, 4]}, "5 codebooks, but 2 codebook_dim"),
        ({"encoder_rates": []}, "multiply"),
        ({"encoder_rates": [8], "decoder_rates": [8, 1]}, "even"),
        ({"encoder_rates": "ab"}, "does not describe a LAC"),
        ({"encoder_dim": None}, "does not describe a LAC"),
    ],
)
def test_settings_that_do_not_fit_the_weights(tmp_path, changes, message):
    path = lac.save(tmp_path / "a.pth", lac.TINY, written=lac.TINY | changes)
    with pytest.raises(ModelError, match=message) as error:
        codecs.load(path)
    assert "a.pth" in str(error.value)


@pytest.mark.parametrize("name", ["coarse.pth", "c2f.pth"])
def test_a_network_is_no_codec(name):
    with pytest.raises(ModelError, match=rf"{name}: .* not of a codec"):
        codecs.load(FIXTURES / "small" / name)


def test_a_missing_setting_is_named(tmp_path):
    written = {key: value for key, value in lac.TINY.items() if key != "decoder_rates"}
    with pytest.raises(ModelError, match="decoder_rates"):
        codecs.load(lac.save(tmp_path / "a.pth", lac.TINY, written=written))
    tree = torch.load(lac.save(tmp_path / "b.pth", lac.TINY))
    torch.save({**tree, "metadata": {}}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="no metadata"):
        codecs.load(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"encoder.block.0.weight_v": torch.zeros(4, 1, 7)}, "NaN"),
        ({"encoder.block.0.bias": torch.full((4,), torch.nan)}, "NaN"),
        ({"encoder.block.0.bias": torch.zeros(5)}, r"shape \(5,\), expected \(4,\)"),
        ({"encoder.block.9.bias": torch.zeros(4)}, "unexpected"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, tensors, message):
    with pytest.raises(WeightsError, match=message):
        codecs.load(lac.save(tmp_path / "a.pth", lac.TINY, tensors=tensors))


@settings(max_examples=15)
@given(
    samples=st.integers(1, 2500),
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=6),
    chunk=st.sampled_from([0.004, 0.02, 0.05, 5.0]),
    pieces=st.sampled_from([0.5, 2, 11, 1 << 20]),
)
@pytest.mark.parametrize("family", ["lac", "dac"])
def test_blocks_give_the_codes_of_the_whole(files, family, samples, cuts, chunk, pieces):
    codec = codecs.load_codec(files[family])
    x = noise(samples, seed=samples)
    codec.chunk_seconds = 60.0
    whole = np.concatenate(list(codec.encode_blocks([x])), axis=1)
    assert whole.shape[1] == -(-samples // codec.info.hop_length)
    decoded = np.concatenate(list(codec.decode_blocks([whole])), axis=1)
    assert decoded.shape[1] == whole.shape[1] * codec.info.hop_length
    codec.chunk_seconds = chunk
    cut_small(codec, pieces)
    bounds = np.minimum(np.cumsum([0, *cuts]), samples)
    blocks = [x[:, a:b] for a, b in zip(bounds, [*bounds[1:], samples], strict=True)]
    made = np.concatenate(list(codec.encode_blocks(blocks)), axis=1)
    assert (made == whole).mean() > 0.999  # a float32 sum in another order may tip an even choice
    chunked = np.concatenate(list(codec.decode_blocks([whole[:, :1], whole[:, 1:]])), axis=1)
    np.testing.assert_allclose(chunked, decoded, rtol=0, atol=1e-5)


def test_the_ids_keep_codecs_apart(files):
    first, second = (codecs.load_codec(files[family]) for family in ("lac", "dac"))
    assert first.info.accepts("lac")
    codes = first.encode(Audio(noise(100), 16000))
    with pytest.raises(CodesError, match=r"made by lac@\w{8}; this codec is dac-16khz@\w{8}"):
        second.decode(codes)
    named = Codes(codes.values, 48, codes.frame_rate, "lac", length=100)
    np.testing.assert_array_equal(first.decode(named).samples, first.decode(codes).samples)
    with pytest.raises(AudioMismatch, match=r"audio.resample\(16000\)"):
        first.encode(Audio(noise(100), 44100))


def test_silence_is_coded_and_decoded(files):
    codec = codecs.load_codec(files["lac"])
    decoded = codec.decode(codec.encode(Audio(np.zeros((1, 500), np.float32), 16000)))
    assert np.isfinite(decoded.samples).all()
