"""Torch files read without torch: the same bits as torch.load, and nothing that can run."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core import weights
from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import StoredArray
from support.forge import (
    Entry,
    Raw,
    archive,
    call,
    code,
    named,
    program,
    storage,
    tensor,
    torch_entries,
    torch_file,
)
from support.wavebeat import save_checkpoint

FIXTURES = Path(__file__).parents[1] / "fixtures" / "encodec"
SIX = np.arange(6, dtype="<f4").tobytes()

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
]  # fmt: skip


def saved(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "tiny.pth"
    torch.save(value, path)
    return path


def as_numpy(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """What the reader should give: bfloat16 as float32, all else as it is."""
    value = value.detach()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()


def assert_same(path: Path, tree: dict[str, torch.Tensor]) -> None:
    found = weights.read(path)
    assert set(found) == set(tree)
    for name, value in tree.items():
        expected, read = as_numpy(value), found[name]
        assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
        assert read.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_the_original_encodec_checkpoint_bit_for_bit() -> None:
    path = FIXTURES / "24k" / "original_encodec_state_dict.th"
    tree = torch.load(path, weights_only=True)
    assert len(tree) > 100
    assert_same(path, tree)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_every_dtype_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    bits = torch.from_numpy(np.random.default_rng(3).integers(0, 255, 96, dtype=np.uint8))
    value = (bits % 2 == 0) if dtype is torch.bool else bits.view(dtype)
    if dtype is torch.bfloat16:
        value = torch.cat([value, torch.tensor([1.0, -0.0, 3.14, float("inf")], dtype=dtype)])
    assert_same(saved(tmp_path, {"a": value, "b": value[:1]}), {"a": value, "b": value[:1]})


def test_views_of_one_storage(tmp_path: Path) -> None:
    base = torch.arange(120.0).reshape(2, 3, 4, 5)
    tree = {
        "whole": base, "transposed": base.permute(3, 1, 0, 2), "part": base[1, :, 1:3, ::2],
        "scalar": base[1, 2, 3, 4], "empty": base[:, :0], "repeated": base[0, 0, 0].expand(7, 5),
        "flat": base.view(-1)[17:90:3],
        "fortran": base[0, 0].t(),
    }  # fmt: skip
    assert_same(saved(tmp_path, tree), tree)


def test_parameters_modules_and_metadata(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 5), torch.nn.LSTM(3, 4), torch.nn.BatchNorm1d(3))
    state = module.state_dict()
    assert state["2.num_batches_tracked"].shape == ()
    assert_same(saved(tmp_path, state), state)
    parameters = dict(module.named_parameters())
    assert_same(saved(tmp_path, parameters), {name: value.detach() for name, value in parameters.items()})


def test_a_package_with_settings_beside_the_weights(tmp_path: Path) -> None:
    value = {
        "state_dict": {"a.weight": torch.ones(2)},
        "metadata": {"kwargs": {"rates": [2, 4], "name": "x", "eps": 1e-5}, "blob": b"\0\xff", "none": None},
        "shape": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cuda", 0),
        "number": np.float32(2.5), "count": np.int64(-3), "flag": np.bool_(True), "set": {1},
        7: (True, -(2**62)),
    }  # fmt: skip
    tree = weights.read_checkpoint(saved(tmp_path, value))
    assert isinstance(tree["state_dict"]["a.weight"], StoredArray)
    np.testing.assert_array_equal(np.asarray(tree["state_dict"]["a.weight"]), [1, 1])
    assert tree["metadata"] == value["metadata"]
    assert {key: tree[key] for key in ("shape", "dtype", "device", "number", "count", "flag", "set", 7)} == {
        "shape": (1, 2), "dtype": "float16", "device": "cuda:0", "number": 2.5, "count": -3, "flag": True,
        "set": [1], 7: (True, -(2**62)),
    }  # fmt: skip


def test_classes_that_lightning_has_as_keys_are_read_as_texts(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "old.ckpt", {"rate": 22050}, {"a": torch.ones(2)})
    tree = weights.read_checkpoint(path)
    assert list(tree["callbacks"]) == ["ModelCheckpoint"]
    assert tree["hyper_parameters"] == {"rate": 22050}
    np.testing.assert_array_equal(weights.read(path)["a"], [1, 1])


def test_such_a_class_can_not_be_called(tmp_path: Path) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    with pytest.raises(WeightsError, match="cannot be called"):
        read_all(forged(tmp_path, torch_file(program(call(named(name), "x")), {"0": SIX})))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_of_torch(tmp_path: Path, protocol: int) -> None:
    plain = {"text": "ö" * 300, "bytes": b"x" * 300, "many": [1] * 2000, "float": -1.5e300}
    tensors = {"a": torch.arange(5), "b": {"c": torch.ones(2, 2)}}
    path = tmp_path / "tiny.pt"
    torch.save(plain | tensors, path, pickle_protocol=protocol)
    read = weights.read_checkpoint(path)
    assert {name: read[name] for name in plain} == plain
    assert_same(path, {"a": torch.arange(5), "b.c": torch.ones(2, 2)})


def test_an_audiocraft_pointer_to_another_model() -> None:
    path = FIXTURES / "32k" / "compression_state_dict.bin"
    assert weights.read_checkpoint(path)["pretrained"] == "facebook/encodec_32khz"
    assert len(weights.read(path)) == 0


def test_a_file_saved_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, {"a": torch.arange(100.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(path, {"a": torch.arange(100.0)})


def test_the_old_form_says_how_to_resave(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"before 1\.6.*torch\.save\(torch\.load\("):
        weights.read(path)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    program_of_torch = [
        *torch_entries(program({})),
        Entry("tiny/constants.pkl", b"N."),
        Entry("tiny/code/a.py", b""),
    ]
    with pytest.raises(WeightsError, match="TorchScript"):
        read_all(forged(tmp_path, archive(program_of_torch)))


def test_torch_is_not_imported() -> None:
    path = FIXTURES / "24k" / "original_encodec_state_dict.th"
    script = (
        f"import sys; from audiogen_core import weights; dict(weights.read({str(path)!r}));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def forged(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "forged.pth"
    path.write_bytes(content)
    return path


def read_all(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return dict(weights.read(path))


def test_the_forge_makes_what_torch_reads(tmp_path: Path) -> None:
    path = forged(tmp_path, torch_file(program({"a": tensor()}), {"0": SIX}))
    tree = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(tree["a"].numpy(), np.arange(6).reshape(2, 3))
    assert_same(path, tree)


def test_zip64_records(tmp_path: Path) -> None:
    entries = torch_entries(program({"a": tensor()}), {"0": SIX})
    np.testing.assert_array_equal(
        read_all(forged(tmp_path, archive(entries, zip64=True)))["a"].ravel(), np.arange(6)
    )


FORBIDDEN = [
    "os.system", "posix.system", "nt.system", "builtins.eval", "builtins.exec", "__builtin__.eval",
    "builtins.getattr", "builtins.open", "subprocess.Popen", "subprocess.check_output", "torch.load",
    "torch.hub.load", "numpy.load", "importlib.import_module", "operator.attrgetter", "functools.partial",
    "pickle.loads", "runpy.run_path", "sys.exit", "torch._utils._rebuild_tensor",
    "collections.OrderedDict.fromkeys", "torch.serialization.load", "shutil.rmtree",
    "audiogen_core.weights.read", "numpy.core.multiarray._reconstruct", "builtins.bytearray",
    "webbrowser.open", "builtins.__import__", "torch.Tensor",
]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_global_is_named(tmp_path: Path, name: str) -> None:
    for place in (
        call(named(name), "touch /tmp/x"), {"a": {"b": [call(named(name))]}}, named(name),
        tensor(call(named(name))), tensor(storage(), call(named(name), 1)), storage(kind=name),
        Raw(code(tuple(name.rsplit(".", 1)))[1:-1] + b"\x93)R"),
    ):  # fmt: skip
        with pytest.raises(WeightsError, match=f"{name}.*not allowed"):
            read_all(forged(tmp_path, torch_file(program(place), {"0": SIX})))


BAD_PICKLES = {
    "an opcode for instances": Raw(b"(ios\nsystem\n"),
    "an opcode for objects": Raw(b"(" + named("torch.Size").code + b"o"),
    "a new object": Raw(named("torch.Size").code + b")\x81"),
    "an extension": Raw(b"\x82\x01"),
    "a call of a text": Raw(code("os.system") + code(("x",)) + b"R"),
    "a call of a tensor": Raw(tensor().code + b")R"),
    "a call of a dtype": Raw(named("torch.float32").code + b")R"),
    "a call of a storage type": Raw(named("torch.FloatStorage").code + b")R"),
    "arguments in a list": Raw(named("torch.Size").code + code([(1,)]) + b"R"),
    "state of a tensor": Raw(tensor().code + code({"__class__": "x"}) + b"b"),
    "state of a list": Raw(b"]" + code({"a": 1}) + b"b"),
    "state of a storage": Raw(storage().code + code({"entry": 1}) + b"b"),
    "append to a dictionary": Raw(b"}" + code(1) + b"a"),
    "items of a list": Raw(b"]" + code(1) + code(1) + b"s"),
    "half an item": Raw(b"}(" + code("a") + b"u"),
    "a key that is a tuple": Raw(b"}" + code((1, 2)) + code(1) + b"s"),
    "a key that is a float": Raw(b"}" + code(1.5) + code(1) + b"s"),
    "a memo that was never put": Raw(b"h\x05"),
    "a memo far away": Raw(b"j\xff\xff\xff\xff"),
    "an empty stack": Raw(b"0"),
    "a mark that was never made": Raw(b"t"),
    "a long integer": Raw(b"\x8a\x09" + b"\x01" * 9),
    "a text beyond the end": Raw(b"X\xff\xff\xff\x7f"),
    "bytes beyond the end": Raw(b"\x8e" + b"\xff" * 8),
    "a text that is not one": Raw(b"X\x02\x00\x00\x00\xff\xff"),
    "within itself": Raw(b"]q\x00h\x00a"),
    "a dictionary within itself": Raw(b"}q\x00" + code("a") + b"h\x00s"),
    "unfolding without end": Raw(b"]" + b"q\x00h\x00h\x00\x86" * 40),
    "nested deep": Raw(b"]" * 5000 + b"a" * 4999),
    "nested tuples": Raw(b")" + b"\x85" * 200_000),
    "a global left over": {"a": named("torch.Size")},
    "a storage left over": {"a": storage()},
    "a numpy dtype left over": [call(named("numpy.dtype"), "f8", False, True)],
    "a storage of another name": tensor(storage(tag="memory")),
    "a storage that is missing": tensor(storage(key="1")),
    "a storage outside": tensor(storage(key="../data.pkl")),
    "a storage of fewer bytes": tensor(storage(count=7)),
    "a storage of more bytes": tensor(storage(count=5)),
    "a storage of another type": tensor(storage(kind="torch.DoubleStorage")),
    "a storage of no type": tensor(storage(kind="torch.float32")),
    "a storage with a negative count": tensor(storage(count=-6)),
    "a storage counted by a flag": tensor(storage(count=True)),
    "a storage in two types": [tensor(), tensor(storage(kind="torch.IntStorage"))],
    "a short storage id": Raw(code(("storage",)) + b"Q"),
    "a tensor without storage": tensor(Raw(code("0"))),
    "an untyped storage in version 2": tensor(storage(kind="torch.storage.UntypedStorage", count=24)),
    "beyond the storage": tensor(storage(), 1),
    "beyond the storage by strides": tensor(storage(), 0, (2, 3), (4, 1)),
    "a negative offset": tensor(storage(), -1),
    "a negative stride": tensor(storage(), 5, (2, 3), (-3, -1)),
    "a negative size": tensor(storage(), 0, (-2, -3)),
    "sizes that wrap": tensor(storage(), 0, (1 << 32, 1 << 32), (0, 0)),
    "a huge repeated view": tensor(storage(), 0, (1 << 40,), (0,)),
    "sizes in a text": tensor(storage(), 0, "23"),
    "sizes that are flags": tensor(storage(), 0, (True, True), (1, 1)),
    "fewer strides than sizes": tensor(storage(), 0, (2, 3), (1,)),
    "many dimensions": tensor(storage(), 0, (1,) * 40, (1,) * 40),
    "a negated view": tensor(storage(), 0, (2, 3), (3, 1), {"neg": True}),
    "too few arguments": call(named("torch._utils._rebuild_tensor_v2"), storage()),
    "no arguments": call(named("torch._utils._rebuild_tensor_v3")),
    "a parameter of nothing": call(named("torch._utils._rebuild_parameter"), 1, True, {}),
    "a filled ordered dictionary": call(named("collections.OrderedDict"), [("a", 1)]),
    "an unknown encoding": call(named("_codecs.encode"), "x", "zlib"),
    "a set of lists": call(named("builtins.set"), [[1]]),
    "an object dtype": call(named("numpy.dtype"), "O8", False, True),
    "a long numpy dtype": call(named("numpy.dtype"), "V1000000000", False, True),
    "a numpy number of other bytes": call(
        named("numpy._core.multiarray.scalar"), call(named("numpy.dtype"), "f8", False, True), b"1234"
    ),
    "texts doubled by devices": Raw(
        named("torch.device").code + b"q\x00" + code("a" * 8) + b"q\x01" + b"h\x00h\x01h\x01\x86Rq\x01" * 31
    ),
    "copies of a set": Raw(
        named("builtins.set").code
        + (b"q\x00](" + b"K\0" * 150_000 + b"eq\x01(" + b"h\0h\1\x85R" * 20_000 + b"t0")
    ),
    "copies of bytes": Raw(
        named("_codecs.encode").code
        + (b"q\x00" + code("latin1") + b"q\x02" + code("a" * 4_000_000) + b"q\x01(")
        + (b"h\0h\1h\2\x86R" * 2000 + b"t")
    ),
    "one long name of thousands of tensors": Raw(
        tensor().code + b"q\0}" + code("k" * 3_000_000) + b"(" + b"h\0" * 3000 + b"ts"
    ),
    "keys that collide": Raw(
        b"}(" + b"".join(b"\x8a\x08" + (at << 40).to_bytes(8, "little") + b"N" for at in range(30_000)) + b"u"
    ),
    "more tensors than models have": Raw(tensor().code + b"q\0(" + b"h\0" * 20_000 + b"t"),
    "one storage in thousands of tensors": Raw(
        tensor(storage(), 0, (65_536,), (0,)).code + b"q\0(" + b"h\0" * 1000 + b"t"
    ),
    "a text in thousands of places": Raw(code("a" * 100_000) + b"q\0(" + b"h\0" * 10_000 + b"t"),
    "a device of another kind": call(named("torch.device"), "c" * 1000),
    "a call of many arguments": Raw(named("torch.device").code + code(("cuda",) * 9) + b"R"),
    "a storage with a name of megabytes": tensor(storage(key="0" * 1_000_000)),
    "a size of texts": call(named("torch.Size"), ("a",)),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(BAD_PICKLES))
def test_a_pickle_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(WeightsError):
        read_all(forged(tmp_path, torch_file(program(BAD_PICKLES[what]), {"0": SIX})))


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_pickle_that_ends_early(tmp_path: Path, cut: int) -> None:
    pickle = program({"a": tensor()})
    with pytest.raises(WeightsError, match="pickle"):
        read_all(forged(tmp_path, torch_file(pickle[:-cut], {"0": SIX})))


def test_too_many_operations_and_too_large_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiogen_core.formats.torch_pickle.MAX_OPERATIONS", 1000)
    with pytest.raises(WeightsError, match="more than 1000 operations"):
        read_all(forged(tmp_path, torch_file(program(Raw(b"N0" * 600 + b"}")))))
    monkeypatch.setattr("audiogen_core.formats.torch_file.MAX_PICKLE", 1000)
    with pytest.raises(WeightsError, match="more than 1000"):
        read_all(forged(tmp_path, torch_file(program("x" * 2000))))


def entries() -> list[Entry]:
    return torch_entries(program({"a": tensor()}), {"0": SIX})


def changed(index: int, **changes: Any) -> list[Entry]:
    found = entries()
    for name, value in changes.items():
        setattr(found[index], name, value)
    return found


BAD_ARCHIVES = {
    "compressed": archive(changed(2, method=8)),
    "encrypted": archive(changed(2, flags=1)),
    "strongly encrypted": archive(changed(2, flags=0x2041)),
    "two sizes": archive(changed(2, packed=7)),
    "larger than the file": archive(changed(2, size=1 << 30)),
    "outside the file": archive(changed(2, offset=1 << 30)),
    "over another entry": archive(changed(2, offset=0, local_name="tiny/data/0")),
    "the same place twice": archive(changed(3, offset=0)),
    "into the directory": archive(changed(3, size=60)),
    "a name of two": archive([*entries(), Entry("tiny/data/0", SIX)]),
    "another local name": archive(changed(2, local_name="tiny/data/1")),
    "a name that is not text": archive(entries()).replace(b"tiny/version", b"tiny/versio\xff"),
    "two roots": archive(entries() + torch_entries(b"", root="more")),
    "no root": archive([Entry("data.pkl", b"N.")]),
    "no pickle": archive([Entry("tiny/version", b"3")]),
    "empty": archive([]),
    "trailing bytes": archive(entries()) + b"x",
    "a comment": archive(entries(), comment=b"hello"),
    "cut": archive(entries())[:-1],
    "cut in half": archive(entries())[:200],
    "only its first bytes": b"PK\3\4",
    "more entries than there are": archive(entries(), count=9),
    "fewer entries than there are": archive(entries(), count=2),
    "counts that differ": archive(entries(), here=1),
    "of several disks": archive(entries(), disk=1),
    "a directory elsewhere": archive(entries(), start=10),
    "a directory of another size": archive(entries(), size=10),
    "an absurd count": archive(entries(), count=1 << 40, zip64=True),
    "zip64 in part": archive(entries(), count=0xFFFF),
    "zip64 without sizes": archive(changed(2, size=0xFFFFFFFF)),
    "a wrong checksum": archive(changed(2, crc=12345)),
    "a wrong checksum of the pickle": archive(changed(0, crc=12345)),
    "big endian": archive(changed(1, data=b"big")),
    "a large byte order": archive(changed(1, data=b"little" * 10)),
    "a damaged magic": archive(entries()).replace(b"PK\1\2", b"PK\1\3", 1),
    "no archive": b"hello, I am a text file",
    "nothing": b"",
}


@pytest.mark.parametrize("what", sorted(BAD_ARCHIVES))
def test_an_archive_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(WeightsError):
        read_all(forged(tmp_path, BAD_ARCHIVES[what]))


def test_a_damaged_zip64_locator(tmp_path: Path) -> None:
    whole = archive(entries(), zip64=True)
    at = whole.index(b"PK\6\7")
    for content in (
        whole[: at + 8] + struct.pack("<Q", 5) + whole[at + 16 :],
        whole.replace(b"PK\6\6", b"PK\6\5"),
        whole.replace(b"PK\6\7", b"PK\6\5"),
    ):
        with pytest.raises(WeightsError):
            read_all(forged(tmp_path, content))


def test_every_flipped_byte_of_tensor_data_is_found(tmp_path: Path) -> None:
    whole = archive(entries())
    start = whole.index(SIX)
    for at in range(start, start + len(SIX)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        with pytest.raises(WeightsError, match=r"data/0' fails its checksum"):
            read_all(forged(tmp_path, bytes(damaged)))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        weights.read(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="cannot be opened"):
        weights.read_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match="not a regular file"):
        weights.read_checkpoint(tmp_path / "folder.pth")


def test_a_checkpoint_must_be_a_dictionary(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds a list, expected a dictionary"):
        weights.read_checkpoint(forged(tmp_path, torch_file(program([1]))))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(5)})
    found = weights.read(path)
    torch.save({"a": torch.zeros(9)}, path)
    with pytest.raises(WeightsError, match="changed while it was being read"):
        found["a"]


@pytest.mark.slow
def test_a_tensor_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Offsets and sizes that need zip64, as torch writes them; the file is sparse."""
    count = (1 << 32) + 1024
    big = torch.from_numpy(np.memmap(tmp_path / "zeros", np.uint8, "w+", shape=(count,)))
    path = saved(tmp_path, {"big": big, "after": torch.arange(5.0)})
    found = weights.read(path)
    assert found.shape("big") == (count,)
    np.testing.assert_array_equal(found["after"], np.arange(5.0))
