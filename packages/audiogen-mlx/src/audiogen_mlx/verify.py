"""Checking a model: its files by hash where one is known, its tensors by name, shape and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiogen_core.models import find
from audiogen_core.musicgen.files import Files, Places
from audiogen_mlx.catalog import CATALOG, STABLE_AUDIO


def verify(name_or_path: str, places: Places, *, unlisted: bool = False) -> dict[str, Any]:
    """What was checked. Raises ModelError, WeightsError or DownloadError at the first thing wrong.

    A model of the catalogue is fetched when it is not there.
    """
    found = find(CATALOG, name_or_path, unlisted=unlisted)
    path = found if isinstance(found, Path) else places.fetch(found)
    facts: dict[str, Any] = {"model": name_or_path, "path": str(path)}
    if CATALOG.get(name_or_path) in STABLE_AUDIO.values() or _is_stable_audio(path):
        from audiogen_mlx.stable_audio.generate import StableAudio

        loaded = StableAudio.load(path, t5=places.t5, fetch=places.fetch)
        return {**facts, "family": "stable-audio", "revision": loaded.revision}
    files = Files(path, places)
    return {**facts, "family": "musicgen", **check(files), "revision": files.fingerprint()}


def check(files: Files) -> dict[str, Any]:
    """Read every tensor of a MusicGen once, keeping none. Raises as loading would."""
    from audiogen_core import t5
    from audiogen_core.codecs import load_codec
    from audiogen_core.musicgen.weights import ignored, pieces
    from audiogen_mlx import nn
    from audiogen_mlx.memory import bounded_cache
    from audiogen_mlx.musicgen.load import outline
    from audiogen_mlx.musicgen.style import load_style
    from audiogen_mlx.t5 import T5Encoder

    bits, style = files.stored_bits, files.config.style
    with bounded_cache():
        network, names = outline(files.config, stored_bits=bits), pieces(files.config, files.layout)
        for _ in nn.tensors(network, files.table, pieces=names, stored_quantized=bits is not None):
            pass
        files.table.finish(ignored(files.config))
        if style is not None:
            load_style(files.table, style)
        encoder, text = T5Encoder(files.t5_config), files.text_table
        for _ in nn.tensors(encoder, text, pieces=t5.pieces(files.t5_config)):
            pass
        text.finish(t5.IGNORED)
        codec = load_codec(files.codec_path, fetch=files.places.fetch)
    return {
        "layout": files.layout,
        "tensors": len(files.table),
        "codec": codec.info.name,
        "tokenizer": str(files.tokenizer_file),
    }


def _is_stable_audio(path: Path) -> bool:
    folder = path if path.is_dir() else path.parent
    return (folder / "model_config.json").is_file() or (folder / "model_index.json").is_file()
