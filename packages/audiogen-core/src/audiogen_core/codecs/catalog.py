"""The codecs that can be fetched by name: what models.toml says."""

from __future__ import annotations

from audiogen_core.models import ModelSpec, read_catalog

CATALOG = {name: spec for name, spec in read_catalog("audiogen_core").items() if isinstance(spec, ModelSpec)}
