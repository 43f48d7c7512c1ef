"""What `audiogen-mlx doctor` shows: core's facts, the device mlx computes on, and its matrix library."""

from __future__ import annotations

from typing import Any

from audiogen_core import doctor, playback
from audiogen_mlx import blas

SUBJECT = doctor.Subject(
    "audiogen-mlx",
    ("mlx", "tokenizers", "numpy", "soundfile", "soxr", "safetensors", "huggingface-hub"),
    {
        "sounddevice": doctor.Extra(
            playback.INSTALL, ("musicgen --play", "stable-audio --play", "replay --play")
        )
    },
    ("tune", "convert", "info", "models", "prompts", "verify", "replay"),
)


def report(*, measure: bool = False) -> dict[str, Any]:
    """Facts, and sentences about what will not work well. `measure` times a matrix product."""
    import mlx.core as mx

    library = blas.describe(measure=measure)
    facts = doctor.examine(SUBJECT, [str(mx.default_device())], matrix_products=library)
    if library["hint"]:
        facts["problems"].append(library["hint"])
    return facts
