"""How far a long job is, shown on stderr; and how much memory it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

Amount = TypeVar("Amount", int, float)

OnStep = Callable[[float, float], None]
"""Called with (done, total); a total of 0 means it is not known."""


@contextmanager
def bar(label: str, *, unit: str, shown: bool = True) -> Iterator[OnStep]:
    """A bar with amounts, rate and time left on stderr; nothing at all unless `shown`."""
    if not shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    started = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(label, total=None, text="")

        def on_step(done: float, total: float) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            of = f"/{total:.6g}" if total else ""
            drawn.update(
                task, completed=done, total=total or None, text=f"{done:.6g}{of} {unit}, {rate:.3g}/s"
            )

        yield on_step


def counted(on_step: Callable[[Amount, Amount], None] | None, total: Amount) -> Callable[[Amount], None]:
    """A function to be called with each amount that is newly done: it adds up and tells `on_step`."""
    done = type(total)(0)

    def add(amount: Amount) -> None:
        nonlocal done
        done += amount
        if on_step is not None:
            on_step(done, total)

    return add


def peak_memory() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):  # Linux; its rusage counts the parent before exec, too
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
