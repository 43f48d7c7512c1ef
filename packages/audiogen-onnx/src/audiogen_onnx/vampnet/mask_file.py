"""Masks in files: NPY arrays, PNG pictures, or a copy of the clip with what is to be made muted."""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import probe, stream
from audiogen_core.errors import CodesError, MissingDependency, OptionError
from audiogen_core.files import atomic_path, require_regular
from audiogen_core.formats.npy import MAX_HEAD, read_head
from audiogen_core.sound_reader import name_of
from audiogen_core.values import closed
from audiogen_onnx.vampnet.mask import Mask, checked

SILENCE = -60.0
"""dB below full scale: samples that are quieter are silent."""

MAX_VALUES = 1 << 26

MAX_PICTURE = 1 << 22
"""Width x height x channels of a picture: a mask of ten minutes with 14 codebooks has half a million."""


@closed()
def load_mask(
    path: str | Path,
    *,
    codebooks: int,
    frames: int,
    sample_rate: int,
    hop_length: int,
    silence: float = SILENCE,
) -> Mask:
    """The mask (codebooks, frames) that a file holds, for a clip of so many frames; True is generated.

    .npy  bool, or numbers that are 0 and 1: (codebooks, frames), or (frames,) for all codebooks alike
    .png  a column for each frame; one row for all codebooks, or as many as there are codebooks, the first on
          top (or a multiple, of which the middle rows count). Bright is generated; black and transparent are
          kept
    else  a sound file as long as the clip: a frame is generated where more than half of it is silent in all
          channels

    sample_rate, hop_length  of the codec: what a frame is
    silence                  dB of full scale below which a sample is silent

    Raises CodesError when the file is unreadable or its mask is for a clip of another length or codec,
    AudioError for a damaged sound file, MissingDependency for a .png without Pillow.
    """
    if codebooks < 1 or frames < 1:
        raise OptionError(f"a mask has 1 or more codebooks and frames, got {codebooks} and {frames}")
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return _fitted(_read_npy(path), codebooks, frames, path)
    if suffix == ".png":
        return _fitted(_bands(read_png(path) >= 0.5, codebooks), codebooks, frames, path)
    return _fitted(_silent(path, frames, sample_rate / hop_length, silence), codebooks, frames, path)


@closed()
def save_mask(mask: Mask, path: str | Path) -> Path:
    """Write a mask (codebooks, frames) as .npy or .png, as `load_mask` reads it. Returns the path.

    Raises OptionError for another suffix or shape, MissingDependency for a .png without Pillow.
    """
    if checked(mask).ndim != 2:
        raise OptionError(f"a file holds one mask (codebooks, frames), got shape {mask.shape}")
    suffix = check_suffix(path)
    picture = _pillow().fromarray(mask.astype(np.uint8) * np.uint8(255)) if suffix == ".png" else None
    with atomic_path(path, OptionError) as temporary, temporary.open("wb") as file:
        if picture is not None:
            picture.save(file, "PNG")
        else:
            np.lib.format.write_array(file, mask, allow_pickle=False)
    return Path(path)


def check_suffix(path: str | Path) -> str:
    """The suffix of a mask that is to be written. Raises OptionError for one that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".png"):
        raise OptionError(f"{name_of(path)}: a mask is written as .npy or .png")
    return suffix


def _fitted(mask: Mask, codebooks: int, frames: int, path: str | Path) -> Mask:
    rows = mask[None] if mask.ndim == 1 else mask
    if rows.shape not in ((codebooks, frames), (1, frames)):
        raise CodesError(
            f"{name_of(path)}: a mask of shape {mask.shape}, but this clip needs ({codebooks}, {frames}) "
            f"(codebooks, frames) or ({frames},); was it made for a clip of another length?"
        )
    return np.broadcast_to(rows, (codebooks, frames)).copy()


def _bands(bright: Mask, codebooks: int) -> Mask:
    """Of a picture with several rows for each codebook, the middle ones."""
    each, rest = divmod(len(bright), codebooks)
    return bright if rest or each < 2 else bright[each // 2 :: each]


def read_png(path: str | Path) -> NDArray[np.float64]:
    """Brightness (height, width) of a picture from 0, black or transparent, to 1, white.

    Raises CodesError when it is no PNG, damaged, or larger than masks are.
    """
    library, name = _pillow(), name_of(path)
    try:
        require_regular(path)
        with Path(path).open("rb") as file:
            data = file.read(2 * MAX_PICTURE + 1)
    except OSError as error:
        raise CodesError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > 2 * MAX_PICTURE:
        raise CodesError(f"{name}: larger than {2 * MAX_PICTURE >> 20} MiB, which a mask never is")
    try:
        with library.open(io.BytesIO(data), formats=["PNG"]) as picture:
            # Only the header has been read so far. Pillow unpacks no more than these sizes ask for, whatever
            # else the file holds.
            width, height = picture.size
            if width * height * len(picture.getbands()) > MAX_PICTURE:
                raise CodesError(f"{name}: a picture of {width} x {height} is too large for a mask")
            picture.verify()  # the checksums, which loading passes over; it leaves nothing to be loaded
        with library.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode.startswith("I"):  # 16 bits of grey, which a conversion would cut off at 255
                return np.asarray(picture) / 65535
            red, green, blue, alpha = (np.asarray(part) for part in picture.convert("RGBA").split())
    except library.DecompressionBombError as error:
        raise CodesError(f"{name}: a picture that is too large for a mask") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, zlib.error) as error:
        raise CodesError(f"{name}: not a PNG picture, or a damaged one") from error
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709
    return np.asarray(luminance * alpha / 255**2)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("Pillow", 'pip install "audiogen-onnx[plot]"') from error
    return Image


def _read_npy(path: str | Path) -> Mask:
    """The array of an NPY file as a mask. Its description is read here, bounded and strictly."""
    name = name_of(path)
    try:
        require_regular(path)
        with Path(path).open("rb") as file:
            head = read_head(file.read(MAX_HEAD), name, CodesError)
            shape, dtype = head.shape, head.dtype
            count = math.prod(shape)
            if dtype.kind not in "biuf" or len(shape) > 3 or count > MAX_VALUES:
                raise CodesError(f"{name}: an array {shape} of {dtype} is not a mask")
            file.seek(head.start)
            data = file.read(count * dtype.itemsize + 1)
    except OSError as error:
        raise CodesError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) != count * dtype.itemsize:
        raise CodesError(f"{name}: a damaged NPY file: it holds more or less than its shape {shape} says")
    return _as_mask(np.frombuffer(data, dtype).reshape(shape, order=head.order), name)


def _as_mask(values: NDArray[Any], name: str) -> Mask:
    if not np.isin(values, (0, 1)).all():
        raise CodesError(f"{name}: a mask holds 1 or True (generate) and 0 or False (keep), nothing else")
    mask: Mask = values.astype(np.bool_)
    return mask[0] if mask.ndim == 3 and len(mask) == 1 else mask


def _silent(path: str | Path, frames: int, frame_rate: float, silence: float) -> Mask:
    """Which frames of a sound file are mostly silent; one frame more or less than `frames` is mended."""
    info = probe(path)
    if info.frames:
        _check_length(info.frames / info.sample_rate, frames, frame_rate, path)
    threshold = 10 ** (silence / 20)
    quiet, count, start = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    for block in stream(path):
        index = ((start + np.arange(block.shape[1])) * (frame_rate / info.sample_rate)).astype(np.int64)
        below = (np.abs(block) < threshold).all(axis=0)
        size = int(index[-1]) + 1
        quiet = _longer(quiet, size) + np.bincount(index[below], minlength=size)
        count = _longer(count, size) + np.bincount(index, minlength=size)
        start += block.shape[1]
    _check_length(start / info.sample_rate, frames, frame_rate, path)
    mask = 2 * quiet > count
    return np.append(mask, mask[-1:])[:frames]


def _check_length(seconds: float, frames: int, frame_rate: float, path: str | Path) -> None:
    """Rates are rounded and clips end within frames, so one frame more or less is the same length."""
    if abs(math.ceil(seconds * frame_rate) - frames) > 1:
        raise CodesError(
            f"{name_of(path)}: {seconds:.2f} s of sound, but the clip to be masked has "
            f"{frames / frame_rate:.2f} s; mute parts of the clip itself and keep its length"
        )


def _longer(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.pad(counts, (0, size - len(counts)))
