"""What the reader of ONNX files finds, and what it refuses before onnxruntime sees it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx
from audiogen_core.errors import ManifestError
from audiogen_onnx.graph_file import check_external_data, external_data
from onnx import TensorProto, helper


def write_graph(folder, location="weights.data", *, offset=0, length=64, nested=False):
    """A graph that adds 16 stored numbers, kept in a file of that name."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        weight.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [16]) for name in "xy")
    if nested:
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        graph = helper.make_graph([constant, helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y])
    else:
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path = folder / "graph.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    )
    (folder / "weights.data").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_files_are_found_wherever_a_tensor_stands(tmp_path, nested):
    path = write_graph(tmp_path, offset=8, length=56, nested=nested)
    assert [(data.name, data.size) for data in external_data(path)] == [("weights.data", 64)]
    check_external_data(path)


def test_files_are_found_in_functions_and_inner_graphs(tmp_path):
    path = write_graph(tmp_path, nested=True)
    model = onnx.load(path, load_external_data=False)
    constant = model.graph.node[0]
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    part = helper.make_function("own", "Part", ["c"], ["z"], [branch], [helper.make_opsetid("", 20)])
    model.functions.append(part)
    del model.graph.node[0]
    path.write_bytes(model.SerializeToString())
    assert [data.name for data in external_data(path)] == ["weights.data"]


@pytest.mark.parametrize(
    "location",
    ["../weights.data", "/etc/passwd", "sub/weights.data", "..", "", "sub\\weights.data", "C:weights.data"],
)
def test_files_elsewhere_are_refused(tmp_path, location):
    path = write_graph(tmp_path, location)
    with pytest.raises(ManifestError, match="does not lie in the same folder"):
        check_external_data(path)


def test_missing_short_and_linked_data_is_refused(tmp_path):
    path = write_graph(tmp_path)
    data = tmp_path / "weights.data"
    data.write_bytes(b"\0" * 63)
    with pytest.raises(ManifestError, match=r"has 63 bytes, but graph.onnx needs 64"):
        check_external_data(path)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="no such file"):
        check_external_data(path)
    if os.name != "nt":
        data.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ManifestError, match="is a link"):
            check_external_data(path)


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "²"])
def test_sizes_must_be_numbers(tmp_path, length):
    path = write_graph(tmp_path, length=length)
    with pytest.raises(ManifestError, match="is no number of bytes"):
        check_external_data(path)


def test_a_graph_cut_off_anywhere_is_refused_or_lacks_only_what_follows_the_graph(tmp_path):
    path = write_graph(tmp_path)
    whole = path.read_bytes()
    ends = len(whole) - len(onnx.ModelProto(opset_import=[helper.make_opsetid("", 20)]).SerializeToString())
    for size in range(ends):
        path.write_bytes(whole[:size])
        with pytest.raises(ManifestError):
            check_external_data(path)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "graph.onnx"
    path.write_bytes(data)
    try:
        found = external_data(path)
    except ManifestError:
        return
    assert all(isinstance(entry.size, int) for entry in found)


def test_graphs_within_graphs_without_end_are_refused(tmp_path):
    def field(number: int, body: bytes) -> bytes:
        size, out = len(body), bytes([number << 3 | 2])
        while size > 127:
            out, size = out + bytes([size & 127 | 128]), size >> 7
        return out + bytes([size]) + body

    body = b""
    for _ in range(40):
        body = field(1, field(5, field(6, body)))  # a node's attribute is a graph with a node ...
    path = tmp_path / "graph.onnx"
    path.write_bytes(field(7, body))
    with pytest.raises(ManifestError, match="without end"):
        external_data(path)
