"""VampNet's codec at full size with random weights: exported, and equal to torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio, codecs
from audiogen_onnx.codec import OnnxCodec
from audiogen_onnx.session import Session
from support import lac

pytestmark = pytest.mark.slow

EXPORT = """
import sys
from audiogen_core import codecs
from audiogen_core.progress import peak_memory
from audiogen_onnx.exporter.codec import export_codec
export_codec(codecs.load_codec(sys.argv[1], "torch"), sys.argv[2])
print(peak_memory())
"""
SIZES = {"encoder.onnx.data": 92e6, "decoder.onnx.data": 511e6}
"""Bytes of the weights: 22.9 and 127.6 million numbers."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The checkpoint and its graphs, made in a process of their own, which says what memory it took."""
    folder = tmp_path_factory.mktemp("full")
    path = lac.save(folder / "codec.pth", lac.FULL)
    job = [sys.executable, "-c", EXPORT, str(path), str(folder)]
    done = subprocess.run(job, capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout.splitlines()[-1])
    print(f"export of the codec: peak memory {peak / 2**30:.2f} GiB")
    assert peak < 4 * 2**30
    return folder


def test_sizes_are_those_of_the_weights(place):
    for name, size in SIZES.items():
        assert (place / name).stat().st_size == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("frames", [1, 7, 100, 173])
def test_graphs_equal_torch(place, frames):
    codec = codecs.load_codec(place / "codec.pth", "torch")
    clip = np.random.default_rng(frames).standard_normal((1, frames * 768)).astype(np.float32) * 0.3
    codes = Session(place / "encoder.onnx").run({"audio": clip[None]})["codes"]
    expected = np.concatenate(list(codec.encode_blocks([clip])), axis=1)
    np.testing.assert_array_equal(codes[0], expected)
    audio = Session(place / "decoder.onnx").run({"codes": codes})["audio"]
    whole = np.concatenate(list(codec.decode_blocks([expected])), axis=1)
    np.testing.assert_allclose(audio[0], whole, rtol=0, atol=1e-4)


def test_codes_equal_torch_at_ten_lengths_that_are_no_whole_frames(place):
    ours, codec = OnnxCodec.load(place), codecs.load_codec(place / "codec.pth", "torch")
    for samples in (1, 100, 767, 769, 3000, 7679, 12345, 20001, 33333, 44100):
        clip = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32) * 0.3
        codes = ours.encode(Audio(clip, 44100)).values
        assert codes.shape == (14, -(-samples // 768))
        np.testing.assert_array_equal(codes, codec.encode(Audio(clip, 44100)).values)
