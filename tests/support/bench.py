"""Timing two things side by side: interleaved rounds in one run, and minima."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from support.figures import note


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
    """Lines of a benchmark that are no ratios to a peer, which `figures.compare` takes."""
    print(f"\n{title}")
    for row in rows:
        note(title, row)
