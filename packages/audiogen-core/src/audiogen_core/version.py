"""Versions of installed packages, looked up when asked for: the look-up costs more than an import may."""

from __future__ import annotations

from functools import cache


@cache
def version(package: str = "audiogen-core") -> str:
    """The version of an installed distribution."""
    from importlib import metadata

    return metadata.version(package)
