"""The tables of reference/models.md, from the catalogues of the packages."""

from __future__ import annotations

from collections.abc import Iterable

from audiogen_core.codecs.catalog import CATALOG as CODECS
from audiogen_core.models import ModelSpec
from audiogen_mlx.catalog import CATALOG as MLX
from audiogen_mlx.catalog import TEXT_ENCODERS
from audiogen_onnx.catalog import CATALOG as ONNX

CATALOGUES = {
    "audiogen-core": CODECS,
    "audiogen-mlx": MLX,
    "audiogen-onnx": ONNX,
}


def table(package: str) -> str:
    """The models of one catalogue: where they come from, how surely, and under which licence."""
    return _rows(CATALOGUES[package].values())


def text_encoders() -> str:
    """What checkpoints without a text encoder fetch beside themselves."""
    return _rows(TEXT_ENCODERS.values())


def _rows(specs: Iterable[ModelSpec]) -> str:
    rows = ["| name | from | pinned to | licence |", "| --- | --- | --- | --- |"]
    rows += [f"| `{spec.name}` | {_source(spec)} | {_pin(spec)} | {spec.license} |" for spec in specs]
    return "\n".join(rows)


def _source(spec: ModelSpec) -> str:
    return f"[{spec.repo}]({spec.page})"


def _pin(spec: ModelSpec) -> str:
    if not spec.pinned:
        return f"the newest of `{spec.revision}`"
    known = sum(file.sha256 is not None for file in spec.files)
    return f"`{spec.revision[:12]}`" + (f", {known} sha256" if known else "")
