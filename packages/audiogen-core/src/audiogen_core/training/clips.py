"""What a model is tuned on: the clips of a folder as codes, with what is said of them.

Codes of a file are kept under the hash of its bytes, so each is encoded once, whatever happens in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.audio import Audio, pieces, stream
from audiogen_core.codec import CodecInfo
from audiogen_core.dataset.folder import Caption, Skip, each_caption, scan, sources
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.progress import OnStep
from audiogen_core.recipe import hash_file
from audiogen_core.settings import read_json
from audiogen_core.sound_reader import name_of
from audiogen_core.training import checkpoints

FOLDER = "data"

QUIET = 1e-4
"""Root mean square below which a clip is silence."""

MANY = 10
"""Files of which whole ones are held out; of fewer, the ends of some."""

LEAST = 1.0
"""Seconds below which what is left of a file is no clip of its own."""

Codes = NDArray[np.int32]
Made = tuple[Codes, NDArray[np.float32] | None]
"""Codes of a clip, and what is heard of it; see `Clip`."""

Place = tuple[str, int]
"""A file, and which of its clips."""

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

    held_out  a clip of each file that some are of, then the next of each
    shown     the clip that samples are made after
    skips     files that were left out, with reasons
    sources   where captions come from, in words; "" where none are read
    identity  changes with the clips and their captions
    """

    train: list[Clip]
    held_out: list[Clip]
    shown: Clip
    skips: list[Skip]
    sources: str
    seconds: float
    identity: str


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
    understood: Callable[[str], bool] = lambda caption: True,
) -> Data:
    """Encode what is not encoded yet, and read the captions.

    captioned  whether the model reads any
    nothing    why no clip comes of a file
    understood  whether a caption says something to the model: by such clips it is judged, and after one of
               them samples are made, where there are any

    A tenth of the files is held out, two at least, and of fewer than ten the ends of some, where that leaves
    something; a run that goes on holds out what it did. Raises AudioError when there is nothing to learn
    from, and OptionError when the run's note of what is held out is damaged.
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
    length = sum(clip.codes.shape[1] for clips in found.values() for clip in clips) / info.frame_rate
    identity = hashlib.sha256(
        repr([(name, digest, told[name].text) for digest, name in sorted(digests.items())]).encode()
    ).hexdigest()
    out, shown = _held_out(run, identity, found, understood)
    places = [(name, index) for name in sorted(found) for index in range(len(found[name]))]
    return Data(
        train=[found[name][index] for name, index in places if (name, index) not in set(out)],
        held_out=[found[name][index] for name, index in out],
        shown=found[shown[0]][shown[1]],
        skips=skips,
        sources=sources(told[name] for name in found),
        seconds=length,
        identity=identity,
    )


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


def _held_out(
    run: Path, identity: str, found: Mapping[str, list[Clip]], understood: Callable[[str], bool]
) -> tuple[list[Place], Place]:
    """Which clips are held out, and which samples are made after: once the run has begun, as it has them."""
    note = run / FOLDER / f"held-out-{identity[:16]}.json"
    every = [(name, index) for name in sorted(found) for index in range(len(found[name]))]
    says = {name for name in found if understood(found[name][0].caption)}
    if not checkpoints.listed(run):
        out = _chosen(found, says)
        shown = next((place for place in [*out, *every] if place[0] in says), (out or every)[0])
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps({"held_out": out, "shown": shown}), encoding="utf-8")
        return out, shown
    if not note.is_file():
        out = _chosen_before(found)
        return out, (out or every)[0]
    kept = read_json(note, OptionError)
    with suppress(KeyError, TypeError):
        out, shown = [tuple(place) for place in kept["held_out"]], tuple(kept["shown"])
        if {*out, shown} <= set(every):
            return out, shown
    raise OptionError(f"{note}: damaged; begin anew in another folder")


def _chosen(found: Mapping[str, list[Clip]], says: AbstractSet[str]) -> list[Place]:
    """What is held out of files whose captions say something, unless these are the fewer.

    Of `MANY` files some whole ones, of fewer the ends of some. The first of each come first: not all are
    judged.
    """
    names = sorted(found)
    long = [name for name in names if len(found[name]) > 1]
    if len(names) >= MANY or not long:
        wanted = max(len(names) // 10, min(2, len(names) // 4), len(names) > 1)
        files = {name: found[name] for name in _spread(names, says, wanted)}
    else:
        wanted = max(2, len(long) // 3)
        files = {name: found[name][-max(1, len(found[name]) // 10) :] for name in _spread(long, says, wanted)}
    places = [
        (nth, name, len(found[name]) - len(clips) + nth)
        for name, clips in files.items()
        for nth in range(len(clips))
    ]
    return [(name, index) for _, name, index in sorted(places)]


def _spread(names: list[str], says: AbstractSet[str], count: int) -> list[str]:
    """So many names from end to end of those that say something, or of all when these are the fewer."""
    pool = [name for name in names if name in says]
    pool = pool if 2 * len(pool) >= len(names) else names
    count = min(count, len(pool))
    return [pool[(2 * each + 1) * len(pool) // (2 * count)] for each in range(count)]


def _chosen_before(found: Mapping[str, list[Clip]]) -> list[Place]:
    """What runs hold out that were begun before this was noted."""
    names = sorted(found)
    if len(names) > 1:
        whole = names[:: max(2, min(10, len(names)))][: max(1, len(names) // 10)]
        return [(name, index) for name in whole for index in range(len(found[name]))]
    (clips,) = found.values()
    last = len(clips) // 10 or (1 if len(clips) > 1 else 0)
    return [(names[0], index) for index in range(len(clips) - last, len(clips))]


def turn(place: int, count: int, seed: int) -> int:
    """Which of `count` clips is in this place of an endless order in which each comes once in a round."""
    order = np.random.default_rng([seed, 7, place // count]).permutation(count)
    return int(order[place % count])
