"""The codec in ONNX: equal to torch at any length, in chunks, with few codebooks, and in damaged folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import onnx
from audiogen_core import Audio, Codes, codecs
from audiogen_core.errors import AudioMismatch, ManifestError, ModelError, OptionError
from audiogen_onnx.codec import FACTS, OnnxCodec
from audiogen_onnx.exporter import codec as codec_export
from audiogen_onnx.session import Session
from support import lac
from support.exported import exported

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vampnet"
SIZES = ["small", "big"]


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    """Exported folders of both fixture codecs."""
    return {size: exported(size) for size in SIZES}


def both(folders: dict[str, Path], size: str) -> tuple[OnnxCodec, codecs.Codec]:
    return OnnxCodec.load(folders[size]), codecs.load_codec(FIXTURES / size / "codec.pth", "torch")


def noise(samples: int, seed: int = 0, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32) * 0.3


@pytest.mark.parametrize("size", SIZES)
def test_the_stored_arrays_of_the_original(folders, size):
    """Codes wherever the choice is not even; audio to 1e-4, for the big one to what rounding does to it."""
    codec, stored = OnnxCodec.load(folders[size]), np.load(FIXTURES / f"{size}_codec.npz")
    atol = {"small": 1e-4, "big": 5e-4}[size]
    for i in range(3):
        for item, clip in enumerate(stored[f"audio_in_{i}"]):
            expected, margin = stored[f"codes_{i}"][item], stored[f"margin_{i}"][item]
            made = codec.encode(Audio(clip, codec.info.sample_rate))
            np.testing.assert_array_equal(made.values[margin > 1e-5], expected[margin > 1e-5])
            audio = stored[f"audio_out_{i}"][item]
            decoded = codec.decode(made).samples
            np.testing.assert_allclose(decoded, audio, rtol=0, atol=atol)
    info, coarse = codec.info, {"small": 2, "big": 4}[size]
    for name, count in (("dec_audio", info.codebooks), ("dec_coarse_audio", coarse)):
        for codes, audio in zip(stored["dec_codes"], stored[name], strict=True):
            few = Codes(codes[:count], info.codebook_size, info.frame_rate, info.name)
            np.testing.assert_allclose(codec.decode(few).samples, audio, rtol=0, atol=atol)


@pytest.mark.parametrize("samples", [1, 5, 50, 767, 769, 1535, 2305, 5001, 9999, 20001])
@pytest.mark.parametrize("size", SIZES)
def test_codes_equal_torch_at_lengths_that_are_no_whole_frames(folders, size, samples):
    ours, torch_codec = both(folders, size)
    assert ours.info == torch_codec.info
    clip = Audio(noise(samples, seed=samples), ours.info.sample_rate)
    codes = ours.encode(clip)
    np.testing.assert_array_equal(codes.values, torch_codec.encode(clip).values)
    decoded = ours.decode(codes).samples
    assert decoded.shape == (1, samples)
    np.testing.assert_allclose(decoded, torch_codec.decode(codes).samples, rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [3001, 16000])
def test_chunks_give_the_whole(folders, samples):
    codec = OnnxCodec.load(folders["small"])
    clip = noise(samples)
    codec.chunk_seconds = 1000.0
    whole = np.concatenate(list(codec.encode_blocks([clip])), axis=1)
    audio = np.concatenate(list(codec.decode_blocks([whole])), axis=1)
    codec.chunk_seconds = 0.02
    blocks = list(codec.encode_blocks([clip[:, :10], clip[:, 10:]]))
    assert len(blocks) > 5
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    pieces = list(codec.decode_blocks([whole[:, :7], whole[:, 7:]]))
    assert len(pieces) > 5
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), audio, rtol=0, atol=1e-5)


def test_batches_of_one_graph(folders):
    """Batch and time are free in both graphs, and each item is its own single run."""
    encoder, decoder = (Session(folders["small"] / f"{name}.onnx") for name in ("encoder", "decoder"))
    assert (encoder.outputs, decoder.outputs) == (("codes",), ("audio",))
    for batch, frames in ((1, 1), (2, 7), (3, 40)):
        audio = noise(frames * 8, batch=batch)[:, None]
        codes = encoder.run({"audio": audio})["codes"]
        assert codes.shape == (batch, 5, frames)
        assert codes.dtype == np.int64
        made = decoder.run({"codes": codes})["audio"]
        assert made.shape == (batch, 1, frames * 8)
        for item in range(batch):
            alone = encoder.run({"audio": audio[item : item + 1]})["codes"]
            np.testing.assert_array_equal(alone[0], codes[item])
            alone = decoder.run({"codes": codes[item : item + 1]})["audio"]
            np.testing.assert_allclose(alone[0], made[item], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_entries_that_point_the_same_way_are_settled_as_the_original_does(tmp_path):
    """Row 7 is row 3 doubled. Quantised again it is row 3, and so the graph decodes it."""
    rows = lac.state(lac.TINY)["quantizer.quantizers.1.codebook.weight"]
    rows[7] = 2 * rows[3]
    path = lac.save(tmp_path / "a.pth", lac.TINY, tensors={"quantizer.quantizers.1.codebook.weight": rows})
    codec = codecs.load_codec(path, "torch")
    found = codec_export.settled(codec)
    assert found[1, 7] == 3
    assert (np.flatnonzero((found != np.arange(48)).any(axis=1)) == [1]).all()
    graph = Session(codec_export.export_decoder(codec, tmp_path / "decoder.onnx"))
    codes = np.random.default_rng(0).integers(0, 48, (5, 20)).astype(np.int32)
    codes[1, 10] = 7
    settled = codes.copy()
    settled[1, codes[1] == 7] = 3
    facts = (48, codec.info.frame_rate, codec.info.name)
    made = graph.run({"codes": codes[None].astype(np.int64)})["audio"][0]
    np.testing.assert_allclose(made, codec.decode(Codes(settled, *facts)).samples, rtol=0, atol=1e-5)
    assert np.abs(made - codec.decode(Codes(codes, *facts)).samples).max() > 1e-3


def test_standard_operators_only(folders):
    for name in ("encoder", "decoder"):
        model = onnx.load(folders["big"] / f"{name}.onnx", load_external_data=False)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
        assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}


def test_only_lac_and_dac_from_torch_are_exported(tmp_path):
    with pytest.raises(OptionError, match="only LAC and DAC loaded with ops='torch'"):
        codec_export.export_codec(codecs.load_codec(FIXTURES / "small" / "codec.pth"), tmp_path)
    with pytest.raises(OptionError, match="demo: only LAC and DAC"):
        codec_export.export_codec(codecs.load_codec("demo", "torch"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_dac_with_odd_strides_and_codebooks_of_different_widths(tmp_path):
    rates = {"encoder_rates": [2, 5], "decoder_rates": [5, 2], "latent_dim": 12}
    kwargs = lac.TINY | rates | {"codebook_dim": [4, 2, 3, 4, 1]}
    codec = codecs.load_codec(lac.save(tmp_path / "dac.pth", kwargs, "dac"), "torch")
    codec_export.export_codec(codec, tmp_path)
    ours, clip = OnnxCodec.load(tmp_path), Audio(noise(333), 16000)
    codes = ours.encode(clip)
    np.testing.assert_array_equal(codes.values, codec.encode(clip).values)
    np.testing.assert_allclose(ours.decode(codes).samples, codec.decode(codes).samples, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused(folders, tmp_path):
    codec = OnnxCodec.load(folders["small"])
    with pytest.raises(AudioMismatch, match=r"audio.resample\(16000\)"):
        codec.encode(Audio(noise(100), 44100))
    with pytest.raises(ModelError, match="do not show their codebooks"):
        codec.codebook_vectors()
    with pytest.raises(ManifestError, match=r"encoder\.onnx: no such file"):
        OnnxCodec.load(tmp_path)
    with pytest.raises(ManifestError, match="export both together"):
        OnnxCodec(
            Session(folders["small"] / "encoder.onnx"),
            Session(folders["big"] / "decoder.onnx"),
        )


@pytest.mark.parametrize(
    "facts",
    [
        None,
        "no json",
        "[]",
        {"reach": [1]},
        {"reach": [-1, 2]},
        {"hop_length": 0},
        {"sample_rate": "fast"},
        {"surplus": 1},
    ],
)
def test_a_graph_that_does_not_say_what_it_is(folders, tmp_path, facts):
    shutil.copytree(folders["small"], tmp_path / "a")
    path = tmp_path / "a" / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    (entry,) = [entry for entry in model.metadata_props if entry.key == FACTS]
    if isinstance(facts, dict):
        entry.value = json.dumps(json.loads(entry.value) | facts)
    elif facts is None:
        model.metadata_props.remove(entry)
    else:
        entry.value = facts
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ManifestError, match=r"encoder\.onnx: "):
        OnnxCodec.load(tmp_path / "a")
