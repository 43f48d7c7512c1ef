"""Which audio files a folder holds, and which shard and split each goes into.

Decided once, before anything is encoded. What is passed over is said, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from audiogen_core.audio import probe
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.settings import from_mapping, parse_json
from audiogen_minigpt.shards import META, PLAN, Skip

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})
"""Names that end so are taken for audio files that can be read; what is in them is found out later."""

UNREAD = frozenset({".m4a", ".aac", ".mp4", ".wma", ".alac", ".ape", ".wv", ".caf", ".ac3", ".dsf", ".au"})
"""And so for audio files that cannot."""

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
    digest     of the bytes, where another file has as many; else ""
    duplicate  the earlier file with the same bytes, or None
    """

    path: str
    split: str
    size: int = -1
    digest: str = ""
    duplicate: str | None = None


Groups = list[list[Entry]]  # one group of files per shard


def scan(folder: Path) -> tuple[list[str], list[Skip]]:
    """The audio files below a folder, and what was passed over.

    Files are told by their suffix, and named relative to the folder, with "/" between the parts, sorted.
    Hidden files and folders are ignored. Linked folders are not followed, so that no loop can arise; folders
    that this program wrote are no source of audio.

    Raises AudioError when the folder itself is missing or cannot be read.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder of audio")
    files: list[str] = []
    passed: list[Skip] = []

    def refuse(error: OSError) -> None:
        place = Path(os.fsdecode(error.filename or folder))
        if place == folder:
            raise AudioError(f"{folder}: cannot be read ({error.strerror})") from error
        passed.append(Skip(_name(place, folder), "unreadable", f"the folder: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=refuse):
        here = Path(parent)
        entered = []
        for name in (name for name in sorted(folders) if not name.startswith(".")):
            reason = _why_not(here / name)
            if reason is None:
                entered.append(name)
            else:
                passed.append(Skip(_name(here / name, folder), *reason))
        folders[:] = entered
        for name in (name for name in names if not name.startswith(".")):
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                files.append(_name(here / name, folder))
            elif suffix in UNREAD:
                message = f"{suffix} is not read; convert the file to WAV or FLAC first"
                passed.append(Skip(_name(here / name, folder), "format", message))
    return sorted(files), sorted(passed, key=lambda skip: skip.path)


def make_plan(folder: Path, data: Path, files: list[str], *, val_permille: int, split_by: str) -> Groups:
    """The stored plan of a folder of codes, with the `files` that are new to it in shards of their own.

    A file's split follows from the hash of its path (of its parent folder with `split_by` "parent"), so it
    stays when files are added. A first plan in which that would hold out nothing, or everything, holds out
    the readable file with the lowest hash; where that is much of all there is (a single file, two songs), the
    last tenth of each file instead.

    Raises CodesError when the stored plan is damaged.
    """
    groups = read_plan(data)
    known = [entry for group in groups for entry in group]
    paths = {entry.path for entry in known}
    new = [
        Entry(path, _split(path, val_permille, split_by), size_of(folder / path))
        for path in files
        if path not in paths
    ]
    if new:
        new = _without_duplicates(folder, known, new)
        if not known and val_permille:
            new = _hold_something_out(folder, new, split_by)
        groups = groups + list(_grouped(new))
        _store(data, groups)
    return groups


def read_plan(data: Path) -> Groups:
    """The stored plan; empty when there is none. Raises CodesError when it is damaged."""
    path = data / PLAN
    if not path.exists():
        return []
    try:
        table = parse_json(path.read_text(encoding="utf-8"), "the file", OptionError)
        return [[from_mapping(Entry, entry, str(path)) for entry in group] for group in table]
    except (OSError, ValueError, TypeError) as error:
        raise CodesError(f"{path}: the plan is damaged ({error}); encode into a new folder") from error


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes; "" for one that cannot be read, which encoding will report."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def size_of(path: Path) -> int:
    """Bytes of a file; -1 when it cannot be told, or it is no regular file."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):
        return -1


def _why_not(folder: Path) -> tuple[str, str] | None:
    """Why a folder is not entered, as reason and message; None if it is."""
    if folder.is_symlink():
        return "link", "linked folders are not followed; name the folder itself, or copy it"
    for place in (folder, folder / "data"):
        if (place / META).is_file() and (place / PLAN).is_file():
            return "output", "the folder was written by this program"
    return None


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _hash(path: str, split_by: str) -> int:
    key = str(PurePosixPath(path).parent) if split_by == "parent" else path
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest(), "big")


def _split(path: str, val_permille: int, split_by: str) -> str:
    return "val" if _hash(path, split_by) % 1000 < val_permille else "train"


def _without_duplicates(folder: Path, known: list[Entry], new: list[Entry]) -> list[Entry]:
    """The new entries, each with the first file of the same bytes. Only files of equal size are read."""
    sizes = Counter(entry.size for entry in [*known, *new] if entry.size >= 0)
    wanted = {entry.size for entry in new if sizes[entry.size] > 1}
    firsts: dict[str, str] = {}
    for entry in known:
        if entry.size in wanted and not entry.duplicate:
            firsts.setdefault(entry.digest or digest(folder / entry.path), entry.path)
    firsts.pop("", None)
    entries = []
    for entry in new:
        code = digest(folder / entry.path) if entry.size in wanted else ""
        first = firsts.setdefault(code, entry.path) if code else entry.path
        entries.append(replace(entry, digest=code, duplicate=None if first == entry.path else first))
    return entries


def _hold_something_out(folder: Path, entries: list[Entry], split_by: str) -> list[Entry]:
    usable = [entry for entry in entries if not entry.duplicate]
    if len({entry.split for entry in usable}) > 1:
        return entries
    usable = [entry for entry in usable if _looks_readable(folder / entry.path)] or usable
    keys = sorted({_hash(entry.path, split_by) for entry in usable}, key=lambda key: (key % 1000, key))
    held = sum(max(0, entry.size) for entry in usable if _hash(entry.path, split_by) == keys[0])
    if held > _MOST_HELD_OUT * sum(max(0, entry.size) for entry in usable):
        return [replace(entry, split=TAIL) for entry in entries]
    return [
        replace(entry, split="val" if _hash(entry.path, split_by) == keys[0] else "train")
        for entry in entries
    ]


def _looks_readable(path: Path) -> bool:
    try:
        probe(path)
    except AudioError:
        return False
    return True


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


def _store(data: Path, groups: Groups) -> None:
    table = [[asdict(entry) for entry in group] for group in groups]
    with atomic_path(data / PLAN) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
