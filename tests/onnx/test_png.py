"""Masks in PNG pictures: read whatever their kind, refused when they are damaged or too large."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audiogen_core.errors import CodesError, MissingDependency
from audiogen_onnx.vampnet.mask_file import read_png, save_mask

START = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def picture(channels: int) -> np.ndarray:
    """Smooth parts and noise, so that a good writer uses several filters."""
    y, x = np.mgrid[0:41, 0:53]
    smooth = np.stack([(3 * x + 2 * y + 40 * c) % 256 for c in range(channels)], axis=-1)
    noise = np.random.default_rng(0).integers(0, 256, smooth.shape)
    return np.where((x < 20)[..., None], noise, smooth).astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_kinds_as_pillow_writes_them(tmp_path: Path, mode: str) -> None:
    channels = {"LA": 2, "RGB": 3, "P": 3, "RGBA": 4}.get(mode, 1)
    values = picture(channels)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode in ("1", "P"):
        image = Image.fromarray(values.squeeze(-1) if channels == 1 else values).convert(mode)
    else:
        image = Image.fromarray(values.squeeze(-1) if channels == 1 else values)
    image.save(tmp_path / "a.png", optimize=True)
    made = read_png(tmp_path / "a.png")
    shown = Image.open(tmp_path / "a.png")
    if mode == "I;16":
        wanted = np.asarray(shown) / 65535
    else:
        colours = np.asarray(shown.convert("RGBA")) / 255
        wanted = colours[..., :3] @ [0.2126, 0.7152, 0.0722] * colours[..., 3]
    np.testing.assert_allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("colour", [0, 2, 6])
def test_filters(tmp_path: Path, kind: int, colour: int) -> None:
    """Rows filtered here, by the standard's own words, are read back as they were."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rows = picture(channels).reshape(41, -1).astype(np.int64)
    padded = np.pad(rows, ((1, 0), (channels, 0)))
    left, up, corner = padded[1:, :-channels], padded[:-1, channels:], padded[:-1, :-channels]
    near = np.abs(left + up - corner - np.stack([left, up, corner])).argmin(axis=0)
    paeth = np.choose(near, [left, up, corner])
    predicted = [np.zeros_like(rows), left, up, (left + up) // 2, paeth][kind]
    filtered = np.pad(((rows - predicted) % 256).astype(np.uint8), ((0, 0), (1, 0)), constant_values=kind)
    (tmp_path / "a.png").write_bytes(png(53, 41, 8, colour, filtered.tobytes()))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")).reshape(41, -1), rows)
    colours = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA")) / 255
    wanted = colours[..., :3] @ [0.2126, 0.7152, 0.0722] * colours[..., 3]
    np.testing.assert_allclose(read_png(tmp_path / "a.png"), wanted, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_small_depths(tmp_path: Path, depth: int) -> None:
    values = np.random.default_rng(depth).integers(0, 2**depth, (5, 11))
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(5, -1).astype(np.uint8), axis=1)
    (tmp_path / "a.png").write_bytes(png(11, 5, depth, 0, np.pad(rows, ((0, 0), (1, 0))).tobytes()))
    np.testing.assert_allclose(read_png(tmp_path / "a.png"), values / (2**depth - 1))


def damaged() -> dict[str, bytes]:
    good = png(3, 2, 8, 0, b"\0abc\0def")
    return {
        "nothing": b"",
        "another format": b"GIF89a",
        "only its name": START,
        "no header": START + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "a short header": START + chunk(b"IHDR", b"\0" * 5) + chunk(b"IEND", b""),
        "cut": good[:-20],
        "a changed byte": good[:45] + bytes([good[45] ^ 1]) + good[46:],
        "an unknown filter": png(3, 2, 8, 0, b"\7abc\0def"),
        "an unknown kind": png(3, 2, 3, 0, b"\0abc\0def"),
        "interlaced": png(3, 2, 8, 0, b"\0abc\0def", interlaced=1),
        "empty": png(0, 2, 8, 0, b"\0\0"),
        "huge": png(1 << 30, 1 << 30, 8, 0, b""),
        "many and packed": START + good[8:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000))),
        "larger than masks are": png(4097, 1024, 8, 0, b""),
        "larger with its channels": png(1025, 1024, 8, 6, b""),
        "not packed": START + good[8:33] + chunk(b"IDAT", b"abc") + chunk(b"IEND", b""),
    }


@pytest.mark.parametrize("case", damaged())
def test_damaged_pictures_are_refused_by_name(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.png").write_bytes(damaged()[case])
    with pytest.raises(CodesError, match=r"a\.png: .*(PNG|picture)"):
        read_png(tmp_path / "a.png")


@pytest.mark.parametrize("rows", [b"\0abc", b"\0abc" * 3, bytes(50_000_000)], ids=["less", "more", "a bomb"])
def test_no_more_is_unpacked_than_the_size_says(tmp_path: Path, rows: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png(3, 2, 8, 0, rows))
    assert read_png(tmp_path / "a.png").shape == (2, 3)


def test_a_file_too_long_for_a_mask_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(START + bytes(1 << 23))
    with pytest.raises(CodesError, match="larger than 8 MiB"):
        read_png(tmp_path / "a.png")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    for work in (lambda path: read_png(path), lambda path: save_mask(np.ones((2, 3), bool), path)):
        with pytest.raises(MissingDependency, match=r"^Pillow is not installed.*audiogen-onnx\[plot\]"):
            work(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    good = png(3, 2, 8, 0, b"\0abc\0def")
    for at in range(len(good) - 12):
        (tmp_path / "a.png").write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        with pytest.raises(CodesError):
            read_png(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match="cannot be read"):
        read_png(tmp_path / "none.png")


@settings(max_examples=300)
@given(
    width=st.integers(0, 9), height=st.integers(0, 5), depth=st.sampled_from([1, 2, 4, 8, 16, 3]),
    colour=st.integers(0, 6), packed=st.binary(max_size=300), palette=st.binary(max_size=30),
    alpha=st.binary(max_size=9), fill=st.booleans(),
)  # fmt: skip
def test_pictures_that_lie_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, depth: int, colour: int, packed: bytes,
    palette: bytes, alpha: bytes, fill: bool,
) -> None:  # fmt: skip
    """Whole chunks with right checksums and any content."""
    if fill:
        row = 1 + -(-width * depth * {2: 3, 4: 2, 6: 4}.get(colour, 1) // 8)
        packed = zlib.compress((b"\1" * row + b"\4" * row + b"\3" * row * 9)[: row * height])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", alpha), (b"IDAT", packed), (b"IEND", b"")]
    path = tmp_path_factory.getbasetemp() / "lies.png"
    path.write_bytes(START + b"".join(chunk(kind, body) for kind, body in parts))
    try:
        made = read_png(path)
    except CodesError:
        return
    assert made.shape == (height, width)
    assert made.min() >= 0 and made.max() <= 1 + 1e-9
