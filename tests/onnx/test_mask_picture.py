"""The preview of a mask: what it shows, and what it refuses."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audiogen_core.errors import CodesError, MissingDependency, OptionError
from audiogen_onnx.vampnet import mask_picture
from audiogen_onnx.vampnet.mask_picture import save_mask_picture

MASK = np.zeros((4, 60), bool)
MASK[:, 30:] = True
CODES = np.random.default_rng(0).integers(0, 16, MASK.shape)


def plane(path: Path) -> np.ndarray:
    """The inner part of the picture, without axes and legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    return pixels[int(0.35 * height) : int(0.6 * height), int(0.12 * width) : int(0.95 * width)]


def test_the_generated_half_is_grey_and_the_kept_half_blue(tmp_path: Path) -> None:
    save_mask_picture(MASK, tmp_path / "a.png", frame_rate=50.0, title="half $of$ it")
    inner = plane(tmp_path / "a.png")
    left, right = inner[:, : inner.shape[1] // 4], inner[:, -inner.shape[1] // 4 :]
    assert (left == [0x1F, 0x4E, 0x79]).all()
    assert (right == 0xEC).all()


def test_codes_colour_what_is_kept(tmp_path: Path) -> None:
    save_mask_picture(MASK, tmp_path / "a.png", frame_rate=50.0, codes=CODES, codebook_size=16)
    inner = plane(tmp_path / "a.png")
    assert len(np.unique(inner[:, : inner.shape[1] // 4].reshape(-1, 3), axis=0)) > 5
    assert (inner[:, -inner.shape[1] // 4 :] == 0xEC).all()


def test_single_frames_of_a_long_mask_are_not_lost() -> None:
    colours = np.zeros((1, 100_000, 3))
    colours[0, 12_345] = 1
    averaged = mask_picture._averaged(colours)
    assert averaged.shape == (1, 1600, 3)
    assert averaged.sum(axis=1) * 62.5 == pytest.approx(np.ones((1, 3)), rel=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (14, 3_000), (1, 1_601)])
def test_all_sizes_are_drawn(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = save_mask_picture(np.ones(shape, bool), tmp_path / "a.png", frame_rate=57.4)
    assert Image.open(path).width == 1440


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one mask"):
        save_mask_picture(MASK[None], tmp_path / "a.png", frame_rate=50.0)
    with pytest.raises(OptionError, match="frame rate"):
        save_mask_picture(MASK, tmp_path / "a.png", frame_rate=0.0)
    with pytest.raises(CodesError, match=r"\(4, 60\), but the codes have \(4, 59\)"):
        save_mask_picture(MASK, tmp_path / "a.png", frame_rate=50.0, codes=CODES[:, :-1])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_matplotlib(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(MissingDependency, match=r"audiogen-onnx\[plot\]"):
        save_mask_picture(MASK, tmp_path / "a.png", frame_rate=50.0)
