"""MusicGen and Stable Audio Open in MLX."""

from typing import TYPE_CHECKING, Any

from audiogen_mlx import blas

if TYPE_CHECKING:
    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.stable_audio.generate import StableAudio

__all__ = ["MusicGen", "StableAudio"]

blas.watch()  # before anything in this package imports mlx.core


def __getattr__(name: str) -> Any:
    """The models are imported when they are first used: mlx takes longer than `--help` may."""
    if name == "MusicGen":
        from audiogen_mlx.musicgen.generate import MusicGen

        return MusicGen
    if name == "StableAudio":
        from audiogen_mlx.stable_audio.generate import StableAudio

        return StableAudio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
