"""Work that was asked for, kept on disk: whatever happens to the server, each piece of it ends once.

A work is a file of JSON in a folder. It is written when the work is accepted and when it ends; what happens
in between is kept in memory alone. So what was running when a server died waits when the next one opens the
folder: seeds are drawn when work is accepted, so that it then gives the same files.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from threading import Condition
from typing import Any, Literal

from audiogen_core.errors import AudiogenError, ModelError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.present import as_json
from audiogen_core.settings import parse_json

State = Literal["waiting", "running", "done", "failed", "cancelled"]

ENDED = ("done", "failed", "cancelled")

KEPT = 1_000
"""Ended works that are remembered."""


class QueueFull(AudiogenError):
    """As much work waits as may."""


class Missing(OptionError):
    """Nothing there has that name."""


@dataclass(frozen=True)
class Work:
    """One thing that was asked for.

    id        of this work; it sorts by time
    job, package  name of the job, and whose it is
    load, options  as JSON has them, with places in the library for clips and models of its own
    files     names of the files it makes, in the library
    channel   what is taken out of stereo clips that go in
    fetch     whether its model may be fetched
    revision  of the model that made what is made again; then nothing usual is filled in for open options
    created, begun, ended  seconds since 1970; 0 when that has not happened
    clips     facts of the files that are made: name, seconds, sample_rate, channels, seed, confidence
    error     the sentence of a work that failed, and the name of its kind
    done, total, doing  how far it is, in what; not kept on disk
    notes     what was said on the way
    """

    id: str
    job: str
    package: str
    load: Mapping[str, Any]
    options: Mapping[str, Any]
    files: tuple[str, ...]
    channel: str | None = None
    fetch: bool = False
    revision: str | None = None
    state: State = "waiting"
    created: float = 0.0
    begun: float = 0.0
    ended: float = 0.0
    clips: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    done: float = field(default=0.0, metadata={"kept": False})
    total: float = field(default=0.0, metadata={"kept": False})
    doing: str = field(default="", metadata={"kept": False})

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Work:
        """Raises ModelError for a file that holds no work."""
        facts = parse_json(path.read_text(encoding="utf-8"), f"{path}: not a work", ModelError)
        kept = {each.name for each in fields(cls) if each.metadata.get("kept", True)}
        texts = ("id", "job", "package", "state", "error", "kind")
        if (
            not isinstance(facts, dict)
            or set(facts) != kept
            or any(not isinstance(facts[name], str) for name in texts)
            or any(not isinstance(facts[name], list) for name in ("files", "clips", "notes"))
            or any(not isinstance(facts[name], dict) for name in ("load", "options"))
            or f"{facts['id']}.json" != path.name
        ):
            raise ModelError(f"{path}: not a work of this version")
        lists = {name: tuple(facts[name]) for name in ("files", "clips", "notes")}
        return cls(**{**facts, **lists})


class Queue:
    """The works of a folder, for the threads of one process."""

    def __init__(self, folder: Path, most: int = 100) -> None:
        """most  works that may wait"""
        self.folder, self.most = folder, most
        self.changed = Condition()
        self._works: dict[str, Work] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            work = Work.read(path)
            self._works[work.id] = work

    def add(self, work: Work) -> Work:
        """Accept a work: it is on the disk when this returns. Raises QueueFull."""
        with self.changed:
            waiting = sum(each.state == "waiting" for each in self._works.values())
            if waiting >= self.most:
                raise QueueFull(f"{waiting} jobs wait already, which is as many as may; try again later")
            self._keep(work)
            self._forget()
            self.changed.notify_all()
        return work

    def get(self, name: str) -> Work:
        """Raises Missing when there is none."""
        with self.changed:
            if name not in self._works:
                raise Missing(f"there is no job {name!r}")
            return self._works[name]

    def all(self) -> list[Work]:
        """From the newest on."""
        with self.changed:
            return sorted(self._works.values(), key=lambda each: each.id, reverse=True)

    def next(self, timeout: float) -> Work | None:
        """The work that has waited longest, which runs from now on."""
        with self.changed:
            if not (waiting := self._waiting()):
                self.changed.wait(timeout)
                waiting = self._waiting()
            if not waiting:
                return None
            work = replace(waiting[0], state="running", begun=time.time())
            self._works[work.id] = work
            return work

    def end(self, name: str, state: State, *, kind: str = "", error: str = "") -> Work:
        """It is done, failed or cancelled, unless it ended before."""
        with self.changed:
            work = self._works[name]
            if work.state in ENDED:
                return work
            ended = replace(work, state=state, ended=time.time(), kind=kind, error=error, doing="")
            self._keep(ended)
            self.changed.notify_all()
            return ended

    def tell(self, name: str, **facts: Any) -> None:
        """How a running work goes on; not written to the disk."""
        with self.changed:
            self._works[name] = replace(self._works[name], **facts)
            self.changed.notify_all()

    def _waiting(self) -> list[Work]:
        return sorted(
            (each for each in self._works.values() if each.state == "waiting"), key=lambda each: each.id
        )

    def _keep(self, work: Work) -> None:
        kept = {
            each.name: getattr(work, each.name) for each in fields(Work) if each.metadata.get("kept", True)
        }
        with atomic_path(self.folder / f"{work.id}.json") as temporary:
            temporary.write_text(as_json(kept), encoding="utf-8")
        self._works[work.id] = work

    def _forget(self) -> None:
        ended = sorted(each.id for each in self._works.values() if each.state in ENDED)
        for name in ended[: max(0, len(ended) - KEPT)]:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            del self._works[name]


def new_id() -> str:
    """A name for a work: the time in milliseconds, and chance."""
    return f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}"
