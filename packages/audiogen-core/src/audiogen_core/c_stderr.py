"""What C libraries print is kept from the terminal: libmpg123 writes warnings there that no user can use."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_silent = 0
_before: int | None = None


@contextmanager
def silenced() -> Iterator[None]:
    """While the body runs, what C code prints to `stderr` goes nowhere; what Python prints is not touched.

    The variable of the C library is changed, not the descriptor: other threads and new processes keep theirs.
    It can be changed in glibc and on macOS; elsewhere nothing is done.
    """
    global _silent, _before
    found = _streams()
    if found is None:
        yield
        return
    stream, nowhere = found
    with _lock:
        _silent += 1
        if _silent == 1:
            _before, stream.value = stream.value, nowhere
    try:
        yield
    finally:
        with _lock:
            _silent -= 1
            if _silent == 0:
                stream.value = _before


@cache
def _streams() -> tuple[Any, int] | None:
    """The C library's variable `stderr`, and a stream that goes nowhere."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None)
    if sys.platform != "darwin" and not hasattr(library, "gnu_get_libc_version"):
        return None  # in musl the variable lies in memory that cannot be written
    stream = ctypes.c_void_p.in_dll(library, "__stderrp" if sys.platform == "darwin" else "stderr")
    library.fopen.restype = ctypes.c_void_p
    nowhere = library.fopen(os.devnull.encode(), b"w")
    return (stream, nowhere) if nowhere else None
