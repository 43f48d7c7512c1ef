"""Codecs of core as graphs, written without torch: the codes and the sound of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs
from audiogen_core.compose import compose
from audiogen_core.errors import ModelError, OptionError
from audiogen_onnx.exporter import codec_graph
from audiogen_onnx.session import Session

FIXTURES = Path(__file__).parents[1] / "fixtures"
CODECS = {
    "demo": "demo",
    "encodec 32 kHz": FIXTURES / "encodec" / "32k",
    "24 kHz": FIXTURES / "encodec" / "24k",
}


@pytest.fixture(scope="module", params=CODECS)
def both(request, tmp_path_factory):
    codec = codecs.load_codec(CODECS[request.param])
    folder = tmp_path_factory.mktemp("graphs")
    return codec, {name: Session(path, threads=1) for name, path in codec_graph.write(codec, folder).items()}


@pytest.mark.parametrize("frames", [codec_graph.LEAST, 40, 151])
def test_sound_is_that_of_numpy(both, frames):
    codec, graphs = both
    info, rng = codec.info, np.random.default_rng(frames)
    codes = rng.integers(0, info.codebook_size, (2, info.codebooks, frames))
    made = graphs["decoder"].run({"codes": codes})["audio"]
    assert made.shape == (2, 1, frames * info.hop_length)
    for one, sound in zip(codes, made, strict=True):
        wanted = np.concatenate(list(codec.decode_blocks([one])), axis=1)
        np.testing.assert_allclose(sound, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))


def test_a_codebook_below_zero_adds_nothing(both):
    codec, graphs = both
    codes = np.random.default_rng(0).integers(0, codec.info.codebook_size, (1, codec.info.codebooks, 20))
    codes[:, 2:] = -1
    made = graphs["decoder"].run({"codes": codes})["audio"][0]
    wanted = np.concatenate(list(codec.decode_blocks([codes[0, :2]])), axis=1)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))


def test_codes_are_those_of_numpy(both):
    codec, graphs = both
    frames = 100
    clip = compose(3, seconds=4).audio.mix(1).resample(codec.info.sample_rate)
    samples = clip.samples[:, : frames * codec.info.hop_length]
    wanted = np.concatenate(list(codec.encode_blocks([samples])), axis=1)
    made = graphs["encoder"].run({"audio": samples[None]})["codes"][0]
    assert made.shape == wanted.shape
    assert (made[0] == wanted[0]).all()
    assert (made == wanted).mean() > 0.995  # finer codebooks lie nearer to one another than rounding


def test_other_codecs_are_refused(tmp_path):
    with pytest.raises(OptionError, match="only EnCodec of one channel"):
        codec_graph.write(codecs.load_codec(FIXTURES / "encodec" / "48k"), tmp_path)


def test_a_graph_that_sounds_otherwise_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(codec_graph, "_gates", lambda values: values)
    with pytest.raises(ModelError, match="from what numpy computes"):
        codec_graph.write(codecs.load_codec(FIXTURES / "encodec" / "32k"), tmp_path)
