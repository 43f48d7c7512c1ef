"""What the reader of ONNX files finds, and what it refuses before onnxruntime sees it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx
from audiogen_core.errors import ManifestError
from audiogen_onnx.graph_file import check_external_data, external_data
from onnx import TensorProto, helper
from support.figures import tell


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
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "graph.onnx"
    path.write_bytes(data)
    try:
        found = external_data(path)
    except ManifestError:
        return
    assert all(isinstance(entry.size, int) for entry in found)


def varint(value: int, size: int = 0) -> bytes:
    """A number in groups of seven bits, in at least `size` bytes."""
    out = b""
    while value > 127 or len(out) + 1 < size:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, body: bytes, tag: bytes = b"", length: bytes = b"") -> bytes:
    return (tag or varint(number << 3 | 2)) + (length or varint(len(body))) + body


def test_graphs_within_graphs_without_end_are_refused(tmp_path):
    body = b""
    for _ in range(40):
        body = field(1, field(5, field(6, body)))  # a node's attribute is a graph with a node ...
    path = tmp_path / "graph.onnx"
    path.write_bytes(field(7, body))
    with pytest.raises(ManifestError, match="without end"):
        external_data(path)


ENTRY = {1: b"location", 2: b"../secret.bin"}
PATHS = {
    "initializer": (7, 5, 13),
    "constant": (7, 1, 5, 5, 13),
    "list of tensors": (7, 1, 5, 10, 13),
    "inner graph": (7, 1, 5, 6, 5, 13),
    "list of graphs": (7, 1, 5, 11, 5, 13),
    "sparse initializer": (7, 15, 1, 13),
    "indices of a sparse initializer": (7, 15, 2, 13),
    "sparse constant": (7, 1, 5, 22, 1, 13),
    "list of sparse constants": (7, 1, 5, 23, 2, 13),
    "function": (25, 7, 5, 5, 13),
    "default of a function": (25, 11, 5, 13),
    "training": (20, 1, 5, 13),
    "training step": (20, 2, 5, 13),
}
"""Where a tensor can stand: the fields that lead to an entry of its external data."""


def wide(number: int) -> list[bytes]:
    """A field's tag as no writer makes it, and as readers of 32 bits may take it."""
    tag = number << 3 | 2
    more = [varint(tag | bits << 32) for bits in (1, 8, 1 << 20, (1 << 31) - 1)]
    longer = [varint(tag, size) for size in range(len(varint(tag)) + 1, 11)]
    return more + longer


def inside(path: tuple[int, ...], body: bytes, at: int, tag: bytes = b"", length: bool = False) -> bytes:
    """A body within fields; the one at place `at` has another tag, or a length in too many bytes."""
    for index, number in reversed(list(enumerate(path))):
        here = index == at
        body = field(number, body, tag if here else b"", varint(len(body), 9) if here and length else b"")
    return body if path[0] == 7 else body + field(7, b"")


@pytest.mark.parametrize("place", PATHS)
def test_a_file_outside_is_found_wherever_a_tensor_can_stand(tmp_path, place):
    path = tmp_path / "graph.onnx"
    entry = b"".join(field(number, text) for number, text in ENTRY.items())
    path.write_bytes(inside(PATHS[place], entry, -1))
    with pytest.raises(ManifestError, match="does not lie in the same folder"):
        check_external_data(path)


def test_tags_and_lengths_in_more_bytes_than_needed_are_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    entry = b"".join(field(number, text) for number, text in ENTRY.items())
    lies = []
    for way in PATHS.values():
        lies += [inside(way, entry, at, length=True) for at in range(len(way))]
        for at, number in enumerate(way):
            lies += [inside(way, entry, at, tag) for tag in wide(number)]
        for number in ENTRY:
            lies += [inside(way, entry + field(number, b"plain.data", tag), -1) for tag in wide(number)]
    for lie in lies:
        path.write_bytes(lie)
        with pytest.raises(ManifestError, match="not a whole ONNX graph"):
            check_external_data(path)
    tell(
        "ONNX graphs",
        f"tags and lengths in more bytes than needed, on the ways to {len(PATHS)} places of a tensor",
        len(lies),
        "all refused",
        promised="no file outside the folder is named unseen",
    )


HONEST = field(1, b"location") + field(2, b"weights.data")


@pytest.mark.parametrize(
    "twice",
    [
        field(7, b"") + field(7, b""),
        inside((7, 1, 5), field(5, field(13, HONEST)) * 2, -1),
        inside((7, 1, 5), field(6, b"") * 2, -1),
        inside((7, 1, 5, 22), field(1, b"") * 2, -1),
        inside((7, 5), field(13, HONEST) * 2, -1),
        inside((7, 5), field(13, HONEST) + field(13, field(1, b"location") + field(2, b"other.data")), -1),
        inside((7, 5, 13), HONEST + field(2, b"other.data"), -1),
        inside((7, 5, 13), field(1, b"basepath") + field(2, b"/"), -1),
        inside((7, 5), field(9, b"1234") * 2 + field(13, HONEST), -1),
        inside((7, 5), varint(14 << 3) + b"\1" + varint(14 << 3) + b"\0", -1),
        inside((7, 1), field(4, b"Add") * 2, -1),
        field(2, b"a") * 2 + field(7, b""),
    ],
)
def test_what_may_stand_once_and_stands_twice_is_refused(tmp_path, twice):
    path = tmp_path / "graph.onnx"
    path.write_bytes(twice)
    (tmp_path / "weights.data").write_bytes(b"")
    with pytest.raises(ManifestError, match="not a whole ONNX graph"):
        check_external_data(path)


@pytest.mark.parametrize(
    "odd",
    [
        b"\x3b" + field(5, field(13, HONEST)) + b"\x3c",  # a group
        b"\x3e\0",
        b"\x3f\0",
        b"\x38\1",  # the graph as a number
        b"\x39" + bytes(8),
        b"\x3d" + bytes(4),
        b"\x02\0",  # field 0
        b"\x08" + b"\xff" * 9 + b"\x7f",  # more than 64 bits
        b"\x08\x80\0",
    ],
)
def test_fields_of_other_kinds_are_refused(tmp_path, odd):
    path = tmp_path / "graph.onnx"
    path.write_bytes(odd + field(7, b""))
    with pytest.raises(ManifestError, match="not a whole ONNX graph"):
        check_external_data(path)


def test_programs_of_other_makers_in_other_files_are_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(inside((7, 1), field(4, b"EPContext"), -1))
    with pytest.raises(ManifestError, match="EPContext"):
        check_external_data(path)


def locations(message) -> set[str]:
    """What the onnx package finds: every location, wherever in a message."""
    found = set()
    for described, value in message.ListFields():
        if described.name == "external_data":
            found |= {entry.value for entry in value if entry.key == "location"}
        elif described.message_type is not None:
            for each in value if isinstance(value, Sequence) or not hasattr(value, "ListFields") else [value]:
                found |= locations(each)
    return found


def compare(path, count: int, seed: int) -> tuple[int, int]:
    """Damage a graph at random; whatever passes names what the onnx package sees. Returns passed, refused."""
    rng = np.random.default_rng(seed)
    whole = path.read_bytes()
    counts = [0, 0]
    for _ in range(count):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(damaged), int(rng.integers(1, 4))):
            at, kind = min(at, len(damaged) - 1), rng.integers(4)
            if kind == 0:
                damaged[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                damaged[at : at + 1] = bytes([damaged[at] | 128, int(rng.integers(0, 32))])
            elif kind == 2:
                damaged[at:at] = rng.bytes(int(rng.integers(1, 5)))
            else:
                del damaged[at]
        path.write_bytes(damaged)
        try:
            seen = {data.name for data in external_data(path)} - {""}
        except ManifestError:
            counts[1] += 1
            continue
        counts[0] += 1
        try:
            read = onnx.ModelProto.FromString(bytes(damaged))
        except DecodeError:
            continue
        assert locations(read) - {""} == seen, bytes(damaged).hex()
    return counts[0], counts[1]


@pytest.mark.parametrize("nested", [False, True])
def test_damage_never_hides_a_file(tmp_path, nested):
    passed, refused = compare(write_graph(tmp_path, nested=nested), 2000, 1)
    assert passed > 100
    assert refused > 100
    tell(
        "ONNX graphs",
        f"graphs damaged at random, a tensor {'inside a node' if nested else 'beside the nodes'}",
        passed + refused,
        f"{refused} refused; of {passed} the same files were named as by the onnx package",
        promised="no file outside the folder is named unseen",
    )
