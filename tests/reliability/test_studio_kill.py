"""Studios and their workers that are killed at any moment: what was accepted ends once."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from support import tones
from support.figures import tell
from support.kills import wait_until_gone
from support.service import Server, serving


def accepted(server: Server, seed: int) -> str | None:
    """The id of a work that was accepted; None where the server is gone."""
    body = {"job": "tones", "seconds": 1, "wait": 0.05, "seed": seed}
    try:
        answer = server.ask("POST", "/v1/jobs", json=body)
    except httpx.HTTPError:
        return None
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


COUNTS = [
    pytest.param(5, marks=pytest.mark.slow),
    pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.mark.parametrize("kills", COUNTS)
def test_servers_that_are_killed(kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    library, draws = tmp_path / "library", random.Random(0)
    names: set[str] = set()
    left: set[int] = set()
    for kill in range(kills):
        with serving(library) as server:
            if kill % 5 == 4:  # while it starts, and takes up what the one before it left
                time.sleep(draws.uniform(0.0, 2.0))
            else:
                names |= {
                    name for each in range(2) if (name := accepted(server, 2 * kill + each)) is not None
                }
                time.sleep(draws.uniform(0.0, 1.5))
            left |= set(server.workers())
    assert len(names) >= 2 * (kills - kills // 5)
    with serving(library) as server:
        works = server.ended(names)
        assert {works[name]["state"] for name in names} == {"done"}
        made = {path.name: path.read_bytes() for path in (library / "clips").iterdir()}
        assert sorted(made) == sorted(name for work in works.values() for name in work["files"])
        for name in list(names)[:5]:  # whatever happened to it, it is what it would have been
            body = {"job": "tones", "seconds": 1, "wait": 0.05, "seed": works[name]["options"]["seed"]}
            answer = server.ask("POST", "/v1/audio/generate", json=body)
            assert answer.content == made[works[name]["files"][0]]
    wait_until_gone(list(left), 30)
    tell(
        area="studio",
        done="servers killed at random moments with jobs waiting",
        count=kills,
        result=f"{len(names)} accepted jobs, each done once, bytes the same; no process left",
        promised="every accepted job ends once",
    )


@pytest.mark.parametrize("kills", COUNTS)
def test_workers_that_are_killed(kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    draws, names, killed = random.Random(1), set(), 0
    with serving(tmp_path / "library", "--queue", "1000") as server:
        while killed < kills:
            for _ in range(2):
                name = accepted(server, len(names))
                assert name is not None
                names.add(name)
            time.sleep(draws.uniform(0.0, 1.5))
            for process in server.workers():
                os.kill(process, signal.SIGKILL)
                killed += 1
        works = server.ended(names)
        states = [works[name]["state"] for name in names]
        failed = [work for work in works.values() if work["state"] == "failed"]
        assert set(states) <= {"done", "failed"} and 0 < len(failed) <= killed
        assert all(re.search("killed while it worked|ended by itself", work["error"]) for work in failed)
        made = sorted(path.name for path in (tmp_path / "library" / "clips").iterdir())
        done = [work for work in works.values() if work["state"] == "done"]
        whole = {name for work in done for name in work["files"]}
        assert whole <= set(made) <= whole | {name for work in failed for name in work["files"]}
        after = server.ask("POST", "/v1/audio/generate", json={"job": "tones", "seconds": 1, "seed": 1})
        assert after.status_code == 200
    tell(
        area="studio",
        done="workers killed at random moments",
        count=killed,
        result=f"{len(names)} accepted jobs: {len(done)} done, {len(failed)} failed with a sentence",
        promised="a killed worker is one failed job, the queue goes on",
    )
