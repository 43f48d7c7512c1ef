"""What a MusicGen is tuned on: the clips of a folder as codes, and their captions as vectors.

Codes of a file are kept under the hash of its bytes, so each is encoded once, whatever happens in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.audio import Audio, pieces, stream
from audiogen_core.dataset import Caption, Skip, captions, scan, sources
from audiogen_core.errors import AudioError
from audiogen_core.files import atomic_path
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.musicgen.conditioning import read
from audiogen_core.recipe import hash_file
from audiogen_mlx.musicgen.load import Parts

FOLDER = "data"

QUIET = 1e-4
"""Root mean square below which a clip is silence."""

LEAST = 1.0
"""Seconds below which what is left of a file is no clip of its own."""


@dataclass(frozen=True)
class Clip:
    """Some seconds of a file: its codes (K, T), and what is said of the file."""

    path: str
    codes: NDArray[np.int32]
    caption: str


@dataclass(frozen=True)
class Data:
    """What there is to learn from, and to judge by.

    texts     caption -> its vectors (L, text width)
    skips     files that were left out, with reasons
    sources   where captions come from, in words
    identity  changes with the clips and their captions
    """

    train: list[Clip]
    held_out: list[Clip]
    texts: dict[str, NDArray[np.float32]]
    skips: list[Skip]
    sources: str
    seconds: float
    identity: str


def prepare(
    parts: Parts, folder: Path, run: Path, seconds: float, on_step: Callable[[int, int], None] | None = None
) -> Data:
    """Encode what is not encoded yet, and read the captions.

    A tenth of the files is held out, and of a single file its last tenth, where that leaves something.
    Raises AudioError when there is nothing to learn from.
    """
    names, skips = scan(folder)
    told = captions(folder, names)
    place = run / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Clip]] = {}
    digests: dict[str, str] = {}
    for index, name in enumerate(names):
        try:
            digest = hash_file(folder / name)
            if digest in digests:
                skips.append(Skip(name, "duplicate", f"the same bytes as {digests[digest]}"))
                continue
            codes = _codes(parts, folder / name, place / f"{digest[:32]}.safetensors", seconds)
        except AudioError as error:
            skips.append(Skip(name, "unreadable", str(error)))
            continue
        digests[digest] = name
        if codes:
            found[name] = [Clip(name, each, told[name].text) for each in codes]
        else:
            skips.append(Skip(name, "silent", "silence from end to end"))
        if on_step:
            on_step(index + 1, len(names))
    if not found:
        why = f": {skips[0].path}: {skips[0].message}" if skips else ""
        raise AudioError(f"{folder}: nothing to learn from{why}")
    train, held_out = _split(found)
    texts = {clip.caption: _vectors(parts, clip.caption) for clips in found.values() for clip in clips[:1]}
    used: list[Caption] = [told[name] for name in found]
    rate = parts.codec.info.frame_rate
    length = sum(clip.codes.shape[1] for clips in found.values() for clip in clips) / rate
    identity = hashlib.sha256(
        repr([(name, digest, told[name].text) for digest, name in sorted(digests.items())]).encode()
    ).hexdigest()
    return Data(train, held_out, texts, skips, sources(used), length, identity)


def _codes(parts: Parts, path: Path, kept: Path, seconds: float) -> list[NDArray[np.int32]]:
    """A file's clips, none of them silent, as codes; from where they are kept, or else put there."""
    if kept.is_file():
        table = weights.read(kept)
        return [table[name].astype(np.int32) for name in sorted(table) if name != "none"]
    info = parts.codec.info
    made: list[NDArray[np.int32]] = []
    blocks = stream(path, sample_rate=info.sample_rate, channels=info.channels)
    for samples in pieces(blocks, round(seconds * info.sample_rate)):
        short = samples.shape[1] < LEAST * info.sample_rate
        if (short and made) or np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < QUIET:
            continue
        codes = parts.codec.encode(Audio(np.ascontiguousarray(samples), info.sample_rate)).values
        made.append(codes[: parts.config.codebooks])
    arrays = {f"{index:06d}": StoredArray.of(codes) for index, codes in enumerate(made)}
    with atomic_path(kept) as temporary:
        write_safetensors(temporary, arrays or {"none": StoredArray.of(np.zeros(1, np.int32))})
    return made


def _split(found: dict[str, list[Clip]]) -> tuple[list[Clip], list[Clip]]:
    """What is learned from, and what is held out: whole files, or of a single one its end."""
    names = sorted(found)
    if len(names) > 1:
        out = set(names[:: max(2, min(10, len(names)))][: max(1, len(names) // 10)])
        return (
            [clip for name in names if name not in out for clip in found[name]],
            [clip for name in names if name in out for clip in found[name]],
        )
    (clips,) = found.values()
    last = len(clips) // 10 or (1 if len(clips) > 1 else 0)
    return clips[: len(clips) - last], clips[len(clips) - last :]


def _vectors(parts: Parts, caption: str) -> NDArray[np.float32]:
    ids, mask = read(parts.tokenizer, caption)
    return np.array(parts.t5(mx.array(ids), mx.array(mask))[0].astype(mx.float32))
