"""A lock on a folder, so that two runs never write into one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

from filelock import FileLock, Timeout

from audiogen_core.errors import OptionError
from audiogen_core.files import require_plain
from audiogen_core.settings import read_json

NAME = ".lock"
_PATIENCE = 0.2  # seconds; `holder` takes the lock for a moment to see whether it can


@contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Hold `folder`, which must exist, for the length of a with block.

    The system holds the lock for the process, so one that is killed leaves none behind. The locked file names
    the process and its host. A host whose name is found in it is respected though the lock is to be had: the
    file system may not carry locks from one host to another.

    Raises OptionError when somebody else holds the folder.
    """
    path, host = Path(folder) / NAME, gethostname()
    require_plain(path)
    if path.is_dir():
        raise OptionError(f"{path}: a folder in the place of the lock; remove it")
    if _read(path).get("host", host) != host:
        raise _in_use(path)
    held = FileLock(path, timeout=_PATIENCE)
    try:
        held.acquire()
    except Timeout:
        raise _in_use(path) from None
    try:
        if held.__class__ is FileLock:  # else the system has none, and the file is filelock's own record
            with suppress(PermissionError):  # Windows lets nobody write into a locked file
                path.write_text(json.dumps({"pid": os.getpid(), "host": host}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever waits for this very file notices, and begins anew
        held.release()


def holder(folder: str | Path) -> dict[str, Any] | None:
    """Who holds the folder: {"pid", "host"}; None when nobody does, or nobody alive."""
    path = Path(folder) / NAME
    identity = _read(path)
    if not identity or identity["host"] != gethostname():
        return identity or None
    try:
        with FileLock(path, blocking=False):
            return None
    except (Timeout, PermissionError):
        return identity


def _in_use(path: Path) -> OptionError:
    identity = _read(path)
    who = f"process {identity['pid']} on {identity['host']}" if identity else "another process"
    return OptionError(
        f"{path.parent} is in use by {who}; wait for it, or delete {path} if that process is gone"
    )


def _read(path: Path) -> dict[str, Any]:
    """The process and host that a lock file names; {} when there is none, or it is empty or damaged."""
    with suppress(OptionError):
        require_plain(path)
        identity = read_json(path, OptionError)
        if type(identity.get("pid")) is int and isinstance(identity.get("host"), str):
            return identity
    return {}
