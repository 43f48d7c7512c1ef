"""Servers and workers that are killed at any moment: what was accepted ends once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import tones

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

KILLS = 50


class Server:
    """A service of its own process on a library."""

    def __init__(self, library: Path) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "audiogen_core.main",
                "serve",
                "--port",
                "0",
                "--offline",
                "--library",
                str(library),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip().rstrip("/")

    def ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        return httpx.request(method, self.address + path, timeout=60, **values)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def served(library: Path) -> Iterator[Server]:
    server = Server(library)
    try:
        yield server
    finally:
        server.kill()


def workers() -> list[int]:
    """The processes that work for a server of this test."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "audiogen_core.studio.worker" in line]


def asked(server: Server, seed: int) -> str | None:
    """The id of a work that was accepted; None where the server died over it."""
    try:
        body = {"job": "tones", "seconds": 1, "wait": 0.02, "seed": seed}
        answer = server.ask("POST", "/v1/jobs", json=body)
    except httpx.HTTPError:
        return None
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def finished(server: Server, names: set[str], seconds: float = 600) -> dict[str, dict[str, Any]]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        works = {work["id"]: work for work in server.ask("GET", "/v1/jobs").json()["data"]}
        if all(works[name]["state"] in ("done", "failed") for name in names):
            return works
        time.sleep(0.2)
    raise AssertionError({name: works[name]["state"] for name in names})


def test_servers_that_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    library, draws, accepted = tmp_path / "library", random.Random(0), set()
    for round_ in range(KILLS):
        with served(library) as server:
            for index in range(2):
                if (name := asked(server, 10 * round_ + index)) is not None:
                    accepted.add(name)
            time.sleep(draws.uniform(0.0, 1.5))
    with served(library) as server:
        works = finished(server, accepted)
        assert {works[name]["state"] for name in accepted} == {"done"}
        made = [path.name for path in (library / "clips").iterdir() if not path.name.startswith(".")]
        assert sorted(made) == sorted(name for work in works.values() for name in work["files"])
        first = works[min(accepted)]
        body = {"job": "tones", "seconds": 1, "seed": json.loads(json.dumps(first["options"]["seed"]))}
        again = server.ask("POST", "/v1/audio/generate", json=body).content
        samples = [
            content[-15_000:] for content in (again, (library / "clips" / first["files"][0]).read_bytes())
        ]
        assert samples[0] == samples[1]
    until = time.monotonic() + 30
    while workers() and time.monotonic() < until:
        time.sleep(0.1)
    assert workers() == []  # nothing is left of any of them


def test_workers_that_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    draws, accepted = random.Random(1), []
    with served(tmp_path / "library") as server:
        for seed in range(KILLS):
            name = asked(server, seed)
            assert name is not None
            accepted.append(name)
            time.sleep(draws.uniform(0.1, 1.0))
            for process in workers():
                os.kill(process, signal.SIGKILL)
        works = finished(server, set(accepted))
        failed = [works[name] for name in accepted if works[name]["state"] == "failed"]
        assert failed and all(re.search("killed|ended", work["error"]) for work in failed)
        assert all(len(works[name]["clips"]) == 1 for name in accepted if works[name]["state"] == "done")
        after = server.ask("POST", "/v1/audio/generate", json={"job": "tones", "seconds": 1, "seed": 1})
        assert after.status_code == 200
