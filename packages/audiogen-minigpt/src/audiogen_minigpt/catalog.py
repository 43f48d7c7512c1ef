"""The models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from audiogen_core.models import Shipped

CATALOG = {
    "demo": Shipped(
        "demo",
        "minigpt",
        "audiogen_minigpt",
        "data/demo",
        "Apache-2.0",
        "A toy: music box, piano, beat and chiptune, as a program composes them.",
    )
}


def locate(model: str | Path) -> Path:
    """The folder that a name or a path stands for: what is there under that path wins.

    Raises ModelError when the package is installed without the model.
    """
    path = Path(model)
    return path if path.exists() or str(model) not in CATALOG else CATALOG[str(model)].path
