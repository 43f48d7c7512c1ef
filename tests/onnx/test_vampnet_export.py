"""Exporting: whole folders or none, wrong checkpoints refused, and graphs that are readable."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import onnx
from audiogen_core.errors import MissingDependency, ModelError, OptionError
from audiogen_onnx.exporter import compare, functions, model, network, weights
from audiogen_onnx.exporter import export as exporting
from audiogen_onnx.exporter.export import export
from audiogen_onnx.manifest import Manifest, sha256
from audiogen_onnx.session import Session
from support.exported import exported
from support.vampnet_numpy import FIXTURES

SMALL = FIXTURES / "small"


def checkpoints(tmp_path, **files):
    """A copy of the small checkpoints with some files in the place of others."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("codec", "coarse", "c2f"):
        shutil.copyfile(SMALL / f"{files.get(name, name)}.pth", folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def vectors():
    return weights.load_codec(SMALL / "codec.pth", "numpy").codebook_vectors()


def written(folder, name, vectors, lora=None):
    """A network in torch, and its graph."""
    checkpoint = weights.load(SMALL / f"{name}.pth", vectors, lora)
    net, path = model.build(checkpoint), folder / f"{name}.onnx"
    network.write(checkpoint, net.distance_table().numpy(), path)
    return net, path


def test_the_folder_describes_itself():
    manifest = Manifest.load(exported(), verify=True)
    assert manifest.created_from["coarse.pth"] == sha256(SMALL / "coarse.pth")
    assert (manifest.codec.hop_length, manifest.codec.codebooks) == (8, 5)
    assert (manifest.coarse.codebooks, manifest.fine.conditioning_codebooks) == (2, 2)
    assert sorted(path.name for path in exported().iterdir() if path.name not in manifest.files) == [
        "manifest.json"
    ]


@pytest.mark.parametrize("name", ["coarse", "c2f"])
def test_graphs_equal_torch_at_any_length_and_batch(tmp_path, vectors, name):
    net, path = written(tmp_path, name, vectors)
    cases = ((1, 1), (2, 1), (1, 2), (3, 7), (2, 100), (1, 173), (1, 300))
    assert compare.compare_network(net, path, cases) < 1e-5


def test_a_graph_that_disagrees_is_refused(tmp_path, vectors):
    net, path = written(tmp_path, "coarse", vectors)
    with torch.no_grad():
        net.norm.weight[3] += 0.01
    with pytest.raises(
        ModelError, match=r"coarse.onnx at 1 frames: differs from torch by .*nothing was written"
    ):
        compare.compare_network(net, path)


def test_graphs_hold_standard_operators_and_named_parts(tmp_path, vectors):
    _, path = written(tmp_path, "coarse", vectors)
    proto = onnx.load(path)
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    own = {function.name for function in proto.functions}
    assert {"RMSNorm", "FiLM", "CodebookEmbedding", "RelativeAttention", "PositionBias"} <= own
    for node in proto.graph.node:
        assert (node.op_type in own and node.domain == functions.DOMAIN) or node.op_type in known
    for function in proto.functions:
        assert {node.op_type for node in function.node} <= known
    assert {entry.domain for entry in proto.opset_import} == {"", functions.DOMAIN}
    assert "layers.1.attention.query" in {node.name for node in proto.graph.node}


def test_position_bias_reaches_every_layer(tmp_path, vectors):
    _, path = written(tmp_path, "c2f", vectors)
    attentions = [node for node in onnx.load(path).graph.node if node.op_type == "RelativeAttention"]
    assert [node.input[3] for node in attentions] == ["bias"] * 3


def test_a_low_rank_update_is_merged(tmp_path, vectors):
    _, path = written(tmp_path, "coarse", vectors, lora=SMALL / "coarse_lora.pth")
    arrays = np.load(FIXTURES / "small_transformer.npz")
    made = Session(path).run({"codes": arrays["lora_codes"]})["logits"]
    flat = made.transpose(0, 3, 2, 1).reshape(arrays["lora_logits"].shape)
    np.testing.assert_allclose(flat, arrays["lora_logits"], rtol=0, atol=1e-4)
    sources = exporting.Sources.of(SMALL, coarse_lora=SMALL / "coarse_lora.pth")
    assert sources.hashes()["coarse lora"] == sha256(SMALL / "coarse_lora.pth")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"c2f": "coarse"}, r"makes all its codebooks, so it is a coarse model, but c2f.pth belongs here"),
        ({"coarse": "c2f"}, "so it is a fine model"),
        ({"codec": "coarse"}, "is no codec"),
        ({"coarse": "codec"}, "is a codec"),
    ],
)
def test_files_in_the_wrong_place_leave_nothing_behind(tmp_path, monkeypatch, files, message):
    monkeypatch.setattr(exporting, "_codec_graphs", lambda *_: {})  # slow, and checked elsewhere
    with pytest.raises(ModelError, match=message):
        export(checkpoints(tmp_path, **files), tmp_path / "out", check=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


def test_networks_that_do_not_belong_together(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_codec_graphs", lambda *_: {})
    folder = checkpoints(tmp_path)
    tree = torch.load(folder / "c2f.pth", weights_only=True)
    tree["metadata"]["kwargs"]["n_conditioning_codebooks"] = 1
    state = tree["state_dict"]
    for part in ("bias", "weight_g", "weight_v"):
        name = f"classifier.layers.0.{part}"
        state[name] = torch.cat([state[name], state[name][:48]])
    torch.save(tree, folder / "c2f.pth")
    with pytest.raises(ModelError, match="is given 1 codebooks, but the coarse model makes 2"):
        export(folder, tmp_path / "out", check=False)


def test_folders_and_options_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"lacks codec.pth, coarse.pth, c2f.pth"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(OptionError, match="dtype must be one of float32, float16, int8, int4; got 'int2'"):
        export(SMALL, tmp_path / "out", dtype="int2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="exists already and is not an empty folder"):
        export(SMALL, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingDependency, match=r"onnxscript is not installed.*audiogen-onnx\[export\]"):
        export(SMALL, tmp_path / "new")
