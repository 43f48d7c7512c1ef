"""Neural audio codecs, audio files, weights: what every audiogen package shares.

```
from audiogen_core import Audio, codecs

codec = codecs.load("demo")
audio = Audio.load("clip.wav", sample_rate=codec.info.sample_rate, channels=codec.info.channels)
codes = codec.encode(audio)
codec.decode(codes).save("again.wav")
```
"""

from audiogen_core import codecs, patterns, weights
from audiogen_core.audio import Audio
from audiogen_core.codec import Codec, CodecInfo
from audiogen_core.codes import Codes, Latents
from audiogen_core.errors import AudiogenError
from audiogen_core.recipe import Recipe
from audiogen_core.sampling import Sampling

__all__ = [
    "Audio",
    "AudiogenError",
    "Codec",
    "CodecInfo",
    "Codes",
    "Latents",
    "Recipe",
    "Sampling",
    "codecs",
    "patterns",
    "weights",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from audiogen_core.version import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
