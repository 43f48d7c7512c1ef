"""The models that can be fetched by name."""

from __future__ import annotations

from audiogen_core.models import ModelSpec
from audiogen_mlx.musicgen.catalog import CATALOG as MUSICGEN
from audiogen_mlx.musicgen.catalog import TEXT_ENCODERS as _MUSICGEN_TEXT
from audiogen_mlx.stable_audio.catalog import TEXT_ENCODERS as _STABLE_AUDIO_TEXT

__all__ = ["MUSICGEN", "TEXT_ENCODERS"]

TEXT_ENCODERS: dict[str, ModelSpec] = {**_STABLE_AUDIO_TEXT, **_MUSICGEN_TEXT}
