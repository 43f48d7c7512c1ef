"""The models that can be fetched by name."""

from __future__ import annotations

from audiogen_core.models import ModelSpec
from audiogen_mlx.musicgen.catalog import MUSICGEN, T5_LARGE
from audiogen_mlx.stable_audio import catalog as stable_audio

CATALOG: dict[str, ModelSpec] = {**MUSICGEN, **stable_audio.CATALOG}
"""Everything that makes sound."""

TEXT_ENCODERS: dict[str, ModelSpec] = {**stable_audio.TEXT_ENCODERS, T5_LARGE.name: T5_LARGE}
"""What checkpoints without a text encoder need."""
