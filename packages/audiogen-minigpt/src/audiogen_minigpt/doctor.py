"""What `audiogen-minigpt doctor` shows: core's facts, and torch's devices."""

from __future__ import annotations

from typing import Any

from audiogen_core import doctor, playback

SUBJECT = doctor.Subject(
    "audiogen-minigpt",
    ("torch", "numpy", "matplotlib", "soundfile", "soxr", "safetensors", "huggingface-hub"),
    {
        "ray": doctor.Extra('pip install "audiogen-core[ray]"', ("encode --engine ray",)),
        "sounddevice": doctor.Extra(playback.INSTALL, ("generate --play", "replay --play")),
    },
    ("run", "encode", "train", "replay", "eval", "export", "info", "models", "verify"),
)


def report() -> dict[str, Any]:
    """Facts, and sentences about what will not work."""
    return doctor.examine(SUBJECT, doctor.devices())
