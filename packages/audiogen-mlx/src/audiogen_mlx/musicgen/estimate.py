"""What a run would take, found out without loading the model."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from audiogen_core import lora
from audiogen_core.describe import FACTS
from audiogen_core.errors import DownloadError
from audiogen_core.jobs import Sound
from audiogen_core.models import find
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.musicgen.options import Options, Settings, resolve
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.musicgen.load import outline, read_tokenizer
from audiogen_mlx.musicgen.options import Load
from audiogen_mlx.nn import parameters

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def estimate(load: Load, options: Options, *, offline: bool) -> dict[str, Any]:
    """The settings as they would be carried out, what would be fetched, and the memory it would take.

    Nothing is fetched: of a model with parts that are yet to come, only what is known before. Raises
    DownloadError when one is not here and may not be asked for.
    """
    from audiogen_core import hub

    missing: list[hub.Plan] = []
    policy = hub.Policy(offline=offline, listed=not load.unlisted, notify=warnings.warn)
    fetch = hub.planning(policy, missing)
    found = find(MUSICGEN, load.model, unlisted=load.unlisted)
    folder = found if isinstance(found, Path) else fetch(found)
    adapters = lora.local(load.lora or (), fetch)
    if not missing:
        files = Files(folder, Places(load.t5, load.tokenizer, load.codec, load.mert, fetch, adapters))
        files.look_outside()
    if missing:
        of_first = missing[0].spec
        return {
            "model": load.model,
            "license": of_first.license,
            "page": of_first.page,
            "download_bytes": sum(todo.bytes for todo in missing),
            "download_to": str(missing[0].folder),
        }
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
        "not_followed": read_tokenizer(files).not_followed(options.prompt, options.negative_prompt),
    }


def sound(load: Load, options: Options) -> Sound:
    """What a run makes, as far as the catalogue or the files that are here say."""
    from audiogen_core import hub

    found = find(MUSICGEN, load.model, unlisted=load.unlisted)
    if not isinstance(found, Path):
        return Sound(found.sample_rate, found.channels, options.seconds)
    files = Files(found, Places(load.t5, load.tokenizer, load.codec, load.mert, hub.here))
    seconds = options.seconds or files.defaults.seconds
    try:
        channels = files.config.channels
    except DownloadError:  # an audiocraft checkpoint tells its width by a T5 that is not here yet
        channels = None
    return Sound(_sample_rate(files), channels, seconds)


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


def _sample_rate(files: Files) -> int | None:
    """Of the codec, where that is known without loading it."""
    if files.places.codec is not None:
        return None
    if files.named_codec is not None:
        facts = FACTS.get(files.named_codec)
        return None if facts is None else facts.sample_rate
    codec = files.settings.get("audio_encoder")
    rate = codec.get("sampling_rate") if isinstance(codec, dict) else files.settings.get("sample_rate")
    return rate if isinstance(rate, int) else None


def _frame_rate(files: Files) -> float:
    """Of the codec, from its configuration where that is beside the model."""
    if files.named_codec is not None:
        from audiogen_core.codecs import load_codec

        return load_codec(files.named_codec, fetch=files.places.fetch).info.frame_rate
    codec = files.settings.get("audio_encoder")
    if isinstance(codec, dict):
        from audiogen_core.codecs import encodec

        facts = encodec.from_transformers(codec)
        return facts.sample_rate / facts.hop_length
    return 50.0
