"""Archives of numpy.savez: every dtype and order, read lazily; what is not plain numbers is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import weights
from audiogen_core.errors import WeightsError
from audiogen_core.formats.npy import MAX_HEAD
from audiogen_core.formats.npz_file import read_npz

KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


def test_every_kind_of_number_and_order_of_axes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {kind: rng.integers(0, 2, (3, 4)).astype(kind) for kind in KINDS}
    arrays |= {"fortran": np.asfortranarray(rng.normal(size=(2, 3, 4))), "empty": np.zeros((1, 0, 1), "f4")}
    arrays |= {"one": np.float32(3.5), "a.b.weight": rng.normal(size=5).astype("f2")}
    np.savez(tmp_path / "a.npz", **arrays)
    table = weights.read(tmp_path / "a.npz")
    assert set(table) == set(arrays)
    for name, array in arrays.items():
        assert (table.shape(name), table.dtype(name)) == (array.shape, array.dtype.name)
        np.testing.assert_array_equal(table[name], array)
    np.savez(tmp_path / "a.npz", text=np.bytes_(b"a text"))
    assert read_npz(tmp_path / "a.npz")["text"].read().tobytes() == b"a text"


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, good=np.ones(5000, "f4"), bad=np.zeros(5000, "f4"))
    data = path.read_bytes()
    path.write_bytes(data.replace(np.zeros(5000, "f4").tobytes(), np.full(5000, 2, "f4").tobytes()))
    table = weights.read(path)
    np.testing.assert_array_equal(table["good"], np.ones(5000))
    with pytest.raises(WeightsError, match=r"'bad\.npy' fails its checksum"):
        table["bad"]


def archived(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def head(text: str, after: bytes = b"") -> bytes:
    data = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + after


SHAPED = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an NPY file"),
        (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 20, "of a version that is not known"),
        (head(SHAPED.format("|O", "(1,)"), b"cposix\nsystem\n."), "an array of object, which is not read"),
        (head(SHAPED.format(">f4", "(1,)"), b"\0" * 4), "an array of >f4"),
        (head(SHAPED.format("<c8", "(1,)"), b"\0" * 8), "an array of complex64"),
        (head(SHAPED.format("<f4", "(2,)"), b"\0" * 4), "more or less than its shape"),
        (head(SHAPED.format("<f4", "(1,)"), b"\0" * 8), "more or less than its shape"),
        (head(SHAPED.format("<f4", "(-1,)"), b"\0" * 4), r"its shape is \(-1,\)"),
        (head(SHAPED.format("<f4", "(2147483647,) * 1")), "cannot be read"),
        (head(SHAPED.format("<f4", "(2147483647, 2147483647)")), "too large"),
        (head("__import__('os').system('true')"), "cannot be read"),
        (head("[" * 5000), "cannot be read"),
        (
            b"\x93NUMPY\x02\x00" + (MAX_HEAD * 2).to_bytes(4, "little") + b" " * MAX_HEAD * 2,
            "cut, or too long",
        ),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data, reason, tmp_path):
    with pytest.raises(WeightsError, match=reason):
        read_npz(archived(tmp_path / "a.npz", ("a.npy", data)))


def test_archives_that_numpy_does_not_write(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(1000))
    with pytest.raises(WeightsError, match=r"not an npz archive that can be read: .* is compressed"):
        read_npz(path)
    np.savez(path, a=np.zeros(1000))
    whole = path.read_bytes()
    for data in (b"", b"PK\x03\x04", whole[:-30], whole + b"more", whole[100:]):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="not an npz archive that can be read"):
            read_npz(path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with pytest.warns(UserWarning, match="Duplicate name"):
        archived(path, ("a.npy", buffer.getvalue()), ("a.npy", buffer.getvalue()))
    with pytest.raises(WeightsError, match="appears twice"):
        read_npz(path)
    archived(path, ("a.npy", buffer.getvalue()), ("a", buffer.getvalue()))
    with pytest.raises(WeightsError, match="two arrays are named 'a'"):
        read_npz(path)


def test_damage_anywhere_ends_in_our_error_or_in_numbers(tmp_path):
    path, rng = tmp_path / "a.npz", np.random.default_rng(1)
    np.savez(path, a=np.zeros((3, 4), "f4"), b=np.arange(9))
    whole = path.read_bytes()
    for _ in range(400):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 5)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_npz(path)
            for array in found.values():
                array.read()
        except WeightsError as error:
            assert str(path) in str(error)
