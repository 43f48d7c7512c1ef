"""Names of the files a command writes."""

from __future__ import annotations

from pathlib import Path


def numbered(output: Path, count: int) -> list[Path]:
    """The path itself, or "name-1.wav", "name-2.wav", ..."""
    if count == 1:
        return [output]
    width = len(str(count))
    return [output.with_stem(f"{output.stem}-{index + 1:0{width}}") for index in range(count)]
