"""What a run would take, found out without opening a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiogen_core.jobs import Sound, imported
from audiogen_core.models import find
from audiogen_core.musicgen.options import Defaults, Options, resolve
from audiogen_core.tokenizer import Tokenizer
from audiogen_onnx.catalog import MUSICGEN
from audiogen_onnx.manifest import NAME
from audiogen_onnx.musicgen.manifest import TOKENIZER, MusicGenManifest
from audiogen_onnx.musicgen.options import Load

_CACHED = {"float32": 4, "float16": 4, "int8": 1, "int4": 1}
"""Bytes of a number among keys and values."""

_EXPORTER = "audiogen_onnx.exporter.musicgen.export"


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """The settings as they would be carried out, and the memory that takes; for a model that is yet to be
    fetched or exported, only what that takes.

    Raises DownloadError when it is not here and may not be asked for.
    """
    first: dict[str, Any] | None = imported(f"{_EXPORTER}:to_fetch")(
        MUSICGEN, load.model, offline=offline, unlisted=load.unlisted
    )
    if first is not None:
        return first
    folder: Path = imported(f"{_EXPORTER}:exported")(load.model, offline=offline, unlisted=load.unlisted)
    manifest = MusicGenManifest.load(folder)
    config, tokenizer = manifest.config, Tokenizer.load(folder / TOKENIZER)
    settings = resolve(config, manifest.codec.frame_rate, options, Defaults.from_dict(manifest.defaults))
    rows = 1 if settings.guidance_scale == 1 else 2
    if settings.style is not None and settings.style_guidance not in (None, 1):
        rows += 1
    positions = min(settings.frames, settings.window) + 1 + max(config.delays)
    return {
        "model": load.model,
        "download_bytes": 0,
        "dtype": manifest.dtype,
        "weight_bytes": sum(stored.size for stored in manifest.graphs["decoder"].files),
        "cache_bytes": 2 * rows * config.layers * config.width * positions * _CACHED[manifest.dtype],
        "frames": settings.frames,
        "window_frames": settings.window,
        "stride_frames": settings.stride,
        **settings.asked,
        "seconds": settings.seconds,
        "not_followed": tokenizer.not_followed(options.prompt, options.negative_prompt),
    }


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as far as the catalogue or the folder says."""
    found = find(MUSICGEN, load.model, unlisted=load.unlisted)
    if not isinstance(found, Path):
        return Sound(found.sample_rate, found.channels, options.seconds)
    if not (found / NAME).is_file():
        return Sound(seconds=options.seconds)
    manifest = MusicGenManifest.load(found)
    seconds = options.seconds or Defaults.from_dict(manifest.defaults).seconds
    return Sound(manifest.codec.sample_rate, manifest.config.channels, seconds)
