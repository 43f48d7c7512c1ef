"""The models that can be fetched by name, by what they are for: what models.toml says, here and in core."""

from __future__ import annotations

from audiogen_core.models import ModelSpec, Shipped, read_catalog
from audiogen_core.musicgen import catalog as core

_ALL = read_catalog("audiogen_mlx")


def _family(family: str) -> dict[str, ModelSpec | Shipped]:
    return {spec.name: spec for spec in _ALL.values() if spec.family == family}


MUSICGEN: dict[str, ModelSpec | Shipped] = {**_family("musicgen"), **core.MUSICGEN}
STABLE_AUDIO = _family("stable-audio")
STABLE_AUDIO_3 = _family("stable-audio-3")

MODELS = (*MUSICGEN.values(), *STABLE_AUDIO.values(), *STABLE_AUDIO_3.values())
"""Everything that makes sound. `demo` is there twice: each command has one."""

CATALOG = {**STABLE_AUDIO_3, **STABLE_AUDIO, **MUSICGEN}
"""The same by name, for commands that take any of them."""
