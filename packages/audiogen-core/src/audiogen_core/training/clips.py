"""What a model is tuned on: the clips of a folder as codes, with what is said of them.

Codes of a file are kept under the hash of its bytes, so each is encoded once, whatever happens in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.audio import Audio, pieces, stream
from audiogen_core.codec import CodecInfo
from audiogen_core.dataset.folder import Caption, Skip, each_caption, scan, sources
from audiogen_core.errors import AudioError
from audiogen_core.files import atomic_path
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.progress import OnStep
from audiogen_core.recipe import hash_file
from audiogen_core.sound_reader import name_of

FOLDER = "data"

QUIET = 1e-4
"""Root mean square below which a clip is silence."""

LEAST = 1.0
"""Seconds below which what is left of a file is no clip of its own."""

Codes = NDArray[np.int32]
Made = tuple[Codes, NDArray[np.float32] | None]
"""Codes of a clip, and what is heard of it; see `Clip`."""

Encode = Callable[[Audio], Made | None]
"""What is made of a clip at the rate and of the channels of a codec; None leaves it out."""


@dataclass(frozen=True)
class Clip:
    """Some seconds of a file: its codes (K, T), and what is said of the file.

    heard  what else a model is told of it, for one that follows a melody or a style; else None
    """

    path: str
    codes: Codes
    caption: str
    heard: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Data:
    """What there is to learn from, and to judge by.

    skips     files that were left out, with reasons
    sources   where captions come from, in words; "" where none are read
    identity  changes with the clips and their captions
    """

    train: list[Clip]
    held_out: list[Clip]
    skips: list[Skip]
    sources: str
    seconds: float
    identity: str

    @property
    def shown(self) -> Clip:
        """The clip that samples are made after."""
        return (self.held_out or self.train)[0]


def prepare(
    folder: Path,
    run: Path,
    seconds: float,
    info: CodecInfo,
    encode: Encode,
    on_step: OnStep | None = None,
    *,
    captioned: bool = True,
    nothing: str = "silence from end to end",
) -> Data:
    """Encode what is not encoded yet, and read the captions.

    captioned  whether the model reads any
    nothing    why no clip comes of a file

    A tenth of the files is held out, and of a single file its last tenth, where that leaves something.
    Raises AudioError when there is nothing to learn from.
    """
    names, skips = scan(folder)
    told = dict(each_caption(folder, names)) if captioned else dict.fromkeys(names, Caption("", ""))
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
            kept = place / f"{digest[:32]}.safetensors"
            made = _clips(folder / name, kept, seconds, info, encode)
        except AudioError as error:
            skips.append(Skip(name, "unreadable", str(error).removeprefix(f"{name_of(folder / name)}: ")))
            continue
        digests[digest] = name
        if made:
            found[name] = [Clip(name, codes, told[name].text, heard) for codes, heard in made]
        else:
            skips.append(Skip(name, "silent", nothing))
        if on_step:
            on_step(index + 1, len(names))
    if not found:
        why = f": {skips[0].path}: {skips[0].message}" if skips else ""
        raise AudioError(f"{folder}: nothing to learn from{why}")
    train, held_out = _split(found)
    length = sum(clip.codes.shape[1] for clips in found.values() for clip in clips) / info.frame_rate
    identity = hashlib.sha256(
        repr([(name, digest, told[name].text) for digest, name in sorted(digests.items())]).encode()
    ).hexdigest()
    return Data(train, held_out, skips, sources(told[name] for name in found), length, identity)


def _clips(path: Path, kept: Path, seconds: float, info: CodecInfo, encode: Encode) -> list[Made]:
    """A file's clips, none of them silent; from where they are kept, or else put there."""
    if kept.is_file():
        table = weights.read(kept)
        names = sorted(name for name in table if name.isdecimal())
        return [(table[name].astype(np.int32), table.get(f"{name}.heard")) for name in names]
    made: list[Made] = []
    blocks = stream(path, sample_rate=info.sample_rate, channels=info.channels)
    for samples in pieces(blocks, round(seconds * info.sample_rate)):
        short = samples.shape[1] < LEAST * info.sample_rate
        if (short and made) or np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < QUIET:
            continue
        clip = encode(Audio(np.ascontiguousarray(samples), info.sample_rate))
        if clip is not None:
            made.append(clip)
    arrays = {}
    for index, (codes, heard) in enumerate(made):
        arrays[f"{index:06d}"] = StoredArray.of(codes)
        if heard is not None:
            arrays[f"{index:06d}.heard"] = StoredArray.of(heard)
    with atomic_path(kept) as temporary:
        write_safetensors(temporary, arrays or {"none": StoredArray.of(np.zeros(1, np.int32))})
    return made


def _split(found: Mapping[str, list[Clip]]) -> tuple[list[Clip], list[Clip]]:
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


def turn(place: int, count: int, seed: int) -> int:
    """Which of `count` clips is in this place of an endless order in which each comes once in a round."""
    order = np.random.default_rng([seed, 7, place // count]).permutation(count)
    return int(order[place % count])
