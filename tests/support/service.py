"""A studio that is a process of its own, as somebody starts it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx

ENDED = ("done", "failed", "cancelled")


class Server:
    """`audiogen-core serve`, or another verb, on a library. Its words go to a file beside that."""

    def __init__(self, library: Path, *more: str, verb: str = "serve") -> None:
        command = [sys.executable, "-m", "audiogen_core", verb, "--port", "0", "--offline"]
        with library.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--library", str(library), *more], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._address = ""
        self._client = httpx.Client(timeout=120)

    @property
    def address(self) -> str:
        """Waits until it says where it is."""
        if not self._address:
            assert self.process.stdout is not None
            self._address = self.process.stdout.readline().strip().rstrip("/")
            assert self._address.startswith("http://"), f"no address, exit code {self.process.poll()}"
        return self._address

    def ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        return self._client.request(method, self.address + path, **values)

    def stream(self, method: str, path: str, **values: Any) -> AbstractContextManager[httpx.Response]:
        return self._client.stream(method, self.address + path, **values)

    def workers(self) -> list[int]:
        """The processes that work for it."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line) for line in found.stdout.split()]

    def ended(self, names: set[str], seconds: float = 600.0) -> dict[str, dict[str, Any]]:
        """All works, as soon as these have ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            works = {work["id"]: work for work in self.ask("GET", "/v1/jobs").json()["data"]}
            if all(works[name]["state"] in ENDED for name in names):
                return works
            time.sleep(0.1)
        raise AssertionError({name: works[name]["state"] for name in names})

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def serving(library: Path, *more: str, verb: str = "serve") -> Iterator[Server]:
    """A server that is killed at the end of the block."""
    server = Server(library, *more, verb=verb)
    try:
        yield server
    finally:
        server.kill()
