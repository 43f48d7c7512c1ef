"""Locks on folders: one holder at a time, none left behind by a process that was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from audiogen_core.errors import OptionError
from audiogen_core.training.lock import holder, lock

HOLD = """
import sys
from audiogen_core.training.lock import lock

with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def held_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    message = f"in use by process {process.pid} on {socket.gethostname()}"
    with pytest.raises(OptionError, match=message), lock(tmp_path):
        pass
    assert holder(tmp_path) == {"pid": process.pid, "host": socket.gethostname()}
    process.communicate("")
    assert process.returncode == 0 and holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".lock").exists() and holder(tmp_path) is None
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        mine = holder(tmp_path)
        assert mine is not None and mine["pid"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


def test_a_holder_on_another_host_is_told(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": 5}))
    assert holder(tmp_path) == {"pid": 7, "host": "elsewhere", "started": 5}
    with pytest.raises(OptionError, match="in use by process 7 on elsewhere"), lock(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()


def test_an_error_inside_gives_the_folder_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        _ = 1 // 0
    with lock(tmp_path):
        pass
