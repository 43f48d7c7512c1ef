"""Bounding the memory mlx keeps for reuse while something runs, and giving it back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import mlx.core as mx

from audiogen_core.errors import OptionError
from audiogen_mlx import forks

CACHE_LIMIT = 256 << 20
"""Bytes mlx may keep for reuse during a run: enough for the buffers that recur from step to step."""

_lock = Lock()
_limits: list[int] = []  # of the runs in progress
_before = 0  # mlx's own limit, while there are any


@contextmanager
def bounded_cache(limit: int = CACHE_LIMIT) -> Iterator[None]:
    """Within, mlx keeps at most `limit` bytes of freed memory; on leaving, none.

    The limit mlx had before comes back when the last of several runs ends, whatever their order and
    whether they end well or not; until then the smallest of their limits holds. Raises OptionError
    when `limit` is negative, ModelError in a fork of a process that used mlx.
    """
    forks.check()
    if limit < 0:
        raise OptionError(f"the limit of mlx's cache must be 0 bytes or more, got {limit}")
    _enter(limit)
    try:
        yield
    finally:
        _leave(limit)
        mx.clear_cache()


def _enter(limit: int) -> None:
    global _before
    with _lock:
        before = mx.set_cache_limit(min([*_limits, limit]))
        if not _limits:
            _before = before
        _limits.append(limit)


def _leave(limit: int) -> None:
    with _lock:
        _limits.remove(limit)
        mx.set_cache_limit(min(_limits) if _limits else _before)
