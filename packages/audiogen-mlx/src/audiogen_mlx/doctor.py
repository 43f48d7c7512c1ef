"""What `doctor` shows: versions, the device mlx computes on, its matrix library, the cache."""

from __future__ import annotations

from typing import Any

from audiogen_core import doctor
from audiogen_mlx import blas

PACKAGES = ("audiogen-mlx", "audiogen-core", "mlx", "tokenizers", "numpy")


def report(*, measure: bool = False) -> dict[str, Any]:
    """Facts, and sentences about what will not work. `measure` times a matrix product."""
    import mlx.core as mx

    facts: dict[str, Any] = {name: doctor.installed(name) for name in PACKAGES}
    facts["device"] = str(mx.default_device())
    facts["matrix_products"] = blas.describe(measure=measure)
    facts["cache"] = doctor.cache()
    facts["problems"] = list(doctor.problems())
    return facts
