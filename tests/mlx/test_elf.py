"""Dropping a prefix from the names of a library: on a real library, and on damaged ones."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from audiogen_mlx.elf import ElfError, drop_prefix

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF is the format of Linux libraries")


def library() -> bytes:
    import scipy_openblas32

    folder = Path(scipy_openblas32.__file__).parent / "lib"
    return next(folder.glob("libscipy_openblas*.so")).read_bytes()


@pytest.fixture(scope="module")
def image() -> bytes:
    return library()


def edited(image: bytes, names: set[str]) -> bytearray:
    copy = bytearray(image)
    for place, content in drop_prefix(image, "scipy_", frozenset(names)):
        copy[place : place + len(content)] = content
    return copy


@pytest.fixture(scope="module")
def plain(image, tmp_path_factory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("elf") / "libplain.so"
    path.write_bytes(edited(image, {"cblas_sdot", "cblas_sgemm"}))
    return ctypes.CDLL(str(path))


def test_a_renamed_function_is_found_and_works(plain):
    plain.cblas_sdot.restype = ctypes.c_float
    three = (ctypes.c_float * 3)(1, 2, 3)
    assert plain.cblas_sdot(3, three, 1, three, 1) == 14
    assert not hasattr(plain, "scipy_cblas_sdot")


def test_every_other_name_is_still_found(plain, image):
    untouched = {name for name in exported(image) if name.startswith("scipy_cblas_")}
    assert len(untouched) > 100
    assert {name for name in untouched if not hasattr(plain, name)} == {
        "scipy_cblas_sdot",
        "scipy_cblas_sgemm",
    }
    assert not hasattr(plain, "cblas_ddot")


def exported(image: bytes) -> set[str]:
    """All strings of the library that look like a name of its interface."""
    table = image[: 1 << 20].split(b"\0")
    return {name.decode() for name in table if name.startswith(b"scipy_") and name.isascii()}


def test_a_name_the_library_lacks_is_named(image):
    with pytest.raises(ElfError, match="lacks scipy_cblas_hgemm"):
        drop_prefix(image, "scipy_", frozenset({"cblas_hgemm"}))


@pytest.mark.parametrize("length", [0, 6, 63, 64, 1000, 50_000])
def test_a_library_cut_short_is_refused(image, length):
    with pytest.raises(ElfError):
        drop_prefix(image[:length], "scipy_", frozenset({"cblas_sgemm"}))


def test_other_files_are_refused(image):
    for wrong in (b"MZ" + image[2:100], image[:4] + b"\x01" + image[5:100], bytes(200)):
        with pytest.raises(ElfError, match="not an ELF"):
            drop_prefix(wrong, "scipy_", frozenset({"cblas_sgemm"}))


def test_flipped_bytes_of_the_tables_never_raise_anything_else(image):
    """Every byte of the headers, and a spread of the tables: an edit or an ElfError, and no endless loop."""
    head = bytearray(image[:300_000])
    for place in [*range(64, 1000, 3), *range(1000, 100_000, 4001)]:
        head[place] ^= 0xFF
        try:
            assert drop_prefix(head, "scipy_", frozenset({"cblas_sgemm"}))
        except ElfError as error:
            assert str(error)
        head[place] ^= 0xFF
