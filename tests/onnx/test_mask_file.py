"""Masks from files of each kind, and what is wrong with those that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_onnx.vampnet.mask_file import load_mask, save_mask

RATE, HOP = 8_000, 100
SHAPE = (3, 40)
MASK = np.random.default_rng(0).random(SHAPE) < 0.5


def load(path: Path, **given: float) -> np.ndarray:
    return load_mask(path, codebooks=SHAPE[0], frames=SHAPE[1], sample_rate=RATE, hop_length=HOP, **given)


@pytest.mark.parametrize("name", ["mask.npy", "mask.png", "MASK.PNG"])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str) -> None:
    assert save_mask(MASK, tmp_path / name) == tmp_path / name
    loaded = load(tmp_path / name)
    assert loaded.dtype == np.bool_
    np.testing.assert_array_equal(loaded, MASK)
    loaded[0] = True  # its own memory


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 40), (1, 3, 40)])
def test_arrays_of_numbers_and_of_one_row(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    values = np.resize(MASK, shape)
    np.save(tmp_path / "mask.npy", values.astype(dtype))
    np.testing.assert_array_equal(load(tmp_path / "mask.npy"), np.broadcast_to(values.reshape(-1, 40), SHAPE))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_every_version_order_and_byte_order(tmp_path: Path, version: tuple[int, int]) -> None:
    for values in (MASK, np.asfortranarray(MASK), MASK.astype(">i4"), np.asfortranarray(MASK.astype("<f8"))):
        with (tmp_path / "mask.npy").open("wb") as file:
            np.lib.format.write_array(file, values, version=version)
        np.testing.assert_array_equal(load(tmp_path / "mask.npy"), MASK)


@pytest.mark.parametrize("shape", [(3, 41), (4, 40), (40, 3), (2, 3, 40), ()])
def test_another_shape_is_refused_in_one_sentence(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "mask.npy", np.ones(shape, bool))
    with pytest.raises(CodesError, match=r"mask\.npy: a mask of shape .* needs \(3, 40\)"):
        load(tmp_path / "mask.npy")


@pytest.mark.parametrize("values", [np.full(40, 2), np.full(40, 0.5), np.full(40, np.nan)])
def test_other_numbers_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(CodesError, match="nothing else"):
        load(tmp_path / "mask.npy")


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CodesError, match="is not a mask"):
        load(tmp_path / "mask.npy")


@pytest.mark.parametrize("header", [
    b"{'descr': '|b1', 'fortran_order': False, 'shape': (1000000000000,), }",
    b"{'descr': '|b1', 'fortran_order': False, 'shape': (-3,), }",
    b"{'descr': '|b1', 'fortran_order': False, 'shape': (40,), }",
    b"{'descr': '|b1', 'shape': (40,), }",
    b"__import__('os').system('true')",
    b"{" * 60_000,
])  # fmt: skip
def test_lies_of_a_header(tmp_path: Path, header: bytes) -> None:
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)
    (tmp_path / "mask.npy").write_bytes(body)
    with pytest.raises(CodesError, match=r"mask\.npy: (an array .* is not a mask|a damaged NPY file)"):
        load(tmp_path / "mask.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUM", b"\x93NUMPY\x01\x00", b"hello", b"\x93NUMPY\x09\x00abc"])
def test_what_is_no_array(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mask.npy").write_bytes(data)
    with pytest.raises(CodesError, match="NPY file"):
        load(tmp_path / "mask.npy")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match="cannot be read"):
        load(tmp_path / "mask.npy")
    with pytest.raises(AudioError):
        load(tmp_path / "mask.wav")


def test_pictures_with_one_row_or_with_bands(tmp_path: Path) -> None:
    Image.fromarray(MASK[:1].astype(np.uint8) * 255).save(tmp_path / "row.png")
    np.testing.assert_array_equal(load(tmp_path / "row.png"), np.repeat(MASK[:1], 3, axis=0))
    bands = Image.fromarray(np.repeat(MASK, 8, axis=0).astype(np.uint8) * 255)
    bands.convert("RGBA").save(tmp_path / "band.png")
    np.testing.assert_array_equal(load(tmp_path / "band.png"), MASK)


def test_transparent_is_kept(tmp_path: Path) -> None:
    picture = np.full((*SHAPE, 4), 255, np.uint8)
    picture[..., 3] = MASK * 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(load(tmp_path / "mask.png"), MASK)


def test_pictures_of_another_size(tmp_path: Path) -> None:
    save_mask(np.ones((3, 39), bool), tmp_path / "mask.png")
    with pytest.raises(CodesError, match=r"shape \(3, 39\), but this clip needs \(3, 40\)"):
        load(tmp_path / "mask.png")


def sound(frames: int, rate: int = RATE) -> np.ndarray:
    """Noise with its frames of 12.5 ms muted from 10 to 19, and half of frame 25 and a bit more."""
    samples = 0.3 * np.random.default_rng(1).standard_normal((2, frames * rate // 80)).astype(np.float32)
    hop = rate // 80
    samples[:, 10 * hop : 20 * hop] = 0
    samples[:, 25 * hop : 25 * hop + hop * 6 // 10] = 0
    samples[:, 30 * hop : 30 * hop + hop * 4 // 10] = 0
    samples[0, 35 * hop : 36 * hop] = 0  # one channel only
    return samples


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_silence_of_a_second_file_is_the_mask(tmp_path: Path, rate: int) -> None:
    Audio(np.clip(sound(40, rate), -1, 1), rate).save(tmp_path / "muted.wav")
    mask = load(tmp_path / "muted.wav")
    assert np.flatnonzero(mask[0]).tolist() == [*range(10, 20), 25]
    assert (mask == mask[0]).all()


def test_how_quiet_silence_is(tmp_path: Path) -> None:
    quiet = np.clip(sound(40), -1, 1)
    quiet[:, 500:700] = 1e-4
    Audio(quiet, RATE).save(tmp_path / "muted.wav", subtype="FLOAT")
    assert load(tmp_path / "muted.wav")[0, 5:7].all()
    assert not load(tmp_path / "muted.wav", silence=-90)[0, 5:7].any()


def test_sound_may_end_within_its_last_frame_but_not_elsewhere(tmp_path: Path) -> None:
    whole = np.clip(sound(60), -1, 1)
    for samples in (3_950, 4_000, 4_001):
        Audio(whole[:, :samples], RATE).save(tmp_path / "muted.wav", force=True)
        assert load(tmp_path / "muted.wav").shape == SHAPE
    Audio(whole[:, :2_000], RATE).save(tmp_path / "muted.wav", force=True)
    with pytest.raises(CodesError, match="keep its length"):
        load(tmp_path / "muted.wav")
    Audio(whole[:, :4_201], RATE).save(tmp_path / "muted.wav", force=True)
    with pytest.raises(CodesError, match="keep its length"):
        load(tmp_path / "muted.wav")


def test_only_whole_masks_and_known_kinds_are_saved(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one mask"):
        save_mask(np.ones((2, 3, 4), bool), tmp_path / "mask.npy")
    with pytest.raises(OptionError, match=r"\.npy or \.png"):
        save_mask(MASK, tmp_path / "mask.txt")
    with pytest.raises(OptionError, match="True"):
        save_mask(np.ones((2, 3)), tmp_path / "mask.npy")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_masks_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="1 or more"):
        load_mask(tmp_path / "a.npy", codebooks=0, frames=5, sample_rate=RATE, hop_length=HOP)


@settings(max_examples=200)
@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damaged_arrays_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    np.save(path, MASK)
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data[: len(data) - cut] if cut < 100 else data)
    try:
        assert load(path).shape == SHAPE
    except CodesError as error:
        assert "damaged.npy" in str(error)
