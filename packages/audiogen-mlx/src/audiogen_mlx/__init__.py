"""MusicGen, Stable Audio Open and Stable Audio 3 in MLX.

```
from audiogen_mlx import MusicGen

model = MusicGen.load("demo")
model.generate("slow piano in C minor", seconds=10, seed=1).save("piano.wav")
```
"""

from __future__ import annotations

from importlib import import_module

from audiogen_mlx import door

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from audiogen_mlx.musicgen.generate import MusicGen
    from audiogen_mlx.stable_audio.generate import StableAudio
    from audiogen_mlx.stable_audio_3.generate import StableAudio3

__all__ = ["MusicGen", "StableAudio", "StableAudio3"]

_PLACES = {
    "MusicGen": "musicgen.generate",
    "StableAudio": "stable_audio.generate",
    "StableAudio3": "stable_audio_3.generate",
}

door.watch()  # before anything in this package imports mlx.core


def __getattr__(name: str) -> Any:
    """The models are imported when they are first used: mlx takes longer than `--help` may."""
    if name == "__version__":
        from audiogen_core.version import version

        return version("audiogen-mlx")
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
