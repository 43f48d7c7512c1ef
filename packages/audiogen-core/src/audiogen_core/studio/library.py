"""The folder of the studio: clips that were made, clips that were brought in, and the queue.

    clips/    what was made, each file with its recipe; files that are put there by hand are shown as well
    uploads/  clips and other files that were brought in, named by the hash of their content
    spool/    what is made just now, as it is heard before it is whole
    queue/    works, see `queue`
    training/ models and adapters that are made of clips, see `training`
    adapters/ adapters from elsewhere, put there by hand: a file or a folder each
    page/     what the page has uploaded, as Gradio keeps it

What is asked for by a name is looked up among the files that are there: a name is never made a path.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from audiogen_core.audio import AudioWriter, probe, stream
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import sync
from audiogen_core.recipe import Recipe, find, hash_file
from audiogen_core.sound_writer import fitting_rate
from audiogen_core.studio.queue import Missing

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a", ".aac", ".webm")
"""Names of sound files; those of what is brought in may end so."""


@dataclass(frozen=True)
class Clip:
    """A sound file of the library.

    name     of the file
    created  seconds since 1970
    recipe   what makes it again, or None
    """

    name: str
    seconds: float
    sample_rate: int
    channels: int
    created: float
    bytes: int
    recipe: Recipe | None

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)


class Library:
    """The clips of a folder."""

    def __init__(self, folder: Path, most_seconds: float = 3600.0) -> None:
        """most_seconds  of a clip that is brought in"""
        self.folder, self._most_seconds = folder, most_seconds
        self._read: dict[str, tuple[tuple[int, int], Clip | None]] = {}
        self._lock = Lock()
        for each in ("clips", "uploads", "spool"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        for left in [*(folder / "spool").iterdir(), *(folder / "uploads").glob(".*.tmp*")]:
            left.unlink(missing_ok=True)
        self.clear()

    def clear(self) -> None:
        """Delete what was left half made in clips/ by one that was killed; called while nothing is made."""
        for left in (self.folder / "clips").glob(".*.tmp*"):
            left.unlink(missing_ok=True)

    def clips(self, search: str = "") -> list[Clip]:
        """From the newest on; those whose name or recipe has all words of `search`."""
        found = [clip for path in self._files("clips") if (clip := self._clip(path)) is not None]
        words = search.lower().split()
        wanted = [clip for clip in found if all(word in _text(clip) for word in words)]
        return sorted(wanted, key=lambda clip: (clip.created, clip.name), reverse=True)

    def clip(self, name: str) -> Clip:
        """Raises Missing when there is none of that name."""
        clip = self._clip(self.path(name))
        if clip is None:
            raise OptionError(f"{name!r} cannot be read as sound")
        return clip

    def path(self, name: str) -> Path:
        """Where a clip is that was made or brought in. Raises Missing when there is none of that name."""
        for place in ("clips", "uploads"):
            for path in self._files(place):
                if path.name == name:
                    return path
        raise Missing(f"there is no clip {name!r}")

    def holding(self, digest: str) -> Path:
        """The clip whose file has this sha256. Raises Missing when it is not here."""
        for path in self._files("uploads"):
            if digest.startswith(path.stem):
                return path
        for path in self._files("clips"):
            if hash_file(path) == digest:
                return path
        raise Missing(f"no clip with the sha256 {digest[:12]}... is here")

    @contextmanager
    def converted(self, name: str, suffix: str) -> Iterator[Path]:
        """A clip in another format, with its recipe, for as long as the block lasts.

        Raises Missing when there is none of that name, AudioError when that format does not hold it.
        """
        path = self.path(name)
        target = self.folder / "spool" / f"{secrets.token_hex(8)}{suffix}"
        info = probe(path)
        rate = fitting_rate(target, info.sample_rate)
        try:
            with AudioWriter(target, rate, info.channels, recipe=find(path)) as writer:
                for block in stream(path, sample_rate=rate):
                    writer.write(block)
            yield target
        finally:
            target.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Raises Missing when there is none of that name among those that were made."""
        for path in self._files("clips"):
            if path.name == name:
                path.unlink(missing_ok=True)
                return
        raise Missing(f"there is no clip {name!r}")

    def receive(self, name: str, blocks: Iterable[bytes], others: Sequence[str] = ()) -> str:
        """Keep a clip that is brought in; the name it has here. What is no sound is refused.

        others  suffixes of files that are no sound and are kept unread

        Raises OptionError for a name that is none of a sound file, AudioError when it cannot be read.
        """
        suffix, known = Path(name).suffix.lower(), (*others, *SUFFIXES)
        if suffix not in known:
            what = "one that is taken here" if others else "the name of a sound file"
            raise OptionError(f"{name!r} is not {what}; such end with {', '.join(known)}")
        hashed = hashlib.sha256()
        temporary = self.folder / "uploads" / f".{secrets.token_hex(8)}.tmp{suffix}"
        try:
            with temporary.open("wb") as file:
                for block in blocks:
                    hashed.update(block)
                    file.write(block)
            if suffix in SUFFIXES:
                self._check_sound(temporary, name)
            sync(temporary)
            target = self.folder / "uploads" / f"{hashed.hexdigest()[:24]}{suffix}"
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target.name

    def _check_sound(self, path: Path, name: str) -> None:
        """Raises AudioError for a file, brought in by that name, that is no sound or too long."""
        try:
            info = probe(path)
        except AudioError as error:
            raise AudioError(str(error).replace(path.name, Path(name).name)) from error
        if info.frames > self._most_seconds * info.sample_rate:
            seconds = info.frames / info.sample_rate
            raise AudioError(f"{name!r} has {seconds:.0f} s; at most {self._most_seconds:.0f} are taken")

    def _files(self, place: str) -> list[Path]:
        with os.scandir(self.folder / place) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")
            ]

    def _clip(self, path: Path) -> Clip | None:
        """What a file is; None when it is no sound, or gone."""
        try:
            status = path.stat()
            key = (status.st_mtime_ns, status.st_size)
            with self._lock:
                if (known := self._read.get(str(path))) is not None and known[0] == key:
                    return known[1]
            clip: Clip | None
            try:
                info = probe(path)
                clip = Clip(
                    path.name,
                    info.frames / info.sample_rate,
                    info.sample_rate,
                    info.channels,
                    status.st_mtime,
                    status.st_size,
                    find(path),
                )
            except AudioError:
                clip = None
        except FileNotFoundError:
            return None
        with self._lock:
            self._read[str(path)] = (key, clip)
        return clip


def _text(clip: Clip) -> str:
    return f"{clip.name} {'' if clip.recipe is None else clip.recipe.to_json()}".lower()


def default_folder() -> Path:
    """Where the library is unless somebody says otherwise."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "audiogen" / "studio"
