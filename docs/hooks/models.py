"""The tables of reference/models.md: the catalogues of the packages, and what was checked of each model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from audiogen_core.codecs.catalog import CATALOG as CODECS
from audiogen_core.models import ModelSpec, Shipped
from audiogen_core.musicgen.catalog import TEXT_ENCODERS
from audiogen_mlx.catalog import CATALOG as MLX
from audiogen_onnx.catalog import CATALOG, MAGNET

CATALOGUES: dict[str, Mapping[str, ModelSpec | Shipped]] = {
    "audiogen-core": CODECS,
    "audiogen-mlx": MLX,
    "audiogen-onnx": {**CATALOG, **MAGNET},
}

CHECKED = {
    "encodec-24khz": "S F",
    "encodec-32khz": "S N F",
    "encodec-48khz": "S F",
    "dac-16khz": "S",
    "dac-24khz": "S",
    "dac-44khz": "S F",
    "lac": "S F",
    "musicgen-small": "S N F",
    "musicgen-medium": "S N",
    "musicgen-large": "S N",
    "musicgen-stereo-small": "S N F",
    "musicgen-stereo-medium": "S N",
    "musicgen-stereo-large": "S N",
    "musicgen-melody": "S N",
    "musicgen-melody-large": "S N",
    "musicgen-stereo-melody": "S N",
    "musicgen-stereo-melody-large": "S N",
    "musicgen-style": "S N",
    "audiogen-medium": "N",
    "stable-audio-open-small": "S F",
    "stable-audio-open-small-base": "S F",
    "stable-audio-open-1.0": "S F",
    "stable-audio-3-small-music": "S N F",
    "stable-audio-3-small-sfx": "S N",
    "stable-audio-3-medium": "S N F",
    "stable-audio-3-small-music-base": "S N",
    "stable-audio-3-small-sfx-base": "S N",
    "stable-audio-3-medium-base": "S N",
    "stable-audio-3-small-music-f16": "S N",
    "stable-audio-3-small-sfx-f16": "S N",
    "stable-audio-3-medium-f16": "S N",
    "vampnet": "S F",
    "magnet-small-10secs": "S N",
    "magnet-small-30secs": "S",
    "magnet-medium-10secs": "S",
    "magnet-medium-30secs": "S N",
    "audio-magnet-small": "S N",
    "audio-magnet-medium": "S",
    "t5-base": "S",
    "t5-large": "S",
}
"""Model -> what it was verified against; the letters are explained on the page."""


def table(package: str) -> str:
    """The models of one catalogue: where they come from, how surely, their licence, what was checked."""
    return _rows(CATALOGUES[package].values())


def text_encoders() -> str:
    """What checkpoints without a text encoder fetch beside themselves."""
    return _rows(TEXT_ENCODERS.values())


def _rows(specs: Iterable[ModelSpec | Shipped]) -> str:
    rows = ["| name | from | pinned to | licence | verified |", "| --- | --- | --- | --- | --- |"]
    for spec in specs:
        if isinstance(spec, ModelSpec):
            source = f"[{spec.repo}]({spec.page})"
            rows.append(
                f"| `{spec.name}` | {source} | {_pin(spec)} | {spec.license} | {CHECKED[spec.name]} |"
            )
    return "\n".join(rows)


def _pin(spec: ModelSpec) -> str:
    if not spec.pinned:
        return f"the newest of `{spec.revision}`"
    known = sum(file.sha256 is not None for file in spec.files)
    return f"`{spec.revision[:12]}`" + (f", {known} sha256" if known else "")
