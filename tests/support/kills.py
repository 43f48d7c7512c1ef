"""Encoding in a process of its own that is killed: after some shards, or at a given write to the disk."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from support.noise_files import CODEC

KILLED = -int(signal.SIGKILL)


def encode_killed_after(
    folder: Path, data: Path, shards: int, seconds: float, *, workers: int = 1, pids: Path | None = None
) -> int | None:
    """Encode until `shards` more are there, and be killed `seconds` later. Returns the exit code.

    pids  a file for the ids of the workers
    """
    return _run(_encode_after, folder, data, shards, seconds, workers, pids)


def encode_killed_at_sync(folder: Path, data: Path, count: int) -> int | None:
    """Encode, and be killed when something is flushed to the disk for the `count`-th time (from 0)."""
    return _run(_encode_at_sync, folder, data, count)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is over but not collected yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> None:
    """Raise AssertionError when the processes are still there after so long."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.05)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _run(target: object, *args: object) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audiogen_core.dataset.encode", "audiogen_core.codecs.encodec"])
    process: ForkServerProcess = context.Process(target=target, args=args)  # type: ignore[arg-type]
    process.start()
    process.join(120)
    return process.exitcode


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _encode_after(
    folder: Path, data: Path, shards: int, seconds: float, workers: int, pids: Path | None
) -> None:
    from audiogen_core.dataset.encode import encode

    begun: list[int] = []

    def on_step(done: int, total: int) -> None:
        begun.append(done)
        if pids is not None:
            pids.write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
        if done == begun[0] + shards:
            threading.Timer(seconds, _die).start()

    encode(folder, data, codec=CODEC, workers=workers, on_step=on_step)


def _encode_at_sync(folder: Path, data: Path, count: int) -> None:
    from audiogen_core import files
    from audiogen_core.dataset.encode import encode

    flush, left = files.sync, [count]

    def sync(path: Path) -> None:
        if left[0] == 0:
            if path.is_file() and random.Random(count).random() < 0.5:
                os.truncate(path, path.stat().st_size // 2)  # not all of it had reached the disk
            _die()
        left[0] -= 1
        flush(path)

    files.sync = sync
    encode(folder, data, codec=CODEC, workers=1)
