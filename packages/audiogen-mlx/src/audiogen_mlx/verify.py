"""Checking a model: its files by hash where one is known, its tensors by name, shape and value."""

from __future__ import annotations

from typing import Any

from audiogen_core.musicgen.files import Files, Places
from audiogen_mlx.families import located


def verify(name_or_path: str, places: Places, *, unlisted: bool = False) -> dict[str, Any]:
    """What was checked. Raises ModelError, WeightsError or DownloadError at the first thing wrong.

    A model of the catalogue is fetched when it is not there.
    """
    kind, path = located(name_or_path, places.fetch, unlisted=unlisted)
    facts: dict[str, Any] = {"model": name_or_path, "path": str(path), "family": kind}
    if kind == "stable-audio":
        from audiogen_mlx.stable_audio.generate import StableAudio

        loaded = StableAudio.load(path, t5=places.t5, fetch=places.fetch)
        return {**facts, "revision": loaded.revision}
    if kind == "stable-audio-3":
        from audiogen_mlx.stable_audio_3.generate import StableAudio3

        # By its name, which says which of several networks of a folder is meant.
        model = StableAudio3.load(
            name_or_path, t5=places.t5, fetch=places.fetch, unlisted=unlisted, low_memory=True
        )
        return {**facts, **model.check(), "revision": model.revision}
    files = Files(path, places)
    return {**facts, **check(files), "revision": files.fingerprint()}


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
