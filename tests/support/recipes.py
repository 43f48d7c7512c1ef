"""Training recipes, which lie outside the packages: their modules, and their settings made tiny."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[2] / "packages" / "audiogen-core" / "recipes"


class Modules:
    """A recipe's modules as attributes, each imported when it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return importlib.import_module(name)


@contextmanager
def recipe(*names: str) -> Iterator[Modules]:
    """The modules of these folders of the recipes, while the context lasts: others have the same names."""
    folders = [RECIPES / name for name in names]
    own = {path.stem for folder in folders for path in folder.glob("*.py")}
    before, kept = list(sys.path), {name: sys.modules.pop(name) for name in own & set(sys.modules)}
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield Modules()
    finally:
        sys.path[:] = before
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def tiny(name: str, changes: Mapping[str, Any], folder: Path) -> Path:
    """The shipped settings of a recipe with other values, each wherever it has that name."""
    text = (RECIPES / name / "config.toml").read_text(encoding="utf-8")
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {json.dumps(value)} ", text)
        assert count >= 1, key
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path
