"""Neural audio codecs, audio files, weights: what every audiogen package shares.

```
from audiogen_core import Audio, codecs

codec = codecs.load("demo")
audio = Audio.load("clip.wav", sample_rate=codec.info.sample_rate, channels=codec.info.channels)
codes = codec.encode(audio)
codec.decode(codes).save("again.wav")
```
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from audiogen_core import codecs, patterns, weights
    from audiogen_core.audio import Audio
    from audiogen_core.codec import Autoencoder, AutoencoderInfo, Codec, CodecInfo
    from audiogen_core.codes import Codes, Latents
    from audiogen_core.errors import AudiogenError
    from audiogen_core.noise import Noise, RecordedNoise, SeededNoise
    from audiogen_core.recipe import Recipe
    from audiogen_core.sampling import Sampling

__all__ = [
    "Audio",
    "AudiogenError",
    "Autoencoder",
    "AutoencoderInfo",
    "Codec",
    "CodecInfo",
    "Codes",
    "Latents",
    "Noise",
    "Recipe",
    "RecordedNoise",
    "Sampling",
    "SeededNoise",
    "codecs",
    "patterns",
    "weights",
]


_HOMES = {
    "Audio": "audio",
    "AudiogenError": "errors",
    "Autoencoder": "codec",
    "AutoencoderInfo": "codec",
    "Codec": "codec",
    "CodecInfo": "codec",
    "Codes": "codes",
    "Latents": "codes",
    "Noise": "noise",
    "Recipe": "recipe",
    "RecordedNoise": "noise",
    "Sampling": "sampling",
    "SeededNoise": "noise",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used: numpy alone takes longer than `--help` may."""
    if name == "__version__":
        from audiogen_core.version import version

        return version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
