"""What a run would take, found out without opening a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiogen_core.audio import Audio, probe
from audiogen_core.jobs import Sound, imported
from audiogen_core.models import find
from audiogen_core.tokenizer import Tokenizer
from audiogen_onnx.catalog import MAGNET
from audiogen_onnx.magnet.manifest import MagnetManifest
from audiogen_onnx.magnet.options import Load, Options, resolve
from audiogen_onnx.manifest import NAME
from audiogen_onnx.musicgen.manifest import TOKENIZER


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """The settings as they would be carried out; for a model that is yet to be fetched or exported, only what
    that takes.

    Raises DownloadError when it is not here and may not be asked for.
    """
    to_fetch = imported("audiogen_onnx.exporter.musicgen.export:to_fetch")
    first: dict[str, Any] | None = to_fetch(MAGNET, load.model, offline=offline, unlisted=load.unlisted)
    if first is not None:
        return first
    exported = imported("audiogen_onnx.exporter.magnet:exported")
    folder = exported(load.model, offline=offline, unlisted=load.unlisted)
    manifest = MagnetManifest.load(folder)
    settings = resolve(manifest.config, manifest.codec.frame_rate, options)
    return {
        "model": load.model,
        "download_bytes": 0,
        "dtype": manifest.dtype,
        "weight_bytes": sum(stored.size for stored in manifest.graphs["network"].files),
        "frames": settings.frames,
        "window_frames": settings.window,
        "passes": sum(settings.staging.steps) * (1 + options.loop),
        **settings.asked,
        "seconds": settings.seconds,
        "not_followed": Tokenizer.load(folder / TOKENIZER).not_followed(options.prompt),
    }


def _seconds(path: str | Path) -> float:
    info = probe(path)
    return info.frames / info.sample_rate


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as far as the catalogue or the folder says."""
    found, seconds = find(MAGNET, load.model, unlisted=load.unlisted), options.seconds
    clip = options.init_audio
    if clip is not None:
        seconds = clip.duration if isinstance(clip, Audio) else _seconds(clip)
    if not isinstance(found, Path):
        return Sound(found.sample_rate, found.channels, seconds)
    if not (found / NAME).is_file():
        return Sound(seconds=seconds)
    manifest = MagnetManifest.load(found)
    return Sound(manifest.codec.sample_rate, manifest.codec.channels, seconds or manifest.config.seconds)
