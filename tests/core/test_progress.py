"""What is told of long jobs."""

from __future__ import annotations

from audiogen_core.progress import counted


def test_amounts_are_added_up():
    told = []
    add = counted(lambda done, total: told.append((done, total)), 10)
    for amount in (1, 3, 6):
        add(amount)
    assert told == [(1, 10), (4, 10), (10, 10)]
    counted(None, 10)(3)
