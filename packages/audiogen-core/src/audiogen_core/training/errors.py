"""Errors that end a command with an exit code of their own, and what others say."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from audiogen_core.errors import AudiogenError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(AudiogenError):
    """There is no room for a checkpoint that must be written."""

    exit_code = 4


class Diverged(AudiogenError):
    """Training gave values that are not finite, again after a restart with a lower learning rate."""

    exit_code = 5


def means_full(error: OSError) -> bool:
    """Whether a write failed for want of room: a full disk, a quota, or a limit on file size."""
    return error.errno in _FULL


def differences(rows: Mapping[str, tuple[Any, Any]], one: str, other: str) -> str:
    """Settings that differ, one on a line, that can also be read as one sentence."""
    lines = [f"{key}: {a} in {one}, {b} in {other}" for key, (a, b) in rows.items()]
    return "they differ in\n  " + ";\n  ".join(lines)
