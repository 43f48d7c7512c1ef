"""Finding the audio files of a folder. What is passed over is said, never dropped in silence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from audiogen_core.errors import AudioError
from audiogen_minigpt.shards import META, PLAN, Skip

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"})
"""Names that end so are taken for audio files that can be read; what is in them is found out later."""

UNREAD = frozenset({".m4a", ".aac", ".mp4", ".wma", ".alac", ".ape", ".wv", ".caf", ".ac3", ".dsf", ".au"})
"""And so for audio files that cannot."""


def scan(folder: Path) -> tuple[list[str], list[Skip]]:
    """The audio files below a folder, and what was passed over.

    Files are told by their suffix, and named relative to the folder, with "/" between the parts, sorted.
    Hidden files and folders are ignored. Linked folders are not followed, so that no loop can arise; folders
    that this program wrote are no source of audio.

    Raises AudioError when the folder itself is missing or cannot be read.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder of audio")
    found: list[str] = []
    passed: list[Skip] = []

    def refuse(error: OSError) -> None:
        place = Path(os.fsdecode(error.filename or folder))
        if place == folder:
            raise AudioError(f"{folder}: cannot be read ({error.strerror})") from error
        passed.append(Skip(_name(place, folder), "unreadable", f"the folder: {error.strerror}"))

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        entered = []
        for name in (name for name in sorted(folders) if not name.startswith(".")):
            reason = _why_not(here / name)
            if reason is None:
                entered.append(name)
            else:
                passed.append(Skip(_name(here / name, folder), *reason))
        folders[:] = entered
        for name in (name for name in files if not name.startswith(".")):
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                found.append(_name(here / name, folder))
            elif suffix in UNREAD:
                message = f"{suffix} is not read; convert the file to WAV or FLAC first"
                passed.append(Skip(_name(here / name, folder), "format", message))
    return sorted(found), sorted(passed, key=lambda skip: skip.path)


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
