"""The models that can be fetched by name."""

from __future__ import annotations

from audiogen_core.models import ModelSpec
from audiogen_mlx.stable_audio.catalog import TEXT_ENCODERS as _STABLE_AUDIO_TEXT

TEXT_ENCODERS: dict[str, ModelSpec] = {**_STABLE_AUDIO_TEXT}

MUSICGEN: dict[str, ModelSpec] = {}
