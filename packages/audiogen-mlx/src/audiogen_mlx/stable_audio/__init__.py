"""Stable Audio Open: small, 1.0, and every model of their family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiogen_mlx.stable_audio.generate import StableAudio

__all__ = ["StableAudio"]


def __getattr__(name: str) -> Any:
    if name != "StableAudio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from audiogen_mlx.stable_audio.generate import StableAudio

    return StableAudio
