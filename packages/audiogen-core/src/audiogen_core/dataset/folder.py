"""Folders of audio: which files are in them, and what is said of each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from audiogen_core.audio import probe
from audiogen_core.errors import AudioError, AudiogenError
from audiogen_core.options import option
from audiogen_core.recipe import find as find_recipe
from audiogen_core.settings import parse_json, read_text
from audiogen_core.values import closed

META = "meta.json"
PLAN = "plan.json"

SUFFIXES = frozenset(
    f".{suffix}"
    for words in (
        "wav w64 rf64 bw64 flac ogg oga opus mp3 aif aiff aifc",
        "m4a mp4 aac wma webm mka caf au wv ape tta ac3 amr",  # by FFmpeg, where it is installed
    )
    for suffix in words.split()
)
"""Names that end so are taken for audio files; what is in them is found out later."""

UNREAD = frozenset({".alac", ".dsf", ".dff", ".mpc", ".ra", ".shn"})
"""And so for audio files that cannot be read."""


@dataclass(frozen=True)
class Skip:
    """A file that was left out: a short reason code, and a sentence."""

    path: str
    reason: str
    message: str

    @property
    def why(self) -> str:
        """The reason in two or three words."""
        return "cut off" if "cut off" in self.message else _WORDS.get(self.reason, self.reason)


_WORDS = {
    "format": "of a kind that is not read",
    "not_audio": "no audio",
    "non_finite": "NaN or infinite samples",
    "unreadable": "cannot be read",
    "channels": "too many channels",
    "too_short": "too short",
    "duplicate": "a copy of another",
    "output": "made by this program",
}


@closed()
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


def _why_not(folder: Path) -> tuple[str, str] | None:
    """Why a folder is not entered, as reason and message; None if it is."""
    if folder.is_symlink():
        return "link", "linked folders are not followed; name the folder itself, or copy it"
    with suppress(PermissionError):  # what cannot be looked into is told when it is entered
        for place in (folder, folder / "data"):
            if (place / META).is_file() and (place / PLAN).is_file():
                return "output", "the folder was written by this program"
    return None


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


# Captions

_TABLES = ("metadata.jsonl", "captions.jsonl")

SOURCES = ("text file", *_TABLES, "tag", "file name")
"""Where a caption comes from, the first first."""

_FILE_KEYS = ("file_name", "path", "audio", "file")
_TEXT_KEYS = ("caption", "text", "prompt", "description", "transcription")


@dataclass(frozen=True)
class Caption:
    """What is said of a clip, and where: one of SOURCES."""

    text: str
    source: str


@closed()
def captions(
    folder: Path, files: Annotated[Sequence[str], option("Their names, of any bytes.", role="file")]
) -> dict[str, Caption]:
    """What is said of each of some audio files in a folder, by name.

    It stands in a file of that name with .txt beside it; in metadata.jsonl (of Hugging Face's audiofolder,
    keys file_name and text, caption, prompt, description or transcription), or captions.jsonl of `compose`;
    in the comment tag, or in the recipe there, as prompt or caption; or it is the file's name. Raises
    AudioError for a table that cannot be read.
    """
    return dict(each_caption(folder, files))


def each_caption(folder: Path, files: Sequence[str]) -> Iterator[tuple[str, Caption]]:
    """As `captions`, one after the other, of any number of files."""
    told = _tables(folder, files)
    for name in files:
        text, table = told.get(name, ("", _TABLES[0]))
        found = {
            SOURCES[0]: _beside(folder / name),
            table: text,
            "tag": _tag(folder / name),
            SOURCES[-1]: _spoken(name),
        }
        yield (
            name,
            next(Caption(text, source) for source, text in found.items() if text or source == SOURCES[-1]),
        )


def sources(found: Iterable[Caption]) -> str:
    """How many captions come from where: "12 from a text file, 1 from a file name"."""
    return in_words(Counter(each.source for each in found))


def in_words(counts: Mapping[str, int]) -> str:
    """How many captions come from each of SOURCES, in words."""
    return ", ".join(f"{counts[source]} from a {source}" for source in SOURCES if counts.get(source))


def _beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ""
    return " ".join(read_text(text, AudioError, what="a caption").split())


def _tables(folder: Path, files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Captions in tables of the folder and of those within it, by file, each with its table's name."""
    told: dict[str, tuple[str, str]] = {}
    for place in sorted({Path(name).parent for name in files} | {Path()}):
        for table in _TABLES:
            path = folder / place / table
            if not path.is_file():
                continue
            for number, line in enumerate(read_text(path, AudioError).splitlines(), 1):
                if not line.strip():
                    continue
                row = parse_json(line, f"{path}, line {number}", AudioError)
                if not isinstance(row, dict):
                    raise AudioError(f"{path}, line {number}: expected a JSON object")
                name = next((row[key] for key in _FILE_KEYS if isinstance(row.get(key), str)), "")
                text = next((row[key] for key in _TEXT_KEYS if isinstance(row.get(key), str)), "")
                if name and text.strip():
                    told.setdefault((place / name).as_posix(), (" ".join(text.split()), table))
    return told


def _tag(path: Path) -> str:
    """What the comment says, or the prompt or caption of the recipe in it."""
    try:
        recipe = find_recipe(path)
        if recipe is None:
            return " ".join(probe(path).comment.split())
    except AudiogenError:  # whoever reads the sound says what is wrong
        return ""
    return next(
        (text for key in ("prompt", "caption") if isinstance(text := recipe.settings.get(key), str)), ""
    )


def _spoken(name: str) -> str:
    """A file's name in words, without the numbers at its ends."""
    words = re.sub(r"[\W_]+", " ", Path(name).stem).split()
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    while len(words) > 1 and words[0].isdigit():
        words.pop(0)
    return " ".join(words)
