"""Models and adapters that are made of clips: training/NAME/ holds clips/, run/, what was asked and a log.

Training is the command of the package, in a process of its own that ends with the server, politely: what it
has learnt so far is kept, and the same command goes on from there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, zip_longest
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from audiogen_core import jobs
from audiogen_core.audio import probe
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.jobs import Training
from audiogen_core.present import as_json
from audiogen_core.settings import read_json
from audiogen_core.studio.library import SUFFIXES
from audiogen_core.studio.queue import Missing

_ASKED, _LOG, _CLIPS, _RUN, _REPORT = "asked.json", "log.txt", "clips", "run", "report.html"
_TAIL = 4096  # bytes of a log that are looked at

State = Literal["running", "stopped", "done"]


@dataclass(frozen=True)
class Progress:
    """How a training goes.

    records   of its diary
    said      the last line of its log
    samples   names of the clips made by the way, from the first on
    left_out  clips that it was given and cannot read, each with the reason
    """

    name: str
    state: State
    records: Sequence[Mapping[str, Any]]
    said: str
    samples: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class Trainings:
    """The trainings of a folder, one of which runs at a time."""

    def __init__(self, folder: Path, offline: bool) -> None:
        self.folder, self._offline = folder, offline
        self._process: subprocess.Popen[bytes] | None = None
        self._name = ""
        self._lock = Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def names(self, training: Training | None = None) -> list[str]:
        """From the newest on; those of one training, or all."""
        found = [path.parent for path in self.folder.glob(f"*/{_ASKED}")]
        ordered = sorted(found, key=lambda each: each.stat().st_ctime, reverse=True)
        return [
            path.name
            for path in ordered
            if training is None or read_json(path / _ASKED, ModelError)["training"] == training.name
        ]

    def begin(
        self,
        training: Training,
        name: str,
        clips: Sequence[Path],
        asked: Sequence[str],
        captions: Sequence[str] = (),
    ) -> str:
        """Train on clips, but for those that cannot be read. The name it has here.

        asked     options as the command takes them
        captions  what is said of each clip, or none

        Raises OptionError when there are no clips or another one runs, AudioError when none can be read.
        """
        words = "-".join(re.findall(r"\w+", name.lower()))[:40] or "mine"
        taken = {path.name for path in self.folder.iterdir()}
        name = next(
            each for each in (words, *(f"{words}-{n}" for n in range(2, 10_000))) if each not in taken
        )
        if not clips:
            raise OptionError("give clips to train on")
        self._check_idle()
        wrong = {clip: why for clip in clips if (why := _wrong(clip))}
        if len(wrong) == len(clips):
            raise AudioError("; ".join(f"{clip.name}: {why}" for clip, why in wrong.items()))
        into = self.folder / name / _CLIPS
        into.mkdir(parents=True)
        stems: set[str] = set()
        for clip, caption in zip_longest(clips, captions):
            if clip in wrong:
                continue
            more = (f"{clip.stem}-{n}" for n in count(2))
            stem = next(each for each in chain([clip.stem], more) if each.lower() not in stems)
            stems.add(stem.lower())
            shutil.copyfile(clip, into / f"{stem}{clip.suffix.lower()}")
            if caption is not None:
                (into / f"{stem}.txt").write_text(caption, encoding="utf-8")
        left_out = [f"{clip.name} ({why})" for clip, why in wrong.items()]
        facts = {"training": training.name, "asked": list(asked), "left_out": left_out}
        with atomic_path(self.folder / name / _ASKED) as temporary:
            temporary.write_text(as_json(facts), encoding="utf-8")
        self.go_on(name)
        return name

    def go_on(self, name: str) -> None:
        """Begin, or go on where it was stopped. Raises OptionError when another one runs."""
        folder = self._folder(name)
        facts = read_json(folder / _ASKED, ModelError)
        training = next((each for each in jobs.trainings() if each.name == facts["training"]), None)
        if training is None:
            raise ModelError(f"{name}: the package that trains it is not installed")
        more = ["--offline"] if self._offline else []
        command = [
            *(sys.executable, "-m", "audiogen_core.studio.tether", training.module, training.verb),
            *(str(folder / _CLIPS), "--output", str(folder / _RUN), *facts["asked"], *more),
        ]
        with self._lock:
            self._check_idle()
            with (folder / _LOG).open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                )
            self._name = name

    def stop(self) -> None:
        """Ask the one that runs to stop: it ends after its step, and may go on later."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Stop, and wait a while for it."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def progress(self, name: str) -> Progress:
        """How it goes. Raises Missing when there is none of that name."""
        folder = self._folder(name)
        facts = read_json(folder / _ASKED, ModelError)
        training = next((each for each in jobs.trainings() if each.name == facts["training"]), None)
        records = jobs.imported(training.diary)(folder / _RUN) if training else []
        state: State = "done" if (folder / _RUN / _REPORT).is_file() else "stopped"
        if self._name == name and self._process is not None and self._process.poll() is None:
            state = "running"
        said = ""
        if (folder / _LOG).is_file():
            with (folder / _LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                lines = log.read().decode(errors="replace").splitlines()
            said = next((line.strip() for line in reversed(lines) if line.strip()), "")
            said = said.replace(f"{folder}{os.sep}", "")  # where it lies is nobody's business
        samples = [Path(record["path"]).name for record in records if record["kind"] == "sample"]
        return Progress(name, state, records, said, tuple(samples), tuple(facts.get("left_out", ())))

    def sample(self, name: str, file: str) -> Path:
        """A clip that was made by the way. Raises Missing when there is none of that name."""
        for path in (self._folder(name) / _RUN / "samples").glob("*"):
            if path.name == file and path.is_file():
                return path
        raise Missing(f"there is no sample {file!r}")

    def report(self, name: str) -> Path:
        """The page on what it came to. Raises Missing when there is none of that name, or not yet."""
        path = self._folder(name) / _RUN / _REPORT
        if not path.is_file():
            raise Missing(f"{name!r} has no report yet")
        return path

    def models(self, job: str) -> dict[str, Path]:
        """The models that were trained for a job and can be used, by name."""
        made = self._made(job)
        return {
            name: run
            for name, (training, run) in made.items()
            if not training.adapter and any(run.glob("ckpt/*/manifest.json"))
        }

    def adapters(self, job: str) -> dict[str, Path]:
        """The adapters that were trained for models of a job, by name."""
        places = {
            name: run / training.adapter
            for name, (training, run) in self._made(job).items()
            if training.adapter
        }
        return {name: place for name, place in places.items() if place.exists()}

    def _made(self, job: str) -> dict[str, tuple[Training, Path]]:
        """Who trained for a job, and the run, by name."""
        known = {each.name: each for each in jobs.trainings() if each.job == job}
        asked = {name: read_json(self.folder / name / _ASKED, ModelError) for name in self.names()}
        return {
            name: (known[facts["training"]], self.folder / name / _RUN)
            for name, facts in asked.items()
            if facts["training"] in known
        }

    def _folder(self, name: str) -> Path:
        if name not in self.names():
            raise Missing(f"there is no training {name!r}")
        return self.folder / name

    def _check_idle(self) -> None:
        if self._process is not None and self._process.poll() is None:
            raise OptionError(f"{self._name} is being trained; one is at a time")


def _wrong(clip: Path) -> str:
    """Why a clip cannot be learned from, if so."""
    if clip.suffix.lower() not in SUFFIXES:
        return "not the name of a sound file"
    try:
        probe(clip)
    except AudioError as error:
        return str(error).removeprefix(f"{clip}: ")  # where it lies is nobody's business
    return ""
