"""The process that does the work of one package: `python -m audiogen_core.studio.worker`.

It reads requests from its standard input and writes what happens to its standard output, a JSON object a
line; what libraries print goes to its standard error. Models stay loaded while memory allows. It ends when
its standard input does, so that nothing is left of a server that was killed.

A request: {"id", "job", "package", "load", "options", "revision", "outputs", "spool", "channel", "fetch",
"offline"}, or {"cancel": id}. `outputs` are the files to write; beside each comes, as `spool`, what is made
so far: samples of 16 bits, little-endian, channels in turn.

What happens: {"event": "progress", "doing", "done", "total"}, {"event": "note", "text"}, {"event": "sound",
"index", "sample_rate", "channels", "samples"}, {"event": "clip", "path", ...}, and at the end {"event":
"done"}, {"event": "cancelled"} or {"event": "failed", "kind", "error"}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TextIO

import numpy as np

from audiogen_core import hub, jobs
from audiogen_core.audio import Audio
from audiogen_core.errors import AudiogenError, DownloadError
from audiogen_core.finish import save
from audiogen_core.jobs import Job, JobLoad, Take
from audiogen_core.models import ModelSpec
from audiogen_core.options import described
from audiogen_core.present import plain
from audiogen_core.progress import OnStep
from audiogen_core.studio.memory import resident

OFTEN = 0.05
"""Seconds between two tellings of progress, at least."""


class Cancelled(Exception):
    """Nobody wants the work any more."""


class Worker:
    """Does one work after the other.

    limit  bytes of memory above which models that were not used last are let go before another is opened
    """

    def __init__(self, out: TextIO, limit: int) -> None:
        self._out, self._limit = out, limit
        self._lock = Lock()
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._current = ""
        self._stop = Event()
        self._told = 0.0
        self.requests: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def listen(self, lines: TextIO) -> None:
        """Take requests from the server until it is gone, and then be gone too."""
        for line in lines:
            request = json.loads(line)
            if "cancel" not in request:
                self.requests.put(request)
            elif request["cancel"] == self._current:
                self._stop.set()
        os._exit(0)

    def say(self, event: str, **facts: Any) -> None:
        with self._lock:
            try:
                self._out.write(json.dumps(plain({"event": event, **facts}), allow_nan=False) + "\n")
                self._out.flush()
            except BrokenPipeError:  # the server is gone
                os._exit(0)

    def work(self, request: Mapping[str, Any]) -> None:
        """Carry out one request; what is wrong with it is said."""
        self._stop.clear()
        self._current = request["id"]
        self._told = 0.0
        try:
            self._make(request)
        except Cancelled:
            self.say("cancelled")
        except (AudiogenError, OSError, MemoryError) as error:
            self._models.clear()
            text = str(error) if isinstance(error, AudiogenError) else f"{type(error).__name__}: {error}"
            self.say("failed", kind=type(error).__name__, error=" ".join(text.split()))
        else:
            self.say("done")
        finally:
            self._current = ""

    def _make(self, request: Mapping[str, Any]) -> None:
        job = jobs.find(request["job"], request["package"])
        opening, revision = request["load"], request["revision"]
        if revision is not None and any(each.name == "revision" for each in described(job.load)):
            opening = {**opening, "revision": revision}
        load = replace(job.load.of(opening), fetch=self._fetching(request))
        told = {**request["options"], "on_step": self._telling(job.label)}
        options = job.options.of(told)
        options = options.standard() if revision is None else options
        outputs, channel = [Path(each) for each in request["outputs"]], request["channel"]
        job.check(load, options, outputs, channel)
        model = self._opened(job, load, opening)
        jobs.check_revision(revision, str(opening.get("model")), model.revision)
        given = jobs.heard(job, options, channel)
        takes = model.takes(given, len(outputs), folder=outputs[0].parent)
        for index, (path, spool) in enumerate(zip(outputs, request["spool"], strict=True)):
            began = time.monotonic()
            take = next(takes)
            recipe = jobs.recipe_of(job, model, load, options, take, channel)
            take = replace(take, pieces=self._heard(take, Path(spool), index))
            made = save(take, given, path, recipe)
            self.say(
                "clip",
                index=index,
                seconds=made.seconds,
                sample_rate=made.sample_rate,
                channels=made.channels,
                seed=take.seed,
                confidence=take.confidence,
                faults=list(made.faults),
                took=round(time.monotonic() - began, 3),
            )

    def _heard(self, take: Take, spool: Path, index: int) -> Iterator[Audio]:
        """The pieces of a take as the model makes them, told and put where they are heard at once."""
        samples = 0
        with spool.open("wb") as heard:
            for piece in take.pieces:
                heard.write(pcm(piece.samples))
                heard.flush()
                samples += piece.samples.shape[1]
                facts = {"sample_rate": take.sample_rate, "channels": take.channels, "samples": samples}
                self.say("sound", index=index, **facts)
                self._check()
                yield piece

    def _opened(self, job: Job, load: JobLoad, asked: Mapping[str, Any]) -> Any:
        key = json.dumps([job.name, asked], sort_keys=True)
        if key in self._models:
            self._models.move_to_end(key)
            return self._models[key]
        while self._models and resident(os.getpid()) > self._limit:
            self._models.popitem(last=False)
            gc.collect()
        self._tell("loading", 0, 0)
        self._models[key] = job.open_with(load)
        self._check()
        return self._models[key]

    def _fetching(self, request: Mapping[str, Any]) -> Callable[[ModelSpec], Path]:
        policy = hub.Policy(
            offline=request["offline"], listed=True, notify=lambda text: self.say("note", text=text)
        )

        def fetch(spec: ModelSpec) -> Path:
            if request["fetch"]:
                return hub.fetch(spec, policy, on_step=self._telling(f"fetching {spec.name}"))
            try:
                return hub.here(spec)
            except DownloadError as error:
                size = "" if spec.size is None else f", {spec.size / 1e9:.1f} GB"
                way = "allow it to be fetched (fetch: true)"
                raise DownloadError(f"{spec.name} is not here yet ({spec.license}{size}); {way}") from error

        return fetch

    def _telling(self, doing: str) -> OnStep:
        return lambda done, total: self._tell(doing, done, total)

    def _tell(self, doing: str, done: float, total: float) -> None:
        self._check()
        now = time.monotonic()
        if now - self._told >= OFTEN or done >= total:
            self._told = now
            self.say("progress", doing=doing, done=float(done), total=float(total))

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled


def pcm(samples: Any) -> bytes:
    """Samples (channels, n) from -1 to 1 as 16 bits, little-endian, channels in turn."""
    whole = np.clip(np.rint(np.asarray(samples, np.float32) * 32767), -32768, 32767)
    return whole.T.astype("<i2").tobytes()


def main() -> None:
    """Work until nobody asks any more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(out, limit=int(sys.argv[1]))
    warnings.showwarning = lambda message, category, *_: (
        worker.say("note", text=" ".join(str(message).split())) if issubclass(category, UserWarning) else None
    )
    Thread(target=worker.listen, args=(sys.stdin,), daemon=True).start()
    worker.say("ready")
    while True:
        worker.work(worker.requests.get())


if __name__ == "__main__":
    main()
