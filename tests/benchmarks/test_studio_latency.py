"""When sound is first heard: of the service that streams, and of a command that begins anew."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from support.figures import compare
from support.service import Server, serving

pytestmark = pytest.mark.benchmark

TIMES = 5

COMMAND = """
from audiogen_core import jobs
job = jobs.find("musicgen", "audiogen-mlx")
model = job.open(model="demo")
take = next(model.takes(job.options.of({"prompt": "slow piano", "seconds": 20, "seed": 1})))
print(next(take.pieces).samples.shape)
"""
"""What `audiogen-mlx musicgen` does until it has the first piece."""


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
        for _ in range(TIMES):
            server.ended({work["id"] for work in server.ask("GET", "/v1/jobs").json()["data"]})
            again.append(heard(server))
            command.append(commanded())
    compare(
        "First sound of MusicGen demo, 20 s asked for",
        "until the first piece is there",
        {"command": median(command), "service, first job": first, "service, later jobs": median(again)},
        peer="command",
    )
