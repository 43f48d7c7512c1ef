"""Sessions: named arrays in and out, and errors of one sentence."""

from __future__ import annotations

import numpy as np
import pytest

import onnx
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_onnx import session
from audiogen_onnx.session import Session
from onnx import TensorProto, helper


def write(path, kind="Add", sizes=("n", 2), **attributes):
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sizes)) for name in "xyz"]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "y"], ["z"], **attributes)], "g", info[:2], info[2:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = "who", "me"
    path.write_bytes(model.SerializeToString())
    return path


def test_runs_by_name(tmp_path):
    session = Session(write(tmp_path / "add.onnx"), threads=1)
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    made = session.run({"y": x, "x": x})
    np.testing.assert_array_equal(made["z"], 2 * x)
    assert list(made) == ["z"]
    assert session.shapes["z"] == ["n", 2]
    assert session.metadata == {"who": "me"}


def test_scalars_stay_scalars(tmp_path):
    session = Session(write(tmp_path / "add.onnx", sizes=()))
    assert session.run({"x": np.float32(1), "y": np.float32(2)})["z"].shape == ()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((1, 2), np.float32)}, "takes x, y, got x"),
        ({}, "got nothing"),
        ({"x": np.zeros((1, 3), np.float32), "y": np.zeros((1, 2), np.float32)}, "cannot take these inputs"),
        ({"x": np.zeros((1, 2)), "y": np.zeros((1, 2))}, "cannot take these inputs"),
    ],
)
def test_wrong_inputs_are_named(tmp_path, inputs, message):
    session = Session(write(tmp_path / "add.onnx"))
    with pytest.raises(OptionError, match=message):
        session.run(inputs)


def test_a_failure_inside_is_the_models(tmp_path):
    path = write(tmp_path / "reshape.onnx", "Add", sizes=("n",))
    session = Session(path)
    with pytest.raises((ModelError, OptionError), match=r"reshape.onnx"):
        session.run({"x": np.zeros(3, np.float32), "y": np.zeros(4, np.float32)})


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        Session(tmp_path / "none.onnx")
    path = tmp_path / "text.onnx"
    path.write_bytes(b"")
    with pytest.raises(ManifestError, match="empty"):
        Session(path)
    path.write_text("not a graph, only words")
    with pytest.raises(ManifestError, match="not a whole ONNX graph"):
        Session(path)
    write(path, "NoSuchOperator")
    with pytest.raises(ManifestError, match="onnxruntime cannot open this graph"):
        Session(path)


def test_options_out_of_range(tmp_path):
    path = write(tmp_path / "add.onnx")
    with pytest.raises(OptionError, match="threads must be 1 or more, and at most 1024, got 0"):
        Session(path, threads=0)
    with pytest.raises(OptionError, match=r"NoSuchProvider.*CPUExecutionProvider"):
        Session(path, providers=["NoSuchProvider"])
    with pytest.raises(OptionError):
        Session(path, providers=[])


def with_data(folder, location="weights.data"):
    """x + y + weights, the weights in a file beside the graph."""
    path = write(folder / "add.onnx", sizes=(4,))
    model = onnx.load(path)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    model.graph.node[0].output[0] = "s"
    model.graph.node.append(helper.make_node("Add", ["s", "w"], ["z"]))
    path.write_bytes(model.SerializeToString())
    (folder / "weights.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return path


def summed(session):
    one = np.ones(4, np.float32)
    return session.run({"x": one, "y": one})["z"]


def test_data_beside_the_graph_is_found_from_any_folder(tmp_path, monkeypatch):
    path = with_data(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(summed(Session(path)), [2, 3, 4, 5])
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(summed(Session("add.onnx")), [2, 3, 4, 5])


def test_the_bytes_that_were_checked_are_the_bytes_that_run(tmp_path, monkeypatch):
    """A graph that is replaced after it was checked is not read again."""
    path = with_data(tmp_path)
    (tmp_path.parent / "secret.bin").write_bytes(np.full(4, 99, np.float32).tobytes())
    checked = session.check_beside

    def replaced(path, data):
        beside = checked(path, data)
        with_data(tmp_path, "../secret.bin")
        return beside

    monkeypatch.setattr(session, "check_beside", replaced)
    with pytest.raises(ManifestError, match="replaced while it was read"):
        Session(path)
    monkeypatch.setattr(session, "check_beside", lambda path, data: (checked(path, data), path.unlink())[0])
    with_data(tmp_path)
    np.testing.assert_array_equal(summed(Session(path)), [2, 3, 4, 5])


def test_data_that_is_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = with_data(tmp_path)
    opened = session._open

    def replaced(*given):
        made = opened(*given)
        (tmp_path / "other").write_bytes(bytes(16))
        (tmp_path / "other").replace(tmp_path / "weights.data")
        return made

    monkeypatch.setattr(session, "_open", replaced)
    with pytest.raises(ManifestError, match="replaced while it was read"):
        Session(path)


def test_a_graph_that_is_also_onnxruntimes_own_format_is_read_as_what_was_checked(tmp_path):
    path = write(tmp_path / "add.onnx", sizes=(4,))
    producer = b"\0\0ORTM" + bytes(20)  # what marks that format stands at byte 4
    path.write_bytes(b"\x12" + bytes([len(producer)]) + producer + path.read_bytes())
    assert path.read_bytes()[4:8] == b"ORTM"
    np.testing.assert_array_equal(summed(Session(path)), [2, 2, 2, 2])
