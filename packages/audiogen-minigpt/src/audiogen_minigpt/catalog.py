"""The models that come with the package, by name: see models.toml."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from audiogen_core.models import Shipped, read_catalog

CATALOG = {
    name: spec
    for name, spec in read_catalog("audiogen_minigpt").items()
    if isinstance(spec, Shipped) and files(spec.package).joinpath(spec.folder).is_dir()
}
"""Those whose files are there: a copy of the package without weights knows no names."""


def locate(model: str | Path) -> Path:
    """The folder that a name or a path stands for: what is there under that path wins."""
    path = Path(model)
    return path if path.exists() or str(model) not in CATALOG else CATALOG[str(model)].path
