"""Writing a folder so that a reader sees none or the whole one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiogen_core.errors import OptionError
from audiogen_core.files import sync


@contextmanager
def staged_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder beside `target`; on leaving, its files are flushed and it takes the target's name.

    When the body raises, the folder is removed and the target stays as it was. Raises OptionError when the
    target exists and is not an empty folder: nothing is overwritten.
    """
    target = Path(target).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OptionError(f"{target}: exists and is not an empty folder; choose another name or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{secrets.token_hex(6)}.tmp")
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            sync(path)
        sync(staging)
        if target.exists():
            target.rmdir()
        staging.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
