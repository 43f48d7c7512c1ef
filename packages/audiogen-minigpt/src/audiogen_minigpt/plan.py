"""Which audio file goes into which shard and which split: decided once, before anything is encoded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_core.files import atomic_path
from audiogen_minigpt.config import from_mapping
from audiogen_minigpt.shards import PLAN

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})

_SHARD_FILES = 16
_SHARD_BYTES = 64 << 20
_TAIL = "tail"


@dataclass(frozen=True)
class Entry:
    """A file of the plan.

    path       relative to the folder of audio, as text; bytes that are no text are kept as surrogates
    split      "train", "val", or "tail": the last tenth of the file is held out
    digest     of the file's bytes
    duplicate  the earlier file with the same bytes, or None
    """

    path: str
    split: str
    digest: str
    duplicate: str | None = None


Groups = list[list[Entry]]  # one group of files per shard


def make_plan(folder: Path, data: Path, *, val_permille: int, split_by: str) -> Groups:
    """The plan of a folder: the stored one, with files that are new to it in shards of their own.

    A file's split follows from the hash of its path (of its parent folder with `split_by` "parent"), so it
    stays when files are added. A folder with one file has its last tenth held out; in a larger one where
    no hash falls into the held-out part, the file with the lowest hash is held out.

    Raises AudioError when the folder holds no audio, OptionError for impossible options.
    """
    if not 0 <= val_permille < 1000:
        raise OptionError(f"val_permille must lie in [0, 1000), got {val_permille}")
    if split_by not in ("file", "parent"):
        raise OptionError(f"split_by must be file or parent, got {split_by!r}")
    groups = read_plan(data)
    known = {entry.path for group in groups for entry in group}
    found = [path for path in scan(folder) if path not in known]
    if not found and not known:
        raise AudioError(
            f"{folder}: no audio files in this folder; known suffixes are {', '.join(sorted(SUFFIXES))}"
        )
    if found:
        firsts = {entry.digest: entry.path for group in groups for entry in group if not entry.duplicate}
        entries = []
        for path in found:
            digest = _digest(folder / path)
            duplicate = firsts.get(digest) if digest else None
            firsts.setdefault(digest, path)
            entries.append(Entry(path, _split(path, val_permille, split_by), digest, duplicate))
        if not groups:
            entries = _hold_something_out(entries, val_permille, split_by)
        groups = groups + list(_grouped(folder, entries))
        _store(data, groups)
    return groups


def scan(folder: Path) -> list[str]:
    """The audio files below a folder, by their suffix, relative and sorted. Linked folders are left out."""
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder of audio")
    found = []

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise AudioError(f"{folder}: cannot be read ({error.strerror})") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                found.append(os.path.relpath(Path(parent) / name, folder))
    return sorted(found)


def _digest(path: Path) -> str:
    """The hash of a file's bytes; empty for one that cannot be read, which encoding will report."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _hash(path: str, split_by: str) -> int:
    key = str(Path(path).parent) if split_by == "parent" else path
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest(), "big")


def _split(path: str, val_permille: int, split_by: str) -> str:
    return "val" if _hash(path, split_by) % 1000 < val_permille else "train"


def _hold_something_out(entries: list[Entry], val_permille: int, split_by: str) -> list[Entry]:
    usable = [entry for entry in entries if not entry.duplicate]
    if val_permille == 0 or any(entry.split == "val" for entry in usable) != all(
        entry.split == "val" for entry in usable
    ):
        return entries
    keys = sorted({_hash(entry.path, split_by) for entry in usable}, key=lambda key: (key % 1000, key))
    if len(keys) == 1:
        return [Entry(entry.path, _TAIL, entry.digest, entry.duplicate) for entry in entries]
    return [
        Entry(
            entry.path,
            "val" if _hash(entry.path, split_by) == keys[0] else "train",
            entry.digest,
            entry.duplicate,
        )
        for entry in entries
    ]


def _grouped(folder: Path, entries: list[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    for entry in entries:
        path = folder / entry.path
        length = path.stat().st_size if entry.digest else 0
        if group and (len(group) == _SHARD_FILES or size + length > _SHARD_BYTES):
            yield group
            group, size = [], 0
        group.append(entry)
        size += length
    if group:
        yield group


def read_plan(data: Path) -> Groups:
    """The stored plan; empty when there is none. Raises CodesError when it is damaged."""
    path = data / PLAN
    if not path.exists():
        return []
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [[from_mapping(Entry, entry, str(path)) for entry in group] for group in table]
    except (OSError, ValueError, TypeError) as error:
        raise CodesError(f"{path}: the plan is damaged ({error}); encode into a new folder") from error


def _store(data: Path, groups: Groups) -> None:
    table = [[asdict(entry) for entry in group] for group in groups]
    with atomic_path(data / PLAN) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
