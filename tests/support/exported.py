"""The small model of the fixtures, exported once for all tests of a run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from audiogen_onnx.exporter.export import export
from support.vampnet_numpy import FIXTURES


def exported(size: str = "small") -> Path:
    """An exported folder; not to be changed (copy it)."""
    return _exported(size)


@cache
def _exported(size: str) -> Path:
    place = Path(tempfile.mkdtemp(prefix="audiogen-exported-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    export(FIXTURES / size, place / size, check=False)
    return place / size


def exported_copy(place: Path, size: str = "small") -> Path:
    """A copy of an exported folder that may be damaged."""
    return Path(shutil.copytree(exported(size), place / size))
