"""A job that needs nothing but numpy: tones, made at once or slowly, with faults on request.

`install` makes it a package that is found as the others are, by this process and by those it starts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from audiogen_core import jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import ModelError
from audiogen_core.jobs import Job, JobLoad, JobOptions, Sound, Take
from audiogen_core.models import Shipped
from audiogen_core.options import Clip, argument, audio, file, hidden, option, place

RATE = 8_000
FAULTS = ("none", "crash", "killed", "hang", "refuse", "bug", "unlikely")


@dataclass(frozen=True)
class Options(JobOptions):
    prompt: Annotated[str, argument("What to hear.")] = "a tone"
    seconds: Annotated[float, option("Length.", unit="s", gt=0, le=60, also=("audio_length",))] = 1.0
    pitch: Annotated[float, option("Of the tone.", unit="Hz", gt=0, lt=4000)] = 440.0
    clip: Annotated[Clip | None, audio("A clip that comes first.", verb="Continue")] = None
    tune: Annotated[Path | None, file("Pitches that follow one another.", suffixes=(".txt",))] = None
    part: Annotated[
        tuple[float, float] | None, option("Of the clip.", unit="s", ge=0, verb="Inpaint", of="clip")
    ] = None
    wait: Annotated[float, option("Seconds between pieces.", unit="s", ge=0)] = 0.0
    fault: Annotated[str, option("What goes wrong.", choices=FAULTS)] = "none"
    noise: Annotated[Any, hidden("For Python alone.")] = None


@dataclass(frozen=True, kw_only=True)
class Load(JobLoad):
    model: Annotated[str, place("Which.")] = "plain"


CATALOG = {"plain": Shipped("plain", "tones", "audiogen_core", "data", "MIT")}


class Tones:
    """The model: a tone whose phase the seed decides."""

    revision, threads = "1", 1

    @classmethod
    def load(cls, name: str, **_: Any) -> Tones:
        if name != "plain":
            raise ModelError(f"no tones called {name}")
        return cls()

    def takes(self, options: Options, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        for index in range(count):
            seed = (options.seed or 0) + index
            asked = {
                k: v for k, v in asdict(options).items() if v is not None and k not in ("on_step", "noise")
            }
            confidence = -np.inf if options.fault == "unlikely" else None
            yield Take(self._pieces(options, seed), RATE, 1, {**asked, "seed": seed}, seed, confidence)

    def _pieces(self, options: Options, seed: int) -> Iterator[Audio]:
        if options.clip is not None:
            yield Audio.load(options.clip, sample_rate=RATE, channels=1)
        phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        tune = options.tune and Path(options.tune).read_text(encoding="utf-8").split()
        pitches = cycle(map(float, tune or [options.pitch]))
        size = RATE // 4
        samples = round(options.seconds * RATE)
        for start in range(0, samples, size):
            if start >= samples / 2:
                _fail(options.fault)
            times = np.arange(start, min(start + size, samples)) / RATE
            time.sleep(options.wait)
            if options.on_step:
                options.on_step(min(start + size, samples) / RATE, options.seconds)
            yield Audio(
                0.5 * np.sin(2 * np.pi * next(pitches) * times + phase)[None].astype(np.float32), RATE
            )


def _fail(fault: str) -> None:
    if fault == "crash":
        os.abort()
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(3600)
    if fault == "refuse":
        raise ModelError("this tone cannot be made")
    if fault == "bug":
        raise ZeroDivisionError("a fault of the program")


def sound(load: Load, options: Options) -> Sound:
    return Sound(RATE, 1, options.seconds)


TONES = Job(
    name="tones",
    title="Tones",
    summary="Tones, for tests.",
    package="audiogen-tones",
    load=Load,
    options=Options,
    conductor="support.tones:Tones",
    catalog="support.tones:CATALOG",
    estimate="support.tones:sound",
    sound="support.tones:sound",
)


def beside_vamp_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that is installed, have tones and VampNet found alone: the page is there sooner."""
    of_all = jobs.every
    monkeypatch.setattr(jobs, "every", lambda: [each for each in of_all() if each.name in ("tones", "vamp")])
    monkeypatch.setattr(jobs, "trainings", lambda: [])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it found among the installed packages, beside those that are."""
    facts = folder / "audiogen_tones-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: audiogen-tones\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[audiogen.jobs]\ntones = support.tones:TONES\n")
    broken = folder / "audiogen_broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: audiogen-broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[audiogen.jobs]\nbroken = support.no_such_module:JOB\n")
    monkeypatch.syspath_prepend(str(folder))
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    assert tests in sys.path
