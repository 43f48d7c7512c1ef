"""Folders of audio and what is said of the files in them, and folders of codes that are made of these.

`encode.encode` makes one of the other; `shards` says what lies in it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from audiogen_core.dataset.folder import Caption, Skip, captions, scan, sources

__all__ = ["Caption", "Skip", "captions", "scan", "sources"]


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used: commands need the options alone, which lie beside them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from audiogen_core.dataset import folder

    return getattr(folder, name)
