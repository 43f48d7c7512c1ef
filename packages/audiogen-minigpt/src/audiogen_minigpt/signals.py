"""Stopping a run politely: the first signal asks, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal has asked to stop; `signal` is its number, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; at the second, exit at once with 128 + its number."""
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM for the length of a with block. Outside the main thread nothing is caught."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
