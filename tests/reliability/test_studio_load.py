"""A studio that eight clients ask at once: no job lost or done twice, memory flat, little added to a job."""

from __future__ import annotations

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.recipe import Recipe
from audiogen_core.studio.memory import resident
from support import tones
from support.figures import tell
from support.service import Server, serving

CLIENTS = 8


def asked(server: Server, clip: str, draws: random.Random, seed: int) -> tuple[str, int] | None:
    """Ask a demo for a clip and wait: its name, and the seed that it says. None where the queue was full."""
    bodies = [
        {"model": "musicgen/demo", "input": "slow piano", "seconds": 1},
        {"model": "stable-audio/demo", "input": "slow piano", "seconds": 1, "steps": 2},
        {"model": "vamp/demo", "audio": clip, "steps": 2},
        {"model": "generate/demo", "seconds": 1},
    ]
    body = {**draws.choice(bodies), "seed": seed}
    answer = server.ask("POST", "/v1/audio/generate", json=body)
    if answer.status_code == 429:
        return None
    assert answer.status_code == 200, answer.text
    recipe = Recipe.from_json(answer.headers["x-audiogen-recipe"])
    return answer.headers["x-audiogen-clip"], int(recipe.seed or 0)


@pytest.mark.parametrize(
    "minutes",
    [
        pytest.param(0.3, marks=pytest.mark.slow),
        pytest.param(5.0, marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
    ],
)
def test_eight_clients_at_once(minutes: float, tmp_path: Path):
    library = tmp_path / "library"
    Audio(np.sin(np.arange(24_000) / 20)[None].astype(np.float32) / 2, 24_000).save(tmp_path / "in.wav")
    with serving(library, "--queue", "4") as server:
        files = {"file": ("in.wav", (tmp_path / "in.wav").read_bytes())}
        clip = server.ask("POST", "/v1/clips", files=files).json()["name"]
        for _ in range(8):  # all models are loaded, and what they keep is kept
            asked(server, clip, random.Random(0), 0)
        until, held = time.monotonic() + 60 * minutes, []

        def client(number: int) -> list[tuple[str, int, int]]:
            draws, made = random.Random(number), []
            while time.monotonic() < until:
                seed = 1 + 1_000 * len(made) + number
                if (answer := asked(server, clip, draws, seed)) is None:
                    time.sleep(0.2)
                else:
                    made.append((*answer, seed))
                if number == 0:
                    workers = sum(map(resident, server.workers()))
                    held.append((resident(server.process.pid), workers))
            return made

        with ThreadPoolExecutor(CLIENTS) as clients:
            made = [each for part in clients.map(client, range(CLIENTS)) for each in part]
        works = server.ask("GET", "/v1/jobs").json()["data"]
        names = [name for name, _, _ in made]
        assert len(set(names)) == len(names) and all(told == seed for _, told, seed in made)
        assert {work["state"] for work in works} == {"done"}
        listed = {each["name"] for each in server.ask("GET", "/v1/clips").json()["data"]}
        assert set(names) <= listed and len(listed) == len(works)
        third = max(1, len(held) // 3)
        before, after = (
            [statistics.mean(each[index] for each in part) for index in range(2)]
            for part in (held[:third], held[-third:])
        )
        assert after[0] < before[0] + (64 << 20)
        if minutes >= 1:
            assert after[1] < 1.25 * before[1] + (128 << 20)
    tell(
        area="studio",
        done=f"jobs of the demo models that {CLIENTS} clients asked for at once",
        count=len(made),
        result=f"in {minutes:g} min: none lost, none done twice; server {before[0] / 1e6:.0f} MB at first, "
        f"{after[0] / 1e6:.0f} MB at last; workers {before[1] / 1e6:.0f} and {after[1] / 1e6:.0f} MB",
        promised="no lost or doubled job, flat memory",
    )


@pytest.mark.slow
def test_what_the_service_adds_to_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    with serving(tmp_path / "library") as server:
        took = []
        for seed in range(31):
            began = time.perf_counter()
            answer = server.ask(
                "POST", "/v1/audio/generate", json={"job": "tones", "seconds": 1, "seed": seed}
            )
            took.append(time.perf_counter() - began)
            assert answer.status_code == 200
    middle = statistics.median(took[1:])
    assert middle < 0.5  # the machine may be busy: what is promised is told
    tell(
        area="studio",
        done="short jobs whose own work takes 1 ms, asked over HTTP one after the other",
        count=len(took) - 1,
        result=f"{1000 * middle:.0f} ms at the median",
        promised="below 150 ms added at the median",
    )
