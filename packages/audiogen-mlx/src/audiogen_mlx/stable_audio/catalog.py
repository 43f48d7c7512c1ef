"""The Stable Audio models that can be fetched by name, and the text encoder they share."""

from __future__ import annotations

from audiogen_mlx.catalog import STABLE_AUDIO as CATALOG
from audiogen_mlx.catalog import TEXT_ENCODERS

__all__ = ["CATALOG", "TEXT_ENCODERS"]
