"""Stopping a run politely: the first signal asks, the second one ends the process at once.

Python runs handlers between two of its own instructions, which may be seconds apart: while a library is
loaded, or a large product is worked out. So the answer on the terminal comes from a small process of its own,
woken by the system as soon as the signal is there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

SAME = 0.3
"""Seconds within which another signal is the same wish: `timeout` sends one to a process and one to its
group."""

ANSWER = "stopping after this step; again to stop at once"

# Reads the numbers of signals as they come. A second one means that Python has not got to the first yet.
_ANSWERING = """
import os, sys, time
asked, first, terminal = 0, 0.0, os.isatty(2)
while number := os.read(0, 1):
    if number[0] in (2, 15) and not (asked and time.monotonic() - first < float(sys.argv[2])):
        asked, first = asked + 1, first or time.monotonic()
        if asked > 1:
            os.kill(os.getppid(), 9)
        os.write(2, (terminal * "\\r\\x1b[2K" + sys.argv[1] + "\\n").encode())
if asked and terminal:
    os.write(2, b"\\x1b[?25h")  # the cursor, which a bar hides, if nobody was left to show it
"""


class Stopped(Exception):
    """Asked for by a signal: what was being done was left where it can be gone on with."""


class Stop:
    """Whether a signal has asked to stop; `signal` is its number, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a later one ends the process, even in the midst of a long call."""
        if self.signal is not None:  # at the same instant, before it was seen to
            return
        self.signal = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        time.sleep(SAME)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Stopped when a signal has come."""
        if self.signal is not None:
            raise Stopped


_active: Stop | None = None


def is_caught() -> bool:
    """Whether signals are being caught by `stopping`."""
    return _active is not None


@contextmanager
def stopping(answer: str | None = None) -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM for the length of a with block; one inside another catches for both.

    answer  what is said on stderr when the first one comes

    Outside the main thread nothing is caught.
    """
    global _active
    if _active is not None:
        yield _active
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    _active = stop
    try:
        with _answering(answer):
            yield stop
    finally:
        _active = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _answering(answer: str | None) -> Iterator[None]:
    if answer is None or os.name != "posix":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # In a session of its own, so that what ends this process does not end it.
    command = [sys.executable, "-I", "-S", "-c", _ANSWERING, answer, str(SAME)]
    process = subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(reading)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        process.wait()
