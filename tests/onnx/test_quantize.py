"""Smaller folders: how small, how near, and what is refused; and what `verify` says of them."""

from __future__ import annotations

import numpy as np
import pytest

import onnx
from audiogen_core.errors import ManifestError, ModelError, OptionError, WeightsError
from audiogen_onnx.exporter.export import quantize
from audiogen_onnx.manifest import Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.verify import verify
from support.exported import exported, exported_copy

NEAR = {"float16": 2e-3, "int8": 3e-2, "int4": 0.2}
AGREE = {"float16": 0.99, "int8": 0.95, "int4": 0.8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("quantised")
    for dtype in NEAR:
        quantize(exported(), place / dtype, dtype)
    return place


@pytest.mark.parametrize("dtype", NEAR)
def test_smaller_and_near(folders, dtype):
    rows = {row.graph: row for row in verify(folders / dtype, exported())}
    plain = {row.graph: row for row in verify(exported(), exported())}
    assert set(rows) == {"encoder", "decoder", "coarse", "fine", "coarse_step", "fine_step"}
    for name in ("coarse", "fine"):
        assert plain[name].relative_error == 0 and plain[name].top1 == 1
        assert 0 < rows[name].relative_error < NEAR[dtype]
        assert rows[name].top1 >= AGREE[dtype]
        assert rows[name].size < plain[name].size
    assert rows["encoder"].top1 == 1 and rows["encoder"].relative_error is None
    assert rows["decoder"].relative_error < 1e-2 and rows["decoder"].top1 is None
    manifest = Manifest.load(folders / dtype, verify=True)
    assert manifest.dtype == dtype
    assert manifest.created_from == Manifest.load(exported()).created_from
    assert sorted(path.name for path in (folders / dtype).iterdir()) == sorted(
        [*manifest.files, "manifest.json"]
    )


@pytest.mark.parametrize("dtype", NEAR)
def test_only_standard_operators(folders, dtype):
    for path in (folders / dtype).glob("*.onnx"):
        proto = onnx.load(path, load_external_data=False)
        assert {entry.domain for entry in proto.opset_import} <= {"", "audiogen.vampnet"}


def test_int4_keeps_the_classifier_at_8_bits(folders):
    proto = onnx.load(folders / "int4" / "coarse.onnx", load_external_data=False)
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert types["classifier.weight.int8"] == onnx.TensorProto.INT8
    assert types["layers.0.attention.query.weight.int4"] == onnx.TensorProto.UINT4


def test_int4_values_lie_within_half_a_step(folders):
    folder = folders / "int4"
    weight = _tensors(exported() / "coarse.onnx")["layers.1.feed_forward.down.weight"]
    stored = _tensors(folder / "coarse.onnx")
    name = "layers.1.feed_forward.down.weight"
    whole, zero = (stored[f"{name}.{part}"].astype(np.float32) for part in ("int4", "zero"))
    scale = stored[f"{name}.scale"]
    back = (whole.reshape(-1, 32, weight.shape[1]) - zero[:, None]) * scale[:, None]
    steps = np.abs(back.reshape(weight.shape) - weight) / np.repeat(scale, 32, axis=0)
    assert steps.max() <= 1.0  # half a step, and half of one more where the zero point was rounded


def test_refusals(folders, tmp_path):
    with pytest.raises(OptionError, match="is int8 already"):
        quantize(folders / "int8", tmp_path / "out", "int4")
    with pytest.raises(OptionError, match="dtype must be one of float16, int8, int4; got 'float32'"):
        quantize(exported(), tmp_path / "out", "float32")
    with pytest.raises(ManifestError, match=r"holds no manifest.json"):
        quantize(tmp_path, tmp_path / "out", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_is_not_quantised(tmp_path):
    folder = exported_copy(tmp_path)
    data = bytearray((folder / "coarse.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "coarse.onnx.data").write_bytes(data)
    for refused in (lambda: quantize(folder, tmp_path / "out", "int8"), lambda: verify(folder)):
        with pytest.raises(ManifestError, match=r"coarse.onnx.data: its content is not"):
            refused()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_numbers_that_float16_cannot_hold(tmp_path):
    folder = exported_copy(tmp_path)
    _overwrite(folder, "coarse.onnx", np.float32(1e6))
    with pytest.raises(WeightsError, match="too large for float16"):
        quantize(folder, tmp_path / "out", "float16")


def test_verify_finds_numbers_that_are_not_finite(tmp_path):
    folder = exported_copy(tmp_path)
    _overwrite(folder, "fine.onnx", np.float32(np.nan))
    with pytest.raises(ModelError, match=r"fine.onnx: gives numbers that are not finite"):
        verify(folder)


def test_verify_compares_only_folders_of_one_model(folders, tmp_path):
    other = exported_copy(tmp_path)
    manifest = Manifest.load(other)
    object.__setattr__(manifest, "created_from", {"coarse.pth": "0" * 64})
    manifest.save(other)
    with pytest.raises(ManifestError, match="is not the model of"):
        verify(folders / "int8", other)


def test_quantised_steps_draw_from_quantised_logits(folders):
    session = Session(folders / "int8" / "coarse_step.onnx")
    assert set(session.outputs) == {"next_codes", "drawn_codes", "confidence"}


def _tensors(path):
    proto = onnx.load(path)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _overwrite(folder, name, value):
    """Put a number at the start of a graph's data, and describe the files anew."""
    path, facts = folder / f"{name}.data", Manifest.load(folder)
    proto = onnx.load(folder / name, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == "layers.0.attention.query.weight")
    offset = int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = value.tobytes()
    path.write_bytes(data)
    graphs = {key: _again(folder, key, graph) for key, graph in facts.graphs.items()}
    object.__setattr__(facts, "graphs", graphs)
    facts.save(folder)


def _again(folder, name, graph):
    network = None if graph.data is None else folder / graph.data.file.removesuffix(".data")
    return type(graph).of(folder / graph.graph.file, network)
