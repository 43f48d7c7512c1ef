"""Writing safetensors: what the library reads from it, equal bytes for equal tensors, and the hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from audiogen_core.codes import Codes
from audiogen_core.errors import WeightsError
from audiogen_core.formats.safetensors_file import DTYPES, read_safetensors, write_safetensors
from audiogen_core.formats.stored import StoredArray


def test_every_dtype_comes_back(tmp_path: Path) -> None:
    path, random = tmp_path / "a.safetensors", np.random.default_rng(0)
    arrays = {
        name: (random.standard_normal((3, 5)) * 50).astype(name)
        for name in DTYPES.values()
        if name != "bfloat16"
    }
    told: list[tuple[float, float]] = []

    def on_step(done: float, total: float) -> None:
        told.append((done, total))

    tensors = {name: StoredArray.of(array) for name, array in arrays.items()}
    digest = write_safetensors(path, tensors, {"b": "2", "a": "1"}, on_step)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    total = sum(array.nbytes for array in arrays.values())
    assert told[-1] == (total, total) and len(told) == len(arrays)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name])
    stored, metadata = read_safetensors(path)
    assert list(stored) == list(arrays) and list(metadata.items()) == [("a", "1"), ("b", "2")]


def test_shapes_of_all_kinds(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(3.0, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "big": np.arange(4, dtype=">f4"),
    }
    write_safetensors(tmp_path / "a.safetensors", {n: StoredArray.of(a) for n, a in arrays.items()})
    for name, array in load_file(tmp_path / "a.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_bfloat16_is_kept_and_never_rounded(tmp_path: Path) -> None:
    path, values = tmp_path / "a.safetensors", np.array([1.0, -2.5, 3e38, 0.0], np.float32)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    write_safetensors(path, {"x": StoredArray((4,), "bfloat16", lambda: values)})
    np.testing.assert_array_equal(read_safetensors(path)[0]["x"].read(), values)
    assert path.stat().st_size % 8 == 0
    with pytest.raises(WeightsError, match="no bfloat16"):
        write_safetensors(path, {"x": StoredArray((1,), "bfloat16", lambda: np.array([0.1], np.float32))})


def test_a_tensor_of_another_shape_than_was_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'x' has shape \(3,\), expected \(2,\)"):
        write_safetensors(
            tmp_path / "a", {"x": StoredArray((2,), "float32", lambda: np.zeros(3, np.float32))}
        )


def test_tensors_are_read_one_at_a_time_in_their_order(tmp_path: Path) -> None:
    read: list[str] = []

    def tensor(name: str) -> StoredArray:
        def load() -> np.ndarray:
            read.append(name)
            return np.zeros(2, np.float32)

        return StoredArray((2,), "float32", load)

    write_safetensors(tmp_path / "a", {name: tensor(name) for name in "bca"})
    assert read == ["b", "c", "a"]


@pytest.mark.parametrize("scales", [None, np.array([0.5, 1.5], np.float32)])
def test_codes_have_the_bytes_they_always_had(tmp_path: Path, scales: np.ndarray | None) -> None:
    """Those of the library's writer, with the metadata in order."""
    codes = Codes(np.arange(12, dtype=np.int32).reshape(3, 4), 1024, 75.0, "demo", length=99, scales=scales)
    facts = json.dumps({"codebook_size": 1024, "frame_rate": 75.0, "codec": "demo", "length": 99})
    arrays = {"codes": codes.values} if scales is None else {"codes": codes.values, "scales": scales}
    payload = save(arrays, metadata={"audiogen": "codes", "facts": facts})
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    expected = len(text).to_bytes(8, "little") + text + payload[start:]
    assert codes.save(tmp_path / "a.codes").read_bytes() == expected
