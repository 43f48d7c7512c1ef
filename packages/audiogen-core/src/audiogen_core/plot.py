"""Sound and codes as pictures (extra `[plot]`). Each function writes a PNG, whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.codes import Codes
from audiogen_core.errors import MissingDependency, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.sound_reader import name_of
from audiogen_core.spectrum import LOWEST, Clip, Spectrogram, decibels, mel
from audiogen_core.spectrum import spectrogram as _spectrogram
from audiogen_core.values import closed, shown

KINDS = ("waveform", "spectrogram")
RANGE = 80.0
"""dB between the brightest and the darkest colour."""

_DPI = 144
_WIDTH = 10.0  # inches
_COLUMNS = 1600  # of waveforms and codes
_HERTZ = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
_DARK, _LIGHT, _GRID, _NOTHING = "#1f4e79", "#6fa8d6", "#d9d9d9", "#ececec"
_LINES = ("#1f4e79", "#d1603d", "#3c8d5a", "#8e5ea2", "#7a7a7a")


@closed()
def waveform(audio: Clip, path: str | Path, *, title: Any = "") -> Path:
    """Amplitude over time, a panel per channel (the first eight). Returns the path."""
    return overview(audio, path, kinds=("waveform",), title=title)


@closed()
def spectrogram(audio: Clip, path: str | Path, *, title: Any = "") -> Path:
    """Log-mel spectrogram in dB below its loudest place, mean over channels. Returns the path."""
    return overview(audio, path, kinds=("spectrogram",), title=title)


@closed()
def overview(audio: Clip, path: str | Path, *, kinds: Sequence[str] = KINDS, title: Any = "") -> Path:
    """Panels below each other on one time axis: of `kinds`, "waveform" and "spectrogram".

    Returns the path. Raises OptionError for another kind, MissingDependency without matplotlib.
    """
    return _write(figure(audio, kinds), path, title)


@closed()
def figure(audio: Clip, kinds: Sequence[str] = KINDS) -> Any:
    """As `overview`, the `matplotlib.figure.Figure` itself. Raises as that does."""
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong or not kinds:
        raise OptionError(
            f"unknown kind of picture {', '.join(wrong) or '(none)'}; known: {', '.join(KINDS)}"
        )
    rows = min(audio.channels, 8) if "waveform" in kinds else 0
    heights = [2.2 if rows == 1 else 1.5] * rows + [3.6] * ("spectrogram" in kinds)
    figure, axes = _panels(heights)
    for channel, axis in enumerate(axes[:rows]):
        _draw_wave(axis, audio, channel)
    if "spectrogram" in kinds:
        image = _draw_spectrogram(axes[-1], (power := _spectrogram(audio)), _reference([power]))
        _colour_bar(figure, image, axes[-1:])
    _time_axis(axes, audio.duration)
    return figure


@closed()
def compare(clips: Mapping[str, Clip], path: str | Path, *, title: Any = "") -> Path:
    """Spectrograms of several clips below each other, on one scale of time, frequency and loudness.

    clips  title -> clip, for example an original and what a codec or a model made of it

    Returns the path. Raises OptionError when there are none.
    """
    if not clips:
        raise OptionError("nothing to compare: give at least one clip")
    top = max(audio.sample_rate for audio in clips.values()) / 2
    longest = max(audio.duration for audio in clips.values())
    spectra = []
    for audio in clips.values():
        columns = max(2, round(1200 * audio.duration / longest))
        spectra.append(_spectrogram(audio, columns=columns, top=top))
    figure, axes = _panels([2.6] * len(spectra))
    reference = _reference(spectra)
    for axis, name, spectrum in zip(axes, clips, spectra, strict=True):
        image = _draw_spectrogram(axis, spectrum, reference)
        axis.set_title(name_of(name), loc="left", fontsize=10, parse_math=False)
    _colour_bar(figure, image, axes)
    _time_axis(axes, longest)
    return _write(figure, path, title)


@closed()
def codes(codes: Codes, path: str | Path, *, title: Any = "") -> Path:
    """The codes as an image: codebooks upwards, time to the right, the entry as colour. Returns the path."""
    figure, axes = _panels([max(1.6, min(5.0, 0.28 * codes.codebooks + 0.9))])
    axis = axes[0]
    step = max(1, -(-codes.frames // _COLUMNS))
    image = axis.imshow(
        codes.values[:, ::step],
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=codes.codebook_size - 1,
        extent=(0, codes.duration, 0.5, codes.codebooks + 0.5),
    )
    axis.yaxis.set_major_locator(_ticker().MaxNLocator(integer=True, nbins=8))
    axis.set_ylabel("codebook")
    bar = figure.colorbar(image, ax=axes, pad=0.012, fraction=0.03)
    bar.set_label(f"entry (of {codes.codebook_size})")
    _time_axis(axes, codes.duration)
    return _write(figure, path, title)


@closed()
def loss(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    *,
    title: Any = "",
    x: str = "step",
    y: str = "loss",
) -> Path:
    """Curves of (x, y) points over one pair of axes, with a legend. Returns the path.

    Points that are not finite are left out. Raises OptionError when no point is left.
    """
    figure, axes = _panels([4.0])
    shown = 0
    for index, (name, points) in enumerate(curves.items()):
        values = np.asarray(points, np.float64).reshape(-1, 2)
        values = values[np.isfinite(values).all(axis=1)]
        shown += len(values)
        style = {"marker": "o", "markersize": 3} if len(values) < 60 else {}
        axes[0].plot(*values.T, color=_LINES[index % len(_LINES)], linewidth=1.4, label=name, **style)
    if not shown:
        raise OptionError("nothing to draw: the curves have no points")
    axes[0].set_xlabel(x)
    axes[0].set_ylabel(y)
    axes[0].grid(color=_GRID, linewidth=0.6)
    if len(curves) > 1:
        axes[0].legend(frameon=False)
    return _write(figure, path, title)


def _panels(heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """A figure with panels of these heights (inches) on one x axis, without any global state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", 'pip install "audiogen-core[plot]"') from error
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.7), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))
    for axis in axes[:, 0]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[:, 0])


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _draw_wave(axis: Any, audio: Clip, channel: int) -> None:
    """The range of the samples in each column, and their RMS in a lighter colour."""
    samples = audio.samples[channel]
    columns = min(_COLUMNS, len(samples))
    starts = np.arange(columns) * len(samples) // columns
    counts = np.diff(np.append(starts, len(samples)))
    time = (starts + counts / 2) / audio.sample_rate
    high, low = np.maximum.reduceat(samples, starts), np.minimum.reduceat(samples, starts)
    rms = np.sqrt(np.add.reduceat(samples.astype(np.float64) ** 2, starts) / counts)
    if columns < _COLUMNS:
        axis.plot(time, samples, color=_DARK, linewidth=0.8)
    else:
        axis.fill_between(time, low, high, color=_DARK, linewidth=0.3)
        axis.fill_between(time, -rms, rms, color=_LIGHT, linewidth=0)
    limit = max(1.0, 1.05 * audio.peak) if audio.peak > 0.5 else max(1e-4, 1.25 * audio.peak)
    axis.set_ylim(-limit, limit)
    axis.grid(color=_GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_ylabel("amplitude" if audio.channels == 1 else f"channel {channel + 1}")


def _draw_spectrogram(axis: Any, spectrum: Spectrogram, reference: float) -> Any:
    bottom, top = float(mel(LOWEST)), float(mel(spectrum.top))
    image = axis.imshow(
        decibels(spectrum.power) - reference,
        aspect="auto",
        origin="lower",
        interpolation="bilinear",
        cmap="magma",
        vmin=-RANGE,
        vmax=0,
        extent=(0, spectrum.seconds, bottom, top),
    )
    marks = _frequency_marks(spectrum.top)
    axis.set_yticks([float(mel(mark)) for mark in marks])
    axis.set_yticklabels([f"{mark / 1000:g}k" if mark >= 1000 else str(mark) for mark in marks])
    axis.set_ylabel("frequency (Hz)")
    axis.set_facecolor(_NOTHING)
    return image


def _frequency_marks(top: float) -> list[int]:
    """Frequencies to write at the axis, far enough from each other to be read."""
    kept: list[int] = []
    room = 0.055 * float(mel(top) - mel(LOWEST))
    for mark in reversed([mark for mark in _HERTZ if LOWEST <= mark <= top]):
        if not kept or mel(kept[-1]) - mel(mark) >= room:
            kept.append(mark)
    return kept


def _reference(spectra: Sequence[Spectrogram]) -> float:
    """dB of the loudest place of all."""
    return max(float(np.nanmax(decibels(spectrum.power))) for spectrum in spectra)


def _colour_bar(figure: Any, image: Any, axes: Sequence[Any]) -> None:
    bar = figure.colorbar(image, ax=list(axes), pad=0.012, fraction=0.03)
    bar.set_label("dB below the loudest")
    bar.set_ticks([-80, -60, -40, -20, 0])


def _time_axis(axes: Sequence[Any], seconds: float) -> None:
    axes[-1].set_xlim(0, seconds)
    if seconds <= 120:
        axes[-1].set_xlabel("time (s)")
        return
    write: Callable[[float, int], str] = lambda value, _: f"{int(value) // 60}:{int(value) % 60:02d}"  # noqa: E731
    axes[-1].xaxis.set_major_locator(_ticker().MaxNLocator(nbins=10, steps=[1, 1.5, 2, 3, 6, 10]))
    axes[-1].xaxis.set_major_formatter(_ticker().FuncFormatter(write))
    axes[-1].set_xlabel("time (min:s)")


def _headline(title: Any) -> str:
    """A title, which may be the name of a file in bytes that are no text, on one line."""
    return name_of(title if isinstance(title, str | Path) else shown(title))[:200]


def _write(figure: Any, path: str | Path, title: Any) -> Path:
    if title is not None and (headline := _headline(title)):
        figure.suptitle(headline, x=0.01, ha="left", fontsize=12, parse_math=False)
    path = Path(path)
    with warnings.catch_warnings(), atomic_path(path, OptionError) as temporary:
        warnings.filterwarnings("ignore", message="Glyph")  # titles may hold what the font does not
        with temporary.open("wb") as file:
            figure.savefig(file, format="png", dpi=_DPI)
    return path
