"""Timing two things side by side: interleaved rounds in one run, minima, and a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def race(contestants: Mapping[str, Callable[[], object]], rounds: int = 3) -> dict[str, float]:
    """The best time of each, in seconds. Rounds take turns, so a busy moment hits all alike."""
    for contestant in contestants.values():
        contestant()  # warm
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def report(title: str, rows: list[str]) -> None:
    """Print a table of a benchmark; `pytest -s` shows it."""
    print(f"\n{title}")
    for row in rows:
        print(f"  {row}")
