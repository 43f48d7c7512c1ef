"""What `audiogen-onnx doctor` shows: core's facts, onnxruntime's providers, and where exports are kept."""

from __future__ import annotations

from typing import Any

from audiogen_core import doctor, playback
from audiogen_onnx import catalog
from audiogen_onnx.manifest import NAME, TRACKER

_EXPORT = 'pip install "audiogen-onnx[export]"'
_PLOT = 'pip install "audiogen-onnx[plot]"'

SUBJECT = doctor.Subject(
    "audiogen-onnx",
    ("onnxruntime", "numpy", "soundfile", "soxr", "safetensors", "huggingface-hub"),
    {
        "torch": doctor.Extra(_EXPORT, ("export", "tune", "bench --checkpoints")),
        "onnx": doctor.Extra(_EXPORT, ("quantize", "web")),
        "onnxscript": doctor.Extra(_EXPORT, ("export",)),
        "sounddevice": doctor.Extra(playback.INSTALL, ("vamp --play", "replay --play")),
        "matplotlib": doctor.Extra(_PLOT, ("vamp --preview",)),
        "pillow": doctor.Extra(_PLOT, ("vamp --mask FILE.png", "vamp --save-mask FILE.png")),
    },
    ("replay", "beats", "info", "models", "verify", "bench"),
)


def report() -> dict[str, Any]:
    """Facts, and sentences about what will not work."""
    import onnxruntime

    folder = catalog.cache()
    names = sorted(path.parent.name for path in folder.glob(f"*/{NAME}"))
    exported = {"folder": str(folder), "models": names}
    facts = doctor.examine(SUBJECT, list(onnxruntime.get_available_providers()), exported=exported)
    if facts["commands"]["audiogen-onnx beats"] == "ready" and not list(folder.glob(f"*/{TRACKER}")):
        facts["commands"]["audiogen-onnx beats"] = (
            "no beat tracker is here yet: vampnet, which has one, is fetched and exported when it is first "
            f"used, for which there must be: {_EXPORT}"
        )
    return facts
