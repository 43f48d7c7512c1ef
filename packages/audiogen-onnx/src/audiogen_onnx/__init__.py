"""VampNet, MusicGen and MAGNeT in ONNX: export, and a runtime of onnxruntime and numpy.

```
from audiogen_core import Audio
from audiogen_onnx import MusicGen, Vampnet

vampnet = Vampnet.load("exported")
vampnet.vamp(Audio.load("in.wav"), seed=1).save("out.wav")
MusicGen.load("demo").generate("slow piano in C minor", seconds=10, seed=1).save("piano.wav")
```
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from audiogen_onnx.exporter.export import export
    from audiogen_onnx.exporter.magnet import export_magnet
    from audiogen_onnx.exporter.musicgen.export import export_musicgen
    from audiogen_onnx.magnet.generate import Magnet
    from audiogen_onnx.manifest import Manifest
    from audiogen_onnx.musicgen.generate import MusicGen
    from audiogen_onnx.session import Session
    from audiogen_onnx.vampnet.generate import Vampnet
    from audiogen_onnx.vampnet.options import VampOptions
    from audiogen_onnx.vampnet.sampling import fill

__all__ = [
    "Magnet",
    "Manifest",
    "MusicGen",
    "Session",
    "VampOptions",
    "Vampnet",
    "__version__",
    "export",
    "export_magnet",
    "export_musicgen",
    "fill",
]

_PLACES = {
    "Magnet": "magnet.generate",
    "Manifest": "manifest",
    "MusicGen": "musicgen.generate",
    "Session": "session",
    "VampOptions": "vampnet.options",
    "Vampnet": "vampnet.generate",
    "export": "exporter.export",
    "export_magnet": "exporter.magnet",
    "export_musicgen": "exporter.musicgen.export",
    "fill": "vampnet.sampling",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from audiogen_core.version import version

        return version("audiogen-onnx")
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
