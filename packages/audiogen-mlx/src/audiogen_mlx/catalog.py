"""The models that can be fetched by name: what models.toml says, by what they are for."""

from __future__ import annotations

from audiogen_core.models import ModelSpec, Shipped, read_catalog

_ALL = read_catalog("audiogen_mlx")


def _family(family: str) -> dict[str, ModelSpec | Shipped]:
    return {spec.name: spec for spec in _ALL.values() if spec.family == family}


MUSICGEN = _family("musicgen")
STABLE_AUDIO = _family("stable-audio")
STABLE_AUDIO_3 = _family("stable-audio-3")

MODELS = (*MUSICGEN.values(), *STABLE_AUDIO.values(), *STABLE_AUDIO_3.values())
"""Everything that makes sound. `demo` is there twice: each command has one."""

CATALOG = {**STABLE_AUDIO_3, **STABLE_AUDIO, **MUSICGEN}
"""The same by name, for commands that take any of them."""

FETCHED = {name: spec for name, spec in _ALL.items() if isinstance(spec, ModelSpec)}

TEXT_ENCODERS = {name: spec for name, spec in FETCHED.items() if spec.family == "t5"}
"""What checkpoints without a text encoder need."""

T5_TOKENIZER = FETCHED["t5-tokenizer"]
T5_VOCABULARY = 32_128
"""Rows of the embedding that belong to this tokenizer."""

MERT = FETCHED["mert-v1-95m"]
"""The MERT that musicgen-style was trained with."""
