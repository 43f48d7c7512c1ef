"""A lock on a folder, so that two runs never write into one."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError

NAME = ".lock"
_ATTEMPTS = 10


@contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Hold `folder`, which must exist, for the length of a with block.

    The lock is a file that names the process and its host. One left by a process of this host that is
    gone is taken over; one of another host is respected, because nobody can tell from here.

    Raises OptionError when somebody else holds the folder.
    """
    path = Path(folder) / NAME
    own = json.dumps(_identity(os.getpid()))
    for attempt in range(_ATTEMPTS):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            _remove_stale(path, patient=attempt < _ATTEMPTS // 2)
            continue
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(own)
        break
    else:
        raise OptionError(f"{path}: could not be taken over; is another run starting in this folder?")
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == own:
                path.unlink()


def holder(folder: str | Path) -> dict[str, Any] | None:
    """Who holds the folder: {"pid", "host", "started"}; None when nobody does, or nobody alive."""
    found = _read(Path(folder) / NAME)
    return found if found and _alive(found) else None


def _remove_stale(path: Path, patient: bool) -> None:
    """Take the lock away from a process that is gone; raise OptionError when it is not.

    A lock that is empty may be one that is being written, so at first it is only waited for.
    """
    found = _read(path)
    if found is None:
        return  # gone in the meantime
    if not found and patient:
        time.sleep(0.02)
        return
    if _alive(found):
        raise OptionError(
            f"{path.parent} is in use by process {found.get('pid')} on {found.get('host')}; wait for it, "
            f"or delete {path} if that process is gone"
        )
    grave = path.with_name(f"{NAME}-{secrets.token_hex(6)}")
    with suppress(FileNotFoundError):
        path.rename(grave)
        if _read(grave) != found:  # another process was quicker, and this is its lock
            grave.rename(path)
        else:
            grave.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    """What the lock file says; {} when it is empty or damaged; None when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _alive(found: dict[str, Any]) -> bool:
    pid, host = found.get("pid"), found.get("host")
    if not isinstance(pid, int) or not isinstance(host, str):
        return False  # killed while writing it
    if host != socket.gethostname():
        return True
    if pid == os.getpid():
        return found.get("started") == _started(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as somebody else
    return found.get("started") in (None, _started(pid))


def _identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "host": socket.gethostname(), "started": _started(pid)}


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot, so that a recycled id is told apart. Linux only."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
