"""Which exporter a checkpoint is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from audiogen_core.errors import ModelError
from audiogen_core.musicgen.files import Files
from audiogen_onnx.catalog import MAGNET, MUSICGEN
from audiogen_onnx.exporter.magnet import export_magnet
from audiogen_onnx.exporter.musicgen.export import Catalog, export_musicgen, is_checkpoint
from audiogen_onnx.exporter.sources import COARSE
from audiogen_onnx.magnet.config import LM


class Kind(NamedTuple):
    """A family that is exported with onnx alone."""

    catalog: Catalog
    export: Callable[..., Any]


def kind_of(checkpoints: str) -> Kind | None:
    """Of a name of a catalogue or a path; None: VampNet's."""
    path = Path(checkpoints)
    if not path.exists():
        kinds = (Kind(MUSICGEN, export_musicgen), Kind(MAGNET, export_magnet))
        return next((kind for kind in kinds if checkpoints in kind.catalog), None)
    if (path / COARSE).is_file() or not is_checkpoint(path):
        return None
    try:
        model = Files(path).settings.get("lm_model")
    except ModelError:
        model = None  # which the exporter tells
    return Kind(MAGNET, export_magnet) if model == LM else Kind(MUSICGEN, export_musicgen)
