"""The MusicGens that can be fetched by name, and what they need beside themselves: what models.toml says."""

from __future__ import annotations

from audiogen_core.models import ModelSpec, read_catalog

_ALL = {
    name: spec
    for name, spec in read_catalog("audiogen_core", "musicgen/models.toml").items()
    if isinstance(spec, ModelSpec)
}

MUSICGEN = {name: spec for name, spec in _ALL.items() if spec.family == "musicgen"}
"""The models themselves; each package adds its demo."""

TEXT_ENCODERS = {name: spec for name, spec in _ALL.items() if spec.family == "t5"}
"""What checkpoints without a text encoder need."""

T5_TOKENIZER = _ALL["t5-tokenizer"]
T5_VOCABULARY = 32_128
"""Rows of the embedding that belong to this tokenizer."""

MERT = _ALL["mert-v1-95m"]
"""The MERT that musicgen-style was trained with."""
