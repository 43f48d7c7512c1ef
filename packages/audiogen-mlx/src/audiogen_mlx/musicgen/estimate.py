"""What a run would take, found out without loading the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from audiogen_core.models import find
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.musicgen.config import Config
from audiogen_mlx.musicgen.load import Files, Places, outline
from audiogen_mlx.musicgen.options import Load, Options, Settings, resolve
from audiogen_mlx.nn import parameters
from audiogen_mlx.pretrained import fetch_from_hub

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """The settings as they would be carried out, what would be fetched, and the memory it would take.

    For a model that is yet to be fetched, only what is known of it before. Raises DownloadError when it is
    not here and may not be asked for.
    """
    from audiogen_core import hub

    found = find(MUSICGEN, load.model, unlisted=load.unlisted)
    if not isinstance(found, Path):
        todo = hub.plan(found, offline=offline or None)
        if todo.wanted:
            return {
                "model": load.model,
                "license": found.license,
                "page": found.page,
                "download_bytes": todo.bytes,
                "download_to": str(todo.folder),
            }
        found = todo.folder
    places = Places(load.t5, load.tokenizer, load.codec, load.mert, load.fetch or fetch_from_hub)
    files = Files(found, places)
    config = files.config
    settings = resolve(config, _frame_rate(files), options, files.defaults)
    dtype = load.dtype or files.stored_dtype
    return {
        "model": load.model,
        "download_bytes": 0,
        "weight_bytes": weight_bytes(config, dtype, load.bits or files.stored_bits),
        "cache_bytes": cache_bytes(config, settings, dtype),
        "frames": settings.frames,
        "window_frames": settings.window,
        "stride_frames": settings.stride,
        **settings.asked,
        "seconds": settings.seconds,
    }


def weight_bytes(config: Config, dtype: str, bits: int | None) -> int:
    """Of the transformer's parameters."""
    network = outline(config, dtype=dtype, bits=bits)
    return sum(
        math.prod(one.shape) * (4 if one.packed else _BYTES[dtype])
        for one in parameters(network, stored_quantized=True)
    )


def cache_bytes(config: Config, settings: Settings, dtype: str) -> int:
    """Of the keys and values of a window of one clip, at most three rows."""
    rows = 1 if settings.guidance_scale == 1 else 2
    if settings.style is not None and settings.style_guidance not in (None, 1):
        rows += 1
    positions = min(settings.frames, settings.window) + 1 + max(config.delays)
    return 2 * rows * config.layers * config.width * positions * _BYTES[dtype]


def _frame_rate(files: Files) -> float:
    """Of the codec, from its configuration where that is beside the model."""
    if files.named_codec is not None:
        from audiogen_core.codecs import load_codec

        return load_codec(files.named_codec).info.frame_rate
    codec = files.settings.get("audio_encoder")
    if isinstance(codec, dict):
        from audiogen_core.codecs import encodec

        facts = encodec.from_transformers(codec)
        return facts.sample_rate / facts.hop_length
    return 50.0
