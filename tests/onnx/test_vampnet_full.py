"""VampNet at full size, random weights: as torch at every length, and never NaN however large the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import onnx
from audiogen_onnx.exporter import model, network, weights
from audiogen_onnx.exporter.quantize import quantize_network
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.verify import random_codes
from support.vampnet_files import FULL_COARSE, FULL_FINE, write_network

LENGTHS = (1, 7, 100, 173, 517, 575)
SCALES = np.geomspace(1, 100, 10)


def checkpoint(tmp_path, settings, vectors):
    return weights.load(write_network(tmp_path / "net.pth", settings), vectors)


def vectors_of(settings):
    shape = (14, settings["vocab_size"], settings["latent_dim"])
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def write(found, path):
    path.parent.mkdir()
    network.write(found, model.build(found).distance_table().numpy(), path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("settings", [FULL_COARSE, FULL_FINE], ids=["coarse", "fine"])
def test_full_size_equals_torch(tmp_path, settings):
    found = checkpoint(tmp_path, settings, vectors_of(settings))
    net, session = model.build(found), Session(write(found, tmp_path / "float32" / "net.onnx"))
    for frames in LENGTHS:
        for batch in (1, 2):
            codes = random_codes(settings["n_codebooks"], 1024, batch, frames)
            made = session.run({"codes": codes})["logits"]
            with torch.inference_mode():
                expected = net(torch.from_numpy(codes)).numpy()
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)
            np.testing.assert_array_equal(made.argmax(-1), expected.argmax(-1))


def scale_latents(path, factor):
    """Multiply the codec's vectors and the mask's, which lie in a graph's data file, in place."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    stored = next(tensor for tensor in tensors if tensor.name == "embedding.vectors")
    place = {entry.key: entry.value for entry in stored.external_data}
    shape = (int(place["length"]) // 4,)
    values = np.memmap(path.with_name(place["location"]), np.float32, "r+", int(place["offset"]), shape)
    values *= np.float32(factor)
    values.flush()


def nans(tmp_path, settings, per_scale):
    """How many of ten times `per_scale` inputs, with latents of 1 to 100 times their size, end in NaN."""
    found = checkpoint(tmp_path, settings, vectors_of(settings))
    plain, smaller = write(found, tmp_path / "float32" / "net.onnx"), tmp_path / "int8" / "net.onnx"
    smaller.parent.mkdir()
    quantize_network(plain, smaller, "int8")
    bad = {plain.parent.name: 0, smaller.parent.name: 0}
    for path in (plain, smaller):
        for factor in (1, *SCALES[1:] / SCALES[:-1]):
            scale_latents(path, factor)
            session = Session(path)
            for seed in range(per_scale):
                codes = random_codes(settings["n_codebooks"], settings["vocab_size"], 1, 1 + seed % 9, seed)
                bad[path.parent.name] += not np.isfinite(session.run({"codes": codes})["logits"]).all()
            del session
    return bad


def test_latents_are_scaled(tmp_path):
    narrow = {**FULL_FINE, "n_layers": 1, "embedding_dim": 64, "n_heads": 4, "vocab_size": 64}
    path = write(checkpoint(tmp_path, narrow, vectors_of(narrow)), tmp_path / "float32" / "net.onnx")
    codes = random_codes(14, 64, 1, 5)
    before = Session(path).run({"codes": codes})["logits"]
    scale_latents(path, 100)
    after = Session(path).run({"codes": codes})["logits"]
    assert np.abs(after - before).max() > 0.1


def test_no_nan_in_a_narrow_fine_model(tmp_path):
    narrow = {**FULL_FINE, "embedding_dim": 64, "n_heads": 4, "vocab_size": 64}
    assert nans(tmp_path, narrow, 100) == {"float32": 0, "int8": 0}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_nan_in_the_full_size_fine_model(tmp_path):
    assert nans(tmp_path, FULL_FINE, 100) == {"float32": 0, "int8": 0}
