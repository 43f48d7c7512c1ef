"""Forks: mlx's threads stay behind in the process that was forked; without them it would wait for ever."""

from __future__ import annotations

import os

from audiogen_core.errors import ModelError

_used = _lost = False


def check() -> None:
    """To be called before mlx computes. Raises ModelError where it cannot: in the child of a process that
    used it before the fork.
    """
    global _used
    if _lost:
        raise ModelError(
            "this process was forked from one that had used mlx, which does not work in it; start processes "
            'with multiprocessing.get_context("spawn"), or fork before a model is loaded'
        )
    _used = True


def _forked() -> None:
    global _lost
    _lost = _used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
