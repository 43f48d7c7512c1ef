"""The figures of docs/explanation/musicgen.md follow from the sizes of the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "musicgen.md"

SIZES = {  # width, layers, codebooks, what stands before the music: None where there is cross-attention
    "small": (1024, 24, 4, None),
    "stereo-small": (1024, 24, 8, None),
    "medium": (1536, 48, 4, None),
    "stereo-medium": (1536, 48, 8, None),
    "large": (2048, 48, 4, None),
    "stereo-large": (2048, 48, 8, None),
    "melody": (1536, 48, 4, 235 + 16),
    "stereo-melody": (1536, 48, 8, 235 + 16),
    "melody-large": (2048, 48, 4, 235 + 16),
    "stereo-melody-large": (2048, 48, 8, 235 + 16),
    "style": (1536, 48, 4, 15 + 16),
}
PRECISIONS = ((4.0, 4), (2.0, 2), (8.5 / 8, 2), (4.5 / 8, 2))  # bytes of a weight, of a key or value
BANDWIDTHS = (68.25, 100, 120, 200, 273, 400, 546, 4800)  # GB/s


def weights_read(name: str) -> int:
    width, layers, codebooks, prefix = SIZES[name]
    return layers * (14 if prefix is None else 12) * width**2 + codebooks * 2048 * width


def gigabytes(name: str) -> list[float]:
    width, layers, _, prefix = SIZES[name]
    rows = 3 if name == "style" else 2
    behind = rows * layers * 2 * width * (750 + (prefix or 0))
    return [(weights_read(name) * weight + behind * state) / 1e9 for weight, state in PRECISIONS]


def table(columns: int) -> dict[str, list[str]]:
    """The rows of the page's table with so many columns, by their first cell."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if len(row) == columns and row[0] in SIZES}


def number(cell: str) -> float:
    return float(re.sub(r"[^\d.]", "", cell))


@pytest.mark.parametrize("name", SIZES)
def test_bytes_of_a_step(name):
    weights, *sizes = table(6)[name]
    assert number(weights) == round(weights_read(name) / 1e6)
    assert [number(cell) for cell in sizes] == pytest.approx(gigabytes(name), abs=0.008)


@pytest.mark.parametrize("name", SIZES)
def test_limit_of_real_time(name):
    cells = table(9)[name]
    sizes = gigabytes(name)
    for cell, bandwidth in zip(cells, BANDWIDTHS, strict=True):
        made = [number(part) for part in cell.split("/")]
        expected = [bandwidth / size / 50 for size in (sizes[1], sizes[3])]
        assert made == pytest.approx(expected, rel=0.03, abs=0.051)
