"""A clip's spectrogram as text: pitch upwards in octaves, time to the right, loudness as shade or colour.

The commands that make sound show it when they are done. A column is about a quarter of a second of a clip of
20 s; the lowest rows tell bass and chords apart, the upper ones melody and drums.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.spectrum import LOWEST, decibels, hertz, mel, spectrogram

COLUMNS = 64
ROWS = 14
RANGE = 36.0
"""dB between the brightest and the darkest shade."""
TILT = 3.0
"""dB by which an octave is lifted over the one below: music is quieter the higher it is."""

_BOTTOM, _TOP = 55.0, 10_560.0  # Hz: an octave is just below two rows
_MARKS = (100, 300, 1000, 3000, 10_000)  # Hz
_MARGIN = 6  # characters left of the picture
_SHADES, _ASCII = " ░▒▓█", " .:-=+*#%@"
_BANDS = 192  # of the mel spectrogram that the rows are taken from
_WINDOW = 0.1  # seconds
_DARKER = ((0, 0, 6), (38, 17, 84), (106, 28, 129), (171, 51, 124))
_BRIGHTER = ((231, 82, 99), (254, 145, 104), (252, 253, 191))
_PALETTE = np.array(_DARKER + _BRIGHTER, np.float64)
"""Red, green, blue from silent to loudest, at equal distances."""


class Style(StrEnum):
    """What a picture is drawn with."""

    colours = "24-bit colours, two rows to a line"
    few_colours = "the 216 colours of older terminals, two rows to a line"
    shades = "five Unicode shades"
    ascii = "ten ASCII characters"


def style_for(stream: TextIO, environment: Mapping[str, str] | None = None) -> Style:
    """The best that a stream shows: colours on a terminal unless NO_COLOR is set, ASCII where it must be.

    environment  None is that of the process; NO_COLOR, COLORTERM and TERM count
    """
    told = os.environ if environment is None else environment
    try:
        (_SHADES + "▀").encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Style.ascii
    if told.get("NO_COLOR") or told.get("TERM") == "dumb" or not stream.isatty():
        return Style.shades
    return Style.colours if told.get("COLORTERM") in ("truecolor", "24bit") else Style.few_colours


def picture(audio: Audio, *, style: Style = Style.shades, columns: int = COLUMNS, rows: int = ROWS) -> str:
    """Lines of text: the spectrogram with frequencies at its left, the time axis, and peak and RMS below.

    columns, rows  characters of the spectrogram itself; a margin of 6 columns and 3 lines come on top

    Levels are relative to the loudest place, higher octaves lifted by TILT; peak and RMS in dB of full
    scale, over all channels.
    """
    lines_per_row = 2 if style in (Style.colours, Style.few_colours) else 1
    levels = _levels(audio, columns, rows * lines_per_row)
    body = _coloured(levels, style) if lines_per_row == 2 else _shaded(levels, style)
    labels = _frequency_labels(audio.sample_rate, rows)
    edge, corner, rule = ("|", "+", "-") if style is Style.ascii else ("│", "└", "─")
    lines = [f"{label:>{_MARGIN - 2}} {edge}{row}" for label, row in zip(labels, body, strict=True)]
    lines.append(" " * (_MARGIN - 1) + corner + rule * columns)
    lines.append(" " * _MARGIN + _time_labels(audio.duration, columns))
    lines.append(" " * _MARGIN + f"peak {_full_scale(audio.peak)}, RMS {_full_scale(audio.rms)}")
    return "\n".join(lines)


def show(audio: Audio, stream: TextIO) -> None:
    """Write the picture to a stream, in the style that suits it, and no wider than its terminal."""
    columns = COLUMNS
    if stream.isatty():
        columns = max(16, min(COLUMNS, shutil.get_terminal_size().columns - _MARGIN - 1))
    stream.write(picture(audio, style=style_for(stream), columns=columns) + "\n")
    stream.flush()


def _levels(audio: Audio, columns: int, rows: int) -> NDArray[np.float64]:
    """Loudness in [0, 1] of (rows, columns), the highest pitch first; 0 above what the clip holds."""
    spectrum = spectrogram(audio, bands=_BANDS, columns=columns, window_seconds=_WINDOW)
    level = decibels(np.nan_to_num(spectrum.power))
    if level.max() <= -100:
        return np.zeros((rows, columns))
    centres = hertz(np.linspace(mel(LOWEST), mel(spectrum.top), _BANDS + 2))[1:-1]
    level = level + TILT * np.log2(centres / _BOTTOM)[:, None]
    edges = _BOTTOM * (_TOP / _BOTTOM) ** (np.arange(rows + 1) / rows)
    folded = np.full((rows, level.shape[1]), -np.inf)
    for row, (low, high) in enumerate(pairwise(edges)):
        inside = (centres >= low) & (centres < high)
        if not inside.any() and low < spectrum.top:  # a row narrower than a band takes the nearest
            inside[np.abs(np.log(centres / math.sqrt(low * high))).argmin()] = True
        if inside.any():
            folded[row] = level[inside].max(axis=0)
    wide = folded[:, np.arange(columns) * folded.shape[1] // columns]  # a clip shorter than the columns
    levels: NDArray[np.float64] = np.clip((wide[::-1] - wide.max()) / RANGE + 1, 0, 1)
    return levels


def _shaded(levels: NDArray[np.float64], style: Style) -> list[str]:
    marks = _ASCII if style is Style.ascii else _SHADES
    index = np.minimum((levels * len(marks)).astype(int), len(marks) - 1)
    return ["".join(marks[i] for i in row) for row in index]


def _coloured(levels: NDArray[np.float64], style: Style) -> list[str]:
    """Each line shows two rows: the upper as the colour of a half block, the lower as its background."""
    lines = []
    for above, below in zip(levels[::2], levels[1::2], strict=True):
        cells, before = [], ""
        for upper, lower in zip(_codes(above, style), _codes(below, style), strict=True):
            colours = f"\x1b[38;{upper};48;{lower}m"
            cells.append("▀" if colours == before else f"{colours}▀")
            before = colours
        lines.append("".join(cells) + "\x1b[0m")
    return lines


def _codes(levels: NDArray[np.float64], style: Style) -> list[str]:
    """The colour of each level as a terminal is told it."""
    place = levels * (len(_PALETTE) - 1)
    stops = np.arange(len(_PALETTE))
    red_green_blue = np.stack([np.interp(place, stops, part) for part in _PALETTE.T], axis=1)
    if style is Style.few_colours:
        cube = np.round(red_green_blue / 255 * 5).astype(int) @ np.array([36, 6, 1]) + 16
        return [f"5;{code}" for code in cube]
    return [f"2;{r:.0f};{g:.0f};{b:.0f}" for r, g, b in red_green_blue]


def _frequency_labels(rate: int, rows: int) -> Sequence[str]:
    labels = [""] * rows
    for mark in _MARKS:
        if mark < rate / 2:
            row = math.floor(rows * math.log(mark / _BOTTOM) / math.log(_TOP / _BOTTOM))
            labels[rows - 1 - row] = f"{mark // 1000}k" if mark >= 1000 else str(mark)
    labels[0] = labels[0] or "Hz"
    return labels


def _time_labels(seconds: float, columns: int) -> str:
    """Times below their columns, at steps of 1, 2 or 5 of some size, with room between them."""
    least = seconds * 10 / columns
    size = 10.0 ** math.floor(math.log10(least))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= least)
    line = ""
    for index in range(math.floor(seconds / step) + 1):
        label, column = (
            f"{index * step:g}" + (" s" if index == 0 else ""),
            round(index * step / seconds * columns),
        )
        if column + len(label) <= columns:
            line = line.ljust(column) + label
    return line


def _full_scale(value: float) -> str:
    return f"{20 * math.log10(value):.2f} dB" if value > 0 else "silent"
