"""What a call costs, measured in a process of its own: growth of memory at its peak, processor time."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """`result` of the call; bytes of memory above what the process had before; seconds of processor."""

    result: str
    memory: int
    seconds: float


def measured(action: Callable[[], str]) -> Cost:
    """Run an action in a fork, so that memory which an earlier one freed is not used again."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gc.freeze()
            before, started = peak_memory(reset=True), time.process_time()
            result = action()
            took = time.process_time() - started
            os.write(write, json.dumps([result, peak_memory() - before, took]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the process ended with {status}"
    return Cost(*json.loads(text))


def peak_memory(reset: bool = False) -> int:
    """The largest resident memory, bytes; on Linux since it was last reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
