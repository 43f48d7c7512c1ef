"""What a MusicGen is tuned on: the clips of a folder as codes, their captions as vectors, and for models that
follow a melody or a style that of each clip itself.

What is made of a file is kept under the hash of its bytes, so each is encoded once, whatever happens in
between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
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
from audiogen_core.musicgen import melody as melodies
from audiogen_core.musicgen.conditioning import read
from audiogen_core.recipe import hash_file
from audiogen_mlx.musicgen.load import Parts
from audiogen_mlx.musicgen.model import Transformer

FOLDER = "data"

QUIET = 1e-4
"""Root mean square below which a clip is silence."""

LEAST = 1.0
"""Seconds below which what is left of a file is no clip of its own."""


@dataclass(frozen=True)
class Clip:
    """Some seconds of a file: its codes (K, T), and what is said of the file.

    heard  for a model that follows a melody its features (n, bins); for one that follows a style the tokens
           (n, T, width) of n excerpts of the clip, each of which stands for it; else None
    """

    path: str
    codes: NDArray[np.int32]
    caption: str
    heard: NDArray[np.float32] | None = None


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
            clips = _clips(parts, folder / name, place / f"{digest[:32]}.safetensors", seconds)
        except AudioError as error:
            skips.append(Skip(name, "unreadable", str(error)))
            continue
        digests[digest] = name
        if clips:
            found[name] = [Clip(name, codes, told[name].text, heard) for codes, heard in clips]
        else:
            skips.append(Skip(name, "silent", _NOTHING if parts.config.style is None else _NO_STYLE))
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


_NOTHING = "silence from end to end"
_NO_STYLE = "silent, or too short for an excerpt whose style is heard"

Made = tuple[NDArray[np.int32], NDArray[np.float32] | None]
"""Codes of a clip, and what is heard of it; see `Clip`."""


def _clips(parts: Parts, path: Path, kept: Path, seconds: float) -> list[Made]:
    """A file's clips, none of them silent; from where they are kept, or else put there."""
    if kept.is_file():
        table = {name: np.array(value) for name, value in weights.read(kept).items()}
        names = sorted(name for name in table if name.isdecimal())
        return [(table[name].astype(np.int32), table.get(f"{name}.heard")) for name in names]
    info = parts.codec.info
    made: list[Made] = []
    blocks = stream(path, sample_rate=info.sample_rate, channels=info.channels)
    for samples in pieces(blocks, round(seconds * info.sample_rate)):
        short = samples.shape[1] < LEAST * info.sample_rate
        if (short and made) or np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < QUIET:
            continue
        clip = Audio(np.ascontiguousarray(samples), info.sample_rate)
        heard = _heard(parts, clip)
        if heard is None or len(heard):
            made.append((parts.codec.encode(clip).values[: parts.config.codebooks], heard))
    arrays = {f"{index:06d}": StoredArray.of(codes) for index, (codes, _) in enumerate(made)}
    arrays |= {
        f"{index:06d}.heard": StoredArray.of(heard)
        for index, (_, heard) in enumerate(made)
        if heard is not None
    }
    with atomic_path(kept) as temporary:
        write_safetensors(temporary, arrays or {"none": StoredArray.of(np.zeros(1, np.int32))})
    return made


def _heard(parts: Parts, clip: Audio) -> NDArray[np.float32] | None:
    """The melody or style of a clip, as `Clip` has it; no excerpts where none is long and loud enough."""
    if parts.config.chroma is not None:
        return melodies.chroma(clip, parts.config.chroma)
    if parts.config.style is None:
        return None
    length, excerpts = parts.config.style.seconds, []
    for index in range(int(clip.duration / length)):
        with suppress(AudioError):  # silent there
            excerpts.append(parts.style(clip, start=index * length))
    return np.stack(excerpts) if excerpts else np.zeros((0, 0, 0), np.float32)


def ahead(network: Transformer, clip: Clip, excerpt: int | None) -> NDArray[np.float32] | None:
    """The vectors (C, width) that stand before a clip: those of its melody or style, or with None of no such.

    excerpt  which of its excerpts stands for its style, counted on from the last to the first again
    """
    config, heard = network.config, clip.heard
    if heard is None:
        return None
    if config.chroma is None:
        chosen: NDArray[np.float32] = heard[0 if excerpt is None else excerpt % len(heard)]
        return np.zeros_like(chosen) if excerpt is None else chosen
    features = melodies.null_chroma(1, config.chroma.bins) if excerpt is None else heard
    vectors = network.project_melody(mx.array(melodies.repeated(features, config.melody_frames)))
    return np.array(vectors.astype(mx.float32))


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
