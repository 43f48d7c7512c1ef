"""VampNet at full size, random weights: as torch at every length, and never NaN however large the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiogen_onnx.session import Session
from audiogen_onnx.vampnet import graph, model, weights
from audiogen_onnx.vampnet.compare import random_codes
from audiogen_onnx.vampnet.quantize import quantize_network
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
    graph.write(found, model.build(found).distance_table().numpy(), path)
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


def nans(tmp_path, settings, per_scale):
    """How many of ten times `per_scale` inputs, with latents from 1 to 100 times their size, end in NaN."""
    bad, vectors = dict.fromkeys(("float32", "int8"), 0), vectors_of(settings)
    found = checkpoint(tmp_path, settings, vectors)
    tables = found.tensors["embedding.tables"]
    for index, scale in enumerate(SCALES):
        found.tensors["embedding.tables"] = (tables * scale).astype(np.float32)
        plain = write(found, tmp_path / f"float32-{index}" / "net.onnx")
        smaller = tmp_path / f"int8-{index}" / "net.onnx"
        smaller.parent.mkdir()
        quantize_network(plain, smaller, "int8")
        for dtype, path in (("float32", plain), ("int8", smaller)):
            session = Session(path)
            for seed in range(per_scale):
                codes = random_codes(settings["n_codebooks"], settings["vocab_size"], 1, 1 + seed % 9, seed)
                made = session.run({"codes": codes})["logits"]
                bad[dtype] += not np.isfinite(made).all()
            del session
            path.with_name("net.onnx.data").unlink()
    return bad


def test_no_nan_in_a_narrow_fine_model(tmp_path):
    narrow = {**FULL_FINE, "embedding_dim": 64, "n_heads": 4, "vocab_size": 64}
    assert nans(tmp_path, narrow, 100) == {"float32": 0, "int8": 0}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_nan_in_the_full_size_fine_model(tmp_path):
    assert nans(tmp_path, FULL_FINE, 100) == {"float32": 0, "int8": 0}
