"""What the service adds to a job, and when its sound is first heard.

The service is measured beside a worker of its own kind that is asked without it, one job after the other,
both warm; and, where sound streams, beside a command that begins anew.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from audiogen_core import jobs
from audiogen_core.studio.workers import Process
from support.figures import compare, note
from support.service import Server, serving

pytestmark = pytest.mark.benchmark

TIMES = 31
ADDED = 0.15
"""Seconds that the service may add to a short job, at the median."""

SHORT: dict[str, dict[str, Any]] = {
    "musicgen": {"prompt": "slow piano", "seconds": 1.0},
    "generate": {"seconds": 1.0},
}
"""Jobs that the demo models do, and what is asked of them."""

COMMAND = """
from audiogen_core import jobs
job = jobs.find("musicgen", "audiogen-mlx")
model = job.open(model="demo")
take = next(model.takes(job.options.of({"prompt": "slow piano", "seconds": 20, "seed": 1})))
print(next(take.pieces).samples.shape)
"""
"""What `audiogen-mlx musicgen` does until it has the first piece."""


@contextmanager
def worker() -> Iterator[Process]:
    """A process such as those of the service."""
    process = Process(limit=1 << 40, patience=600.0)
    try:
        yield process
    finally:
        process.kill()


def alone(process: Process, job: str, options: dict[str, Any], path: Path) -> float:
    """Seconds that a worker takes for a job."""
    request = {
        "id": path.stem,
        "job": job,
        "package": jobs.find(job).package,
        "load": {"model": "demo"},
        "options": options,
        "revision": None,
        "outputs": [str(path)],
        "spool": [str(path.with_suffix(".pcm"))],
        "channel": None,
        "fetch": False,
        "offline": True,
    }
    began = time.perf_counter()
    process.send(request)
    events = [event["event"] for event in process.events()]
    took = time.perf_counter() - began
    assert events[-1] == "done"
    return took


def asked(server: Server, job: str, options: dict[str, Any]) -> float:
    """Seconds that the service takes for it, until the clip is there."""
    began = time.perf_counter()
    answer = server.ask("POST", "/v1/audio/generate", json={"model": f"{job}/demo", **options})
    took = time.perf_counter() - began
    assert answer.status_code == 200 and answer.content.startswith(b"RIFF")
    return took


@pytest.mark.parametrize("job", SHORT)
def test_what_the_service_adds(job: str, tmp_path: Path):
    with serving(tmp_path / "library") as server, worker() as process:
        served, bare = [], []
        for seed in range(TIMES + 2):
            options = {**SHORT[job], "seed": seed}
            bare.append(alone(process, job, options, tmp_path / f"{seed}.wav"))
            served.append(asked(server, job, options))
    served, bare = served[2:], bare[2:]  # models are loaded, and what is compiled is compiled
    added = [each - other for each, other in zip(served, bare, strict=True)]
    title = f"Studio: {job} demo, 1 s"
    times = {"worker alone": median(bare), "service": median(served)}
    compare(title, "one job after the other", times, peer="worker alone")
    middle, most = (1000 * each for each in (median(added), sorted(added)[-3]))
    aim = f"aim: below {1000 * ADDED:.0f} ms at the median"
    note(title, f"The service adds {middle:.0f} ms at the median, {most:.0f} ms at most but for two; {aim}.")


def heard(server: Server) -> float:
    """Seconds until the first samples of a clip have come, which then is given up."""
    body = {"model": "musicgen/demo", "input": "slow piano", "seconds": 20, "seed": 1, "stream": True}
    began = time.perf_counter()
    with server.stream("POST", "/v1/audio/generate", json=body) as answer:
        assert answer.status_code == 200
        come = 0
        for block in answer.iter_raw():
            come += len(block)
            if come > 44:
                return time.perf_counter() - began
    raise AssertionError("no sound")


def commanded() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND], check=True, capture_output=True)
    return time.perf_counter() - began


def test_the_first_sound(tmp_path: Path):
    with serving(tmp_path / "library") as server:
        assert server.address  # it is there
        first = heard(server)  # the process starts, the model is loaded
        again, command = [], []
        for _ in range(5):
            server.ended({work["id"] for work in server.ask("GET", "/v1/jobs").json()["data"]})
            again.append(heard(server))
            command.append(commanded())
    compare(
        "First sound of MusicGen demo, 20 s asked for",
        "until the first piece is there",
        {"command": median(command), "service, first job": first, "service, later jobs": median(again)},
        peer="command",
    )
