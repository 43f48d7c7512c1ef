"""Starting processes that work, and hearing of what they do.

A process that crashes, is killed for its memory or hangs is one failed work with a sentence; the next work
of its package starts a new one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from audiogen_core.errors import ModelError
from audiogen_core.studio.memory import resident

GRACE = 2.0
"""Seconds in which a process is to follow a cancellation, before it is ended."""

STARTING = 60.0
"""Seconds in which a process is to start."""

_TOLD = 20  # lines of a process's errors that are kept


class WorkerDied(ModelError):
    """The process that worked ended, or gave no sign for too long."""


class Process:
    """One running worker.

    patience  seconds without a sign after which it is taken for hanging
    """

    def __init__(self, limit: int, patience: float) -> None:
        self.patience, self._ready = patience, False
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._errors: deque[str] = deque(maxlen=_TOLD)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "audiogen_core.studio.worker", str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which ends it
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            Thread(target=self._hear, args=(self._process.stdout,), daemon=True),
            Thread(target=self._overhear, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes it holds."""
        return resident(self.pid) if self.alive else 0

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask it something; one that is gone is noticed by those who listen."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._process.kill()

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens, until the work ends. Raises WorkerDied."""
        while True:
            patience = self.patience if self._ready else max(self.patience, STARTING)
            try:
                event = self._events.get(timeout=patience)
            except Empty:
                self.kill()
                raise WorkerDied(f"no sign of life for {patience:g} s; the work was ended") from None
            if event is None:
                raise WorkerDied(self._epitaph())
            self._ready = True
            ends = event["event"] in ("done", "failed", "cancelled")
            yield event
            if ends:
                return

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _hear(self, lines: IO[bytes]) -> None:
        for line in lines:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _overhear(self, lines: IO[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            self._errors.append(text)
            sys.stderr.write(text + "\n")

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._readers[1].join(1.0)
        if code == -signal.SIGKILL:
            return "the process was killed while it worked; it may have run out of memory"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = next((line for line in reversed(self._errors) if line.strip()), "")
        return f"the process that worked ended by itself ({how}){': ' + last if last else ''}"
