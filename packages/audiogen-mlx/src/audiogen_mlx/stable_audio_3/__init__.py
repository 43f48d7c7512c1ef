"""Stable Audio 3: small, medium, and every model of their family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiogen_mlx.stable_audio_3.generate import StableAudio3

__all__ = ["StableAudio3"]


def __getattr__(name: str) -> Any:
    if name != "StableAudio3":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from audiogen_mlx.stable_audio_3.generate import StableAudio3

    return StableAudio3
