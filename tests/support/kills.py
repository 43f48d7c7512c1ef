"""Running a Python program that is killed at random moments until it gets through."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def run_with_kills(program: str, *arguments: str, kills: int, longest: float, seed: int = 0) -> int:
    """Run `python -c program arguments` with SIGKILL after random times, `kills` times; then to its end.

    The whole process group is killed, as by a machine that loses power. Returns how often the kill came
    before the program had ended by itself.
    """
    rng = random.Random(seed)
    struck = 0
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(kills):
        child = subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + rng.uniform(0.0, longest)
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            struck += 1
        _, errors = child.communicate()
        if child.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(errors.decode())
    subprocess.run(command, check=True, env=environment)
    return struck


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    """The files of a folder that match, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}
