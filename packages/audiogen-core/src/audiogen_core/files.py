"""Writing files and folders so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import errno
import filecmp
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from audiogen_core.errors import AudiogenError, OptionError


@contextmanager
def atomic_path(
    target: str | Path, error: type[AudiogenError] | None = None, *, unless_same: bool = False
) -> Iterator[Path]:
    """A temporary path beside `target`; on leaving, fsynced and renamed over it.

    error        what an OSError on the way becomes, in one sentence
    unless_same  a target that has the same bytes already stays untouched

    The temporary name keeps the target's suffix, so writers that look at it still work. A file that is
    replaced hands on its mode, and its owner where the system allows that. When the body raises, the
    temporary file is removed and the target stays as it was. Raises OptionError for a target that is a link,
    a device or a pipe: see `require_plain`; or has no name.
    """
    target = Path(target)
    if not target.name:
        raise OptionError(f"{target}: a folder; name a file to write")
    require_plain(target)
    temporary = target.with_name(f".{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        sync(temporary)
        require_plain(target)
        if unless_same and target.is_file() and filecmp.cmp(temporary, target, shallow=False):
            temporary.unlink()
            return
        _take_after(temporary, target)
        temporary.replace(target)
        sync(target.parent)
    except BaseException as fault:
        with suppress(OSError):
            temporary.unlink()
        if error is not None and isinstance(fault, OSError):
            raise error(f"{target}: cannot be written ({fault.strerror or fault})") from fault
        raise


def require_plain(target: str | Path) -> None:
    """Raise OptionError when a link, a device, a pipe or a socket has that name: renaming a file to it would
    take it away, be it /dev/null, and a link would no longer lead where its owner meant.
    """
    target = Path(target)
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise OptionError(
            f"{target}: a link to {target.readlink()}, which is not replaced; name the file itself"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OptionError(f"{target}: a device, pipe or socket, which is not replaced; name a file")


def _take_after(new: Path, old: Path) -> None:
    """Give a file the owner and mode of the one it replaces, as far as the system allows."""
    try:
        facts = old.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(new, -1, facts.st_gid)
            os.chown(new, facts.st_uid, -1)
    new.chmod(facts.st_mode & 0o777)


TEMPORARY = ".tmp-"
"""How the name of a folder that is being written, or taken away, begins: what a killed process leaves."""


@contextmanager
def atomic_folder(target: str | Path, *, replace: bool = False, over: Sequence[str] = ()) -> Iterator[Path]:
    """An empty folder beside `target`; on leaving, all in it is fsynced and it takes the target's name.

    replace  a folder that is there gives way; otherwise OptionError, as `require_new_folder` raises it
    over     a folder gives way that holds one of these files

    When the body raises, the new folder is removed and the target stays as it was.
    """
    target = Path(target).absolute()  # so that "." has a name
    require_plain(target)
    if not replace:
        require_new_folder(target, over)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            sync(path)
        sync(temporary)
        if target.is_dir() and (replace or over):
            _swap(temporary, target)
        else:
            if target.is_dir():
                target.rmdir()  # an error when somebody has filled it in the meantime
            temporary.replace(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def require_new_folder(target: str | Path, over: Sequence[str] = ()) -> None:
    """Raise OptionError unless a folder may be written there: nothing is, or an empty folder.

    over  names of files that a folder of its kind has: one with such a file may be written over, no other
    """
    target = Path(target)
    require_plain(target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not over:
        raise OptionError(
            f"{target}: exists already and is not an empty folder; choose another name, or use force where "
            "it was exported before",
            "force",
        )
    if not any((target / name).is_file() for name in over):
        raise OptionError(
            f"{target}: not written over, for it holds something else: there is no {' or '.join(over)} in it"
        )


def require_new_file(target: str | Path, force: bool = False, how: str = "say force=True") -> None:
    """Raise OptionError when a file is there already, unless it may be written over."""
    if not force and Path(target).is_file():
        raise OptionError(f"{target}: exists already; {how} to write over it, or choose another name")


SPARE = 1 << 16
"""Bytes that must be left on a disk beside what is to be written."""


def require_room(target: str | Path, needed: float = 0.0, kind: type[AudiogenError] = OptionError) -> None:
    """Raise an error of that kind unless there is room for so many bytes where something is to be made.

    Looked at is the nearest folder that is there already; it must be one that can be written to.
    """
    place = Path(target).absolute().parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise kind(f"{target}: the folder {place} cannot be written to; choose an output that can be written")
    free = shutil.disk_usage(place).free
    if free < needed + SPARE:
        raise kind(
            f"{target}: takes about {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free in {place}; "
            "make room there or choose another disk"
        )


def remove_folder(folder: Path) -> None:
    """Delete a folder, which is gone under its name at once, however long that takes."""
    grave = _grave(folder)
    folder.replace(grave)
    shutil.rmtree(grave, ignore_errors=True)


def require_regular(path: str | Path) -> None:
    """Raise OSError unless this is a regular file or a link to one, before it is opened to be read.

    A pipe would be waited for, a device read without end.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(new: Path, target: Path) -> None:
    """Rename a folder to the name of another one, which goes; no system does that in one step."""
    grave = _grave(target)
    target.replace(grave)
    try:
        new.replace(target)
    except BaseException:
        grave.replace(target)
        raise
    shutil.rmtree(grave, ignore_errors=True)


def _grave(folder: Path) -> Path:
    return folder.with_name(f"{TEMPORARY}old-{secrets.token_hex(4)}")
