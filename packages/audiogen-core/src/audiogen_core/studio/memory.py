"""How much memory a process holds, and how much there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def resident(process: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    return 0


def physical() -> int:
    """Bytes of memory of this machine; 8 GiB where the system does not say."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 << 30
