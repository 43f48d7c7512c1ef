"""Which audio files a folder holds, and which shard and split each goes into.

Decided before anything is encoded, and again when the folder has changed: what has not changed stays where it
is. What is passed over is said, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from audiogen_core.audio import probe
from audiogen_core.dataset.folder import PLAN
from audiogen_core.dataset.shards import take_back
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.progress import counted
from audiogen_core.settings import from_mapping, parse_json, read_text

TAIL = "tail"

_MOST_HELD_OUT = 0.4  # of the bytes of a small folder

# A shard is what is lost at a kill and what workers share out, so small folders get small ones.
_SHARDS = 64
_SHARD_FILES = 64
_SHARD_BYTES = (4 << 20, 64 << 20)


@dataclass(frozen=True)
class Entry:
    """A file of the plan.

    path       relative to the folder of audio, as text; bytes that are no text are kept as surrogates
    split      "train", "val", or "tail": the last tenth of the file is held out
    size       bytes; -1 for what is no readable file
    digest     SHA-256 of the bytes; "" for what is no readable file, and in folders of release 0.1.0
    duplicate  the earlier file with the same bytes, or None
    seconds    of sound in it; -1 when nobody has looked yet, as in folders of release 0.1.0
    reason, message  why it is left out, as in a Skip; "" when it is not
    """

    path: str
    split: str
    size: int = -1
    digest: str = ""
    duplicate: str | None = None
    seconds: float = -1.0
    reason: str = ""
    message: str = ""

    @property
    def used(self) -> bool:
        """Whether there will be codes of it."""
        return not self.duplicate and not self.reason


Groups = list[list[Entry]]  # one group of files per shard

Item = TypeVar("Item")
Result = TypeVar("Result")


def probed(folder: Path, entry: Entry) -> Entry:
    """An entry with what the beginning of its file tells of it."""
    try:
        sound = probe(folder / entry.path)
    except AudioError as error:
        return replace(entry, seconds=0.0, reason="damaged", message=str(error))
    return replace(entry, seconds=sound.frames / sound.sample_rate)


def make_plan(
    folder: Path,
    data: Path,
    files: list[str],
    *,
    val_permille: int,
    split_by: str,
    look: Callable[[Path, Entry], Entry] = probed,
    on_step: Callable[[int, int], None] | None = None,
) -> Groups:
    """The plan of a folder of codes for the `files` there are now, which is stored.

    look     tells how long a file is, and whether it can be used
    on_step  called with (files looked at, files in all)

    What is as it was keeps its place. A file that has changed keeps its group, one that is gone leaves it,
    new ones go into groups of their own; the shards of groups that are not what they were are taken back.

    A file's split follows from the hash of its path (of its parent folder with `split_by` "parent"), so it
    stays when files are added. Where that holds out nothing that can be used, or everything, the usable file
    with the lowest hash is held out; where that is much of all there is (a single file, two songs), the last
    tenth of each file instead.

    Raises CodesError when the stored plan is damaged.
    """
    before = read_plan(data)
    groups = planned(folder, before, files, val_permille, split_by, look, on_step)
    if groups != before:
        for number in outdated(before, groups):
            take_back(data, number)
        table = [[asdict(entry) for entry in group] for group in groups]
        with atomic_path(data / PLAN) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return groups


def planned(
    folder: Path,
    before: Groups,
    files: Sequence[str],
    val_permille: int,
    split_by: str,
    look: Callable[[Path, Entry], Entry],
    on_step: Callable[[int, int], None] | None = None,
) -> Groups:
    """As `make_plan`, of what was planned `before`; nothing is stored."""
    report = counted(on_step, 2 * len(files))
    facts = dict(
        zip(files, _side_by_side(lambda path: _size_and_digest(folder / path), files, report), strict=True)
    )
    known = {entry.path: entry for entry in chain(*before)}
    entries = [_anew(entry, facts[path]) for path, entry in known.items() if path in facts]
    for path in files:
        if path not in known:
            split = "val" if _hash(path, split_by) % 1000 < val_permille else "train"
            entries.append(Entry(path, split, **facts[path]))
    entries = list(
        _side_by_side(lambda entry: _looked_at(folder, entry, look), _without_duplicates(entries), report)
    )
    if val_permille:
        entries = _hold_something_out(entries, split_by)
    now = {entry.path: entry for entry in entries}
    groups = [[now[entry.path] for entry in group if entry.path in now] for group in before]
    return groups + list(_grouped([entry for entry in entries if entry.path not in known]))


def outdated(before: Groups, groups: Groups) -> set[int]:
    """The groups that are not what they were, whose codes are to be made anew."""
    return {
        number
        for number, (old, new) in enumerate(zip(before, groups, strict=False))
        if len(old) != len(new) or any(map(_differ, old, new))
    }


@dataclass(frozen=True)
class Changes:
    """Paths of the files that a plan has and the one before had not, that are others now, that are gone."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @classmethod
    def of(cls, before: Groups, after: Groups) -> Changes:
        old, now = ({entry.path: entry for entry in chain(*groups)} for groups in (before, after))
        return cls(
            new=tuple(path for path in now if path not in old),
            changed=tuple(path for path in now if path in old and _changed(old[path], now[path])),
            gone=tuple(path for path in old if path not in now),
        )


def read_plan(data: Path) -> Groups:
    """The stored plan; empty when there is none. Raises CodesError when it is damaged."""
    path = data / PLAN
    if not path.exists():
        return []
    try:
        table = parse_json(read_text(path, OptionError), "the file", OptionError)
        return [[from_mapping(Entry, entry, str(path)) for entry in group] for group in table]
    except (OSError, ValueError, TypeError) as error:
        raise CodesError(f"{path}: the plan is damaged ({error}); encode into a new folder") from error


def size_of(path: Path) -> int:
    """Bytes of a file; -1 when it cannot be told, or it is no regular file."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):
        return -1


def _hash(path: str, split_by: str) -> int:
    key = str(PurePosixPath(path).parent) if split_by == "parent" else path
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest(), "big")


def _size_and_digest(path: Path) -> dict[str, Any]:
    """The facts of an `Entry` about the bytes of a file. One that cannot be read is reported by encoding."""
    if (size := size_of(path)) >= 0:  # a pipe would be waited for
        with suppress(OSError), path.open("rb") as file:
            return {"size": size, "digest": hashlib.file_digest(file, "sha256").hexdigest()}
    return {"size": -1, "digest": ""}


def _changed(old: Entry, new: Entry) -> bool:
    """Whether a file has other bytes than it had."""
    return (old.size, old.digest or new.digest) != (new.size, new.digest)


def _differ(old: Entry, new: Entry) -> bool:
    """Whether a file is to be encoded otherwise than it was."""
    return _changed(old, new) or (old.split, old.duplicate) != (new.split, new.duplicate)


def _without_duplicates(entries: list[Entry]) -> list[Entry]:
    """The entries, each with the first file of the same bytes."""
    firsts: dict[str, str] = {}
    told = []
    for entry in entries:
        first = firsts.setdefault(entry.digest, entry.path) if entry.digest else entry.path
        told.append(replace(entry, duplicate=None if first == entry.path else first))
    return told


def _anew(entry: Entry, facts: dict[str, Any]) -> Entry:
    """An entry of a plan for the bytes that its file has now."""
    if (entry.size, entry.digest) == (facts["size"], facts["digest"]) and entry.size >= 0:
        return entry
    return replace(entry, **facts, seconds=-1.0, reason="", message="")


def _looked_at(folder: Path, entry: Entry, look: Callable[[Path, Entry], Entry]) -> Entry:
    return entry if entry.duplicate or entry.seconds >= 0 else look(folder, entry)


def _side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], report: Callable[[int], None]
) -> Iterator[Result]:
    """What a function makes of each, in threads; what has not begun is dropped when the caller stops."""
    pool = ThreadPoolExecutor()
    try:
        for result in pool.map(function, items):
            yield result
            report(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _hold_something_out(entries: list[Entry], split_by: str) -> list[Entry]:
    there = [entry for entry in entries if not entry.duplicate]
    usable = [entry for entry in there if entry.used] or there
    if len({entry.split for entry in usable}) > 1:
        return entries
    keys = sorted({_hash(entry.path, split_by) for entry in usable}, key=lambda key: (key % 1000, key))
    held = sum(max(0, entry.size) for entry in usable if _hash(entry.path, split_by) == keys[0])
    if held > _MOST_HELD_OUT * sum(max(0, entry.size) for entry in usable):
        return [replace(entry, split=TAIL) for entry in entries]
    return [
        replace(entry, split="val" if _hash(entry.path, split_by) == keys[0] else "train")
        for entry in entries
    ]


def _grouped(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Neighbours together, up to a number of files and of bytes that follows from all there is."""
    smallest, largest = _SHARD_BYTES
    limit = min(max(sum(max(0, entry.size) for entry in entries) // _SHARDS, smallest), largest)
    group: list[Entry] = []
    size = 0
    for entry in entries:
        length = max(0, entry.size)
        if group and (len(group) == _SHARD_FILES or size + length > limit):
            yield group
            group, size = [], 0
        group.append(entry)
        size += length
    if group:
        yield group
