"""How the packages hang together, as `scripts/figures.py` sees it."""

from __future__ import annotations

from figures import circles, modules


def test_no_modules_import_one_another() -> None:
    """Imports inside functions and those for type checkers count: a reader has to follow them too."""
    assert circles(modules()) == []
