"""Ctrl-C is answered at once, whatever is being done, and the second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audiogen_core.training.signals import ANSWER, Stopped, stopping

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

# PyDLL keeps the interpreter's lock for the length of a call, as loading a library does: no other thread runs
# meanwhile, and no handler.
PROGRAM = """
import ctypes, sys
from audiogen_core.training.signals import ANSWER, stopping
with stopping(ANSWER if sys.argv[1] == "tell" else None) as stop:
    print("ready", flush=True)
    while not stop.signal:  # a signal that comes just before the call does not shorten it
        ctypes.PyDLL(None).sleep(5)
    print("stopped by", stop.signal, flush=True)
    if sys.argv[2] == "stay":
        ctypes.PyDLL(None).sleep(600)
"""


def _program(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_answer_comes_while_python_is_deaf(number: signal.Signals) -> None:
    with _program("tell", "go") as process:
        process.send_signal(number)
        assert process.stderr and process.stderr.readline() == ANSWER + "\n"
        assert process.stdout and process.stdout.readline() == f"stopped by {number.value}\n"
        assert process.wait(60) == 0 and process.stderr.read() == ""  # no control characters on a pipe


def test_the_second_ends_the_process_in_the_midst_of_a_call() -> None:
    with _program("tell", "stay") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout and process.stdout.readline() == "stopped by 2\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT


@pytest.mark.parametrize("how", ["tell", "quiet"])
def test_two_at_the_same_instant_are_one(how: str) -> None:
    """As `timeout` sends them: one to the process, one to its group."""
    with _program(how, "go") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.stdout and process.stdout.readline() == "stopped by 2\n"
        assert process.wait(60) == 0
        assert process.stderr and process.stderr.read() == (ANSWER + "\n") * (how == "tell")


def test_quiet_says_nothing() -> None:
    with _program("quiet", "go") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr and process.stderr.read() == ""


def test_on_a_terminal_the_changing_line_is_taken_away(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tell", "go"], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    os.close(theirs)
    assert os.read(ours, 1000).decode() == f"\r\x1b[2K{ANSWER}\r\n\x1b[?25h"
    os.close(ours)


def test_one_inside_another_catches_for_both() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as outer, stopping() as inner:
        assert inner is outer
        inner.check()
        signal.raise_signal(signal.SIGINT)
        assert outer.signal == signal.SIGINT
        with pytest.raises(Stopped):
            inner.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_catches_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with stopping() as stop:
            seen.append((stop.signal, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
