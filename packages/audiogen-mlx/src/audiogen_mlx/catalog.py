"""The models that can be fetched by name."""

from __future__ import annotations

from audiogen_core.models import ModelSpec, Shipped
from audiogen_mlx.musicgen.catalog import MUSICGEN, T5_LARGE
from audiogen_mlx.stable_audio import catalog as stable_audio

MODELS: tuple[ModelSpec | Shipped, ...] = (*MUSICGEN.values(), *stable_audio.CATALOG.values())
"""Everything that makes sound. `demo` is there twice: each command has one."""

CATALOG: dict[str, ModelSpec | Shipped] = {**stable_audio.CATALOG, **MUSICGEN}
"""The same by name, for commands that take any of them."""

TEXT_ENCODERS: dict[str, ModelSpec] = {**stable_audio.TEXT_ENCODERS, T5_LARGE.name: T5_LARGE}
"""What checkpoints without a text encoder need."""
