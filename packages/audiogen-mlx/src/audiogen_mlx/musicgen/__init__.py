"""MusicGen: text, melody and style to music."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiogen_mlx.musicgen.generate import MusicGen

__all__ = ["MusicGen"]


def __getattr__(name: str) -> Any:
    if name != "MusicGen":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from audiogen_mlx.musicgen.generate import MusicGen

    return MusicGen
