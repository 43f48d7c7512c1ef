"""A mask as a picture to look at before anything is generated (extra `[plot]`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import CodesError, MissingDependency, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.sound_reader import name_of
from audiogen_onnx.vampnet.mask import Mask, checked

_COLUMNS = 1600  # of the picture; longer masks are averaged
_DPI = 144
_WIDTH = 10.0  # inches
_KEPT, _MADE = "#1f4e79", "#ececec"


def save_mask_picture(
    mask: Mask,
    path: str | Path,
    *,
    frame_rate: float,
    codes: NDArray[np.integer[Any]] | None = None,
    codebook_size: int = 1024,
    title: str = "",
) -> Path:
    """Draw a mask (codebooks, frames): what is kept in colour, what is generated in grey. Returns the path.

    frame_rate  Hz, for the time axis; the first codebook is on top
    codes       (codebooks, frames): their values colour what is kept; `codebook_size` is how many there are

    The file is a PNG and appears whole or not at all. Raises OptionError for a mask of another shape,
    CodesError when codes and mask differ in shape, MissingDependency without matplotlib.
    """
    if checked(mask).ndim != 2 or not frame_rate > 0:
        raise OptionError(
            f"a picture shows one mask (codebooks, frames) at a frame rate above 0, got {mask.shape} "
            f"at {frame_rate:g} Hz"
        )
    if codes is not None and codes.shape != mask.shape:
        raise CodesError(f"the mask has shape {mask.shape}, but the codes have {codes.shape}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", 'pip install "audiogen-onnx[plot]"') from error
    height = max(1.6, min(6.0, 0.28 * len(mask) + 0.9))
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    _draw(axis, _averaged(_colours(mask, codes, codebook_size)), mask, frame_rate)
    _explain(axis, mask, "kept" if codes is None else "kept, in the colours of its codes")
    if title:
        axis.set_title(name_of(title), loc="left", fontsize=11, parse_math=False)
    with atomic_path(path, OptionError) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format="png", dpi=_DPI)
    return Path(path)


def _colours(mask: Mask, codes: NDArray[Any] | None, size: int) -> NDArray[np.float64]:
    """Red, green, blue of every cell (codebooks, frames, 3)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    made = np.array(to_rgb(_MADE))
    if codes is None:
        kept = np.broadcast_to(to_rgb(_KEPT), (*mask.shape, 3))
    else:
        kept = colormaps["viridis"](np.clip(codes / max(1, size - 1), 0, 1))[..., :3]
    return np.where(mask[..., None], made, kept)


def _averaged(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Not more columns than the picture has, so that no frame is left out of a long mask."""
    frames = colours.shape[1]
    if frames <= _COLUMNS:
        return colours
    starts = np.arange(_COLUMNS) * frames // _COLUMNS
    counts = np.diff(np.append(starts, frames))
    return np.asarray(np.add.reduceat(colours, starts, axis=1) / counts[:, None])


def _draw(axis: Any, colours: NDArray[np.float64], mask: Mask, frame_rate: float) -> None:
    from matplotlib.ticker import MaxNLocator

    codebooks, frames = mask.shape
    axis.imshow(
        colours,
        aspect="auto",
        interpolation="nearest",
        extent=(0, frames / frame_rate, codebooks + 0.5, 0.5),
    )
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.set_ylabel("codebook")
    axis.set_xlabel("time (s)")
    axis.spines[["top", "right"]].set_visible(False)


def _explain(axis: Any, mask: Mask, kept: str) -> None:
    """A legend above the picture, on the right."""
    from matplotlib.patches import Patch

    made = f"generated ({100 * mask.mean():.0f} %)"
    axis.legend(
        handles=[Patch(facecolor=_KEPT, label=kept), Patch(facecolor=_MADE, edgecolor="#7a7a7a", label=made)],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=9,
    )
