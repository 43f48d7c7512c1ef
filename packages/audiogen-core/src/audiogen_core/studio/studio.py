"""What the page and the service ask: accept work, carry it out, one at a time, and tell how it goes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from audiogen_core import jobs, lora
from audiogen_core.cli import numbered
from audiogen_core.commands import named_after
from audiogen_core.errors import AudioError, AudiogenError, ModelError, OptionError, UnknownModel
from audiogen_core.jobs import MOST, Entry, Job, JobLoad, JobOptions
from audiogen_core.options import Field, described, plain
from audiogen_core.recipe import Recipe
from audiogen_core.sound_writer import check_suffix
from audiogen_core.studio.library import Library
from audiogen_core.studio.memory import physical
from audiogen_core.studio.queue import ENDED, Missing, Queue, Work, new_id
from audiogen_core.studio.training import Trainings
from audiogen_core.studio.workers import GRACE, Process

MEMORY_SHARE = 0.6
"""Of the machine's memory, what loaded models may take."""


ADAPTERS = "adapters"
"""Where in a library's folder adapters from elsewhere are put."""

SPOOLS = 32
"""Clips that can still be heard as they were made, for listeners who are late."""


class NotInstalled(ModelError):
    """A job whose package is not installed, or does not start."""


@dataclass(frozen=True)
class Asked:
    """What is asked for, as it comes in.

    job      its name, or None: the job that has a model of the name given
    package  whose job it is, where several have one of that name; None: the first
    values   options of the job and of opening its model, by name; clips by their names in the library
    prompt   the value of the job's argument, whatever it is called
    format   suffix of the files that are made
    """

    values: Mapping[str, Any]
    job: str | None = None
    package: str | None = None
    count: int = 1
    channel: str | None = None
    format: str = "wav"
    fetch: bool = False
    prompt: str | None = None


class Studio:
    """Work on the clips of a library, done by processes of its own.

    offline   never use the network
    allowed   folders whose files may be named in a request; none when empty
    patience  seconds without a sign after which a process that works is taken for hanging
    memory    bytes that loaded models may take in all
    """

    def __init__(
        self,
        folder: Path,
        *,
        offline: bool = False,
        allowed: Sequence[Path] = (),
        most_waiting: int = 100,
        patience: float = 900.0,
        memory: int | None = None,
    ) -> None:
        self.library = Library(folder)
        self.queue = Queue(folder / "queue", most_waiting)
        self.trainings = Trainings(folder / "training", offline)
        self.offline, self._patience = offline, patience
        self._allowed = [each.resolve() for each in allowed]
        self._memory = memory or int(MEMORY_SHARE * physical())
        self._processes: dict[str, Process] = {}
        self._closing = False
        self._thread = Thread(target=self._work, name="audiogen-studio", daemon=True)

    def start(self) -> None:
        """Begin with what waits."""
        self._thread.start()

    def close(self) -> None:
        """End what runs; it waits for the next start."""
        self._closing = True
        self.trainings.close()
        for process in list(self._processes.values()):
            process.kill()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def accept(self, asked: Asked) -> Work:
        """Check what is asked for and put it in the queue, with its seed and the names of its files.

        Raises OptionError, UnknownModel, NotInstalled, AudioError or QueueFull.
        """
        job = self._job(asked)
        fields = {each.name: each for each in described(job.options)}
        opening = {each.name: each for each in described(job.load)}
        values = self._named(job, asked)
        for name, value in values.items():
            field = fields.get(name) or opening.get(name)
            if field is not None and field.option.role == "hidden":
                raise OptionError(f"{name} is for Python alone")
            if field is not None and field.option.role in ("audio", "file"):
                values[name] = self._given(value, name)
            elif field is not None and field.option.role == "place":
                if name == "model" and value in (trained := self.trainings.models(job.name)):
                    values[name] = str(trained[value])
                else:
                    self._check_place(job, field, value)
            elif field is not None and field.option.role == "adapter":
                values[name] = self._adapted(job, field, value)
        if "seed" in fields and values.get("seed") is None:
            values["seed"] = secrets.randbits(32)
        load = {name: values.pop(name) for name in list(values) if name in opening and name not in fields}
        opened, options = job.load.of(load), job.options.of(values).standard()
        if not 1 <= asked.count <= MOST:
            raise OptionError(f"variations must be from 1 to {MOST}, got {asked.count}")
        suffix = f".{asked.format.lower().removeprefix('.')}"
        work = Work(
            id=new_id(),
            job=job.name,
            package=job.package,
            load=plain(load),
            options={name: plain(value) for name, value in values.items()},
            files=(),
            channel=asked.channel,
            fetch=asked.fetch,
            created=time.time(),
        )
        return self._queued(work, job, opened, options, asked.count, suffix)

    def replay(self, recipe: Recipe, suffix: str = ".wav", *, fetch: bool = False) -> Work:
        """Put in the queue what makes a file again, to the same bytes where its suffix is that of the file.

        Clips that went in are taken from the library, whatever place the recipe names.

        Raises OptionError when one of them, or the model, is not here; AudioError as `jobs.again` does.
        """
        job = jobs.job_of(recipe)
        for field in job.adapters:
            self._adapted(job, field, recipe.settings.get(field.name))
        moved: dict[str, str] = {}
        for name, digest in clips_of(job, recipe):
            try:
                moved[name] = str(self.library.holding(digest))
            except Missing as error:
                raise OptionError(f"{error}: bring in what went in as {name}") from error
        named = {
            name for each in job.inputs for name in (each.name, *job.renamed) if recipe.settings.get(name)
        }
        if unknown := sorted(each for each in named if job.renamed.get(each, each) not in moved):
            raise AudioError(f"the recipe does not say which clip went in as {', '.join(unknown)}")
        opened, options = jobs.again(job, recipe, moved)
        for field in described(job.load):
            value = getattr(opened, field.name)
            if field.option.role == "place" and value != field.default:
                self._check_place(job, field, str(value))
        work = Work(
            id=new_id(),
            job=job.name,
            package=job.package,
            load=opened.asked(),
            options=options.asked(),
            files=(),
            channel=recipe.settings.get("channel"),
            fetch=fetch,
            revision=recipe.revision,
            created=time.time(),
        )
        return self._queued(work, job, opened, options, 1, suffix)

    def _queued(
        self, work: Work, job: Job, load: JobLoad, options: JobOptions, count: int, suffix: str
    ) -> Work:
        """The work with names of its files, in the queue, after what can be checked before it is done."""
        stem = f"{named_after(job, options, load)}-{options.seed}-{work.id[-8:]}"
        outputs = numbered(self.library.folder / "clips" / f"{stem}{suffix}", count)
        check_suffix(outputs[0])
        job.check(load, options, outputs, work.channel)
        return self.queue.add(replace(work, files=tuple(path.name for path in outputs)))

    def cancel(self, name: str) -> Work:
        """End a work, whatever it does. Raises OptionError when there is none of that name."""
        work = self.queue.get(name)
        if work.state == "waiting":
            return self.queue.end(name, "cancelled")
        if work.state == "running" and (process := self._processes.get(work.package)):
            process.send({"cancel": name})
            Thread(target=self._insist, args=(name, process), daemon=True).start()
        return self.queue.get(name)

    def heard(self, name: str, timeout: float = 600.0) -> Iterator[bytes]:
        """What a work has made of its first clip, and goes on to make: samples of 16 bits.

        The facts of the clip (`sample_rate`, `channels`) are known once the first block is.
        """
        path, read, ends = self.spool(name, 0), 0, time.monotonic() + timeout
        while time.monotonic() < ends:
            work = self.queue.get(name)
            ended = work.state in ENDED or bool(work.clips and work.clips[0]["name"])
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(read)
                while block := file.read(1 << 16):
                    read += len(block)
                    yield block
            if ended:
                return
            with self.queue.changed:
                self.queue.changed.wait(0.1)

    def spool(self, name: str, index: int) -> Path:
        """Where a clip is heard before it is whole."""
        return self.library.folder / "spool" / f"{name}-{index}.pcm"

    def trained(self, job: Job) -> list[Entry]:
        """Models of a job that were trained here."""
        note, given = "Trained here.", tuple(each.name for each in described(job.options))
        return [
            Entry(name, "yours", "yours", None, True, note, given) for name in self.trainings.models(job.name)
        ]

    def has_model(self, job: Job) -> bool:
        """Whether one of a job's models is here, so that it works at once."""
        return bool(self.trained(job)) or any(each.here for each in job.models())

    def adapters(self, job: Job) -> dict[str, Path]:
        """What can be merged into models of a job, by name: what was trained here for it, and what lies in
        the library's folder for adapters. What of these fits a model is seen when it is opened.
        """
        brought = (self.library.folder / ADAPTERS).glob("[!.]*")
        return {
            **{path.stem if path.is_file() else path.name: path for path in sorted(brought)},
            **self.trainings.adapters(job.name),
        }

    def models(self) -> list[dict[str, Any]]:
        """The models of all installed jobs."""
        return [
            {
                "id": f"{job.name}/{entry.name}",
                "object": "model",
                "job": job.name,
                "package": job.package,
                "license": entry.license,
                "bytes": entry.size,
                "here": entry.here,
                "note": entry.note,
                "options": list(entry.options),
            }
            for job in jobs.installed()
            for entry in job.models()
        ]

    def _job(self, asked: Asked) -> Job:
        """The job that is meant: by its name, by "job/model", or by the name of a model that one job has."""
        installed = {job.name: job for job in jobs.installed()}
        model = asked.values.get("model")
        name = asked.job
        if name is None and isinstance(model, str):
            if model in installed:
                raise OptionError(f"{model!r} is a job, not a model: say so by `job`, or as {model}/NAME")
            having = [job.name for job in installed.values() if model in {each.name for each in job.models()}]
            if len(having) > 1:
                names = " or ".join(f"{each}/{model}" for each in having)
                raise OptionError(f"several jobs have a model {model!r}: say {names}")
            if not having:
                raise UnknownModel(model, [each.name for job in installed.values() for each in job.models()])
            name = having[0]
        if name is None:
            raise OptionError("say which model, or which job")
        if name not in installed or asked.package is not None:
            try:
                return jobs.find(name, asked.package)
            except OptionError:
                raise NotInstalled(
                    f"no job {name!r} is installed; there are {', '.join(installed) or 'none'}"
                ) from None
            except ModelError as error:
                raise NotInstalled(str(error)) from error
        return installed[name]

    def _named(self, job: Job, asked: Asked) -> dict[str, Any]:
        """What is asked for, by the job's own names of options."""
        known = [*described(job.options), *described(job.load)]
        spoken = {also: each.name for each in known for also in each.option.also}
        values = {spoken.get(name, name): value for name, value in asked.values.items() if value is not None}
        if asked.prompt is not None:
            places = [each.name for each in described(job.options) if each.option.argument]
            if not places:
                raise OptionError(f"{job.name} takes no prompt")
            values[places[0]] = asked.prompt
        return values

    def _given(self, value: Any, name: str) -> Any:
        """The path of a clip that a request names."""
        if isinstance(value, list):
            return tuple(self._given(each, name) for each in value)
        if not isinstance(value, str):
            raise OptionError(f"{name} is the name of a clip, got {value!r}")
        with suppress(OptionError):
            return str(self.library.path(value))
        if self._is_allowed(value):
            return value
        raise OptionError(f"{name}: there is no clip {value!r} here; bring it in first")

    def _check_place(self, job: Job, field: Field, value: Any) -> None:
        known = {each.name for each in job.models()}
        if field.name == "model" and value in known:
            return
        if not isinstance(value, str):
            raise OptionError(f"{field.name} is a name, got {value!r}")
        if self._is_allowed(value):
            return
        if field.name == "model":
            raise UnknownModel(value, known)
        raise OptionError(f"{field.name}: places on this machine cannot be named here")

    def _adapted(self, job: Job, field: Field, value: Any) -> list[str]:
        """PATH:STRENGTH of adapters that are asked for by their names here, or by their places."""
        here, found = self.adapters(job), []
        for each in value if isinstance(value, list) else [value]:
            if not each:
                continue
            if not isinstance(each, str):
                raise OptionError(f"{field.name} takes texts, got {each!r}")
            asked = lora.Asked.of(each)
            path = here.get(str(asked.path), asked.path)
            if path not in here.values() and not self._is_allowed(str(path)):
                raise OptionError(f"{field.name}: places on this machine cannot be named here")
            found.append(f"{path}:{asked.strength!r}")
        return found

    def _is_allowed(self, value: str) -> bool:
        if "\0" in value:
            return False
        path, allowed = Path(value).resolve(), [self.trainings.folder.resolve(), *self._allowed]
        return any(path.is_relative_to(each) for each in allowed) and path.exists()

    # Carrying out

    def _work(self) -> None:
        while not self._closing:
            work = self.queue.next(timeout=0.5)
            if work is not None:
                self._carry_out(work)

    def _carry_out(self, work: Work) -> None:
        outputs = [self.library.folder / "clips" / name for name in work.files]
        for path in sorted((self.library.folder / "spool").iterdir())[:-SPOOLS]:
            path.unlink(missing_ok=True)
        try:
            package = work.package
            if all(path.is_file() for path in outputs):  # made, by a server that died before it could say so
                clips = [self.library.clip(name) for name in work.files]
                facts = [
                    {
                        "name": c.name,
                        "seconds": c.seconds,
                        "sample_rate": c.sample_rate,
                        "channels": c.channels,
                        "seed": c.recipe and c.recipe.seed,
                    }
                    for c in clips
                ]
                self.queue.tell(work.id, clips=tuple(facts))
                self.queue.end(work.id, "done")
                return
            self._follow(work, self._process(package), outputs)
        except (AudiogenError, OSError) as error:  # OSError: no process can be started, no file read
            if not self._closing:  # else it is done again by the next server
                self.library.clear()
                self.queue.end(work.id, "failed", kind=type(error).__name__, error=str(error))

    def _follow(self, work: Work, process: Process, outputs: Sequence[Path]) -> None:
        """Have a process do it, and tell what happens. Raises WorkerDied."""
        facts: dict[str, Any] = {
            name: getattr(work, name)
            for name in ("package", "load", "options", "revision", "channel", "fetch")
        }
        spool = [str(self.spool(work.id, index)) for index in range(len(outputs))]
        process.send(
            {
                "id": work.id,
                "job": work.job,
                **facts,
                "offline": self.offline,
                "outputs": [str(path) for path in outputs],
                "spool": spool,
            }
        )
        clips: list[dict[str, Any]] = []
        notes: list[str] = []
        for event in process.events():
            kind = event.pop("event")
            if kind == "progress":
                self.queue.tell(work.id, **event)
            elif kind == "note":
                notes.append(event["text"])
                self.queue.tell(work.id, notes=tuple(notes))
            elif kind == "sound":
                self.queue.tell(work.id, clips=(*clips, {"name": None, **event}))
            elif kind == "clip":
                clips.append({"name": work.files[event.pop("index")], **event})
                self.queue.tell(work.id, clips=tuple(clips))
            elif kind == "done":
                self.queue.end(work.id, "done")
            elif kind == "cancelled":
                self.queue.end(work.id, "cancelled")
            elif kind == "failed":
                self.queue.tell(work.id, clips=tuple(clips))
                self.queue.end(work.id, "failed", **event)

    def _process(self, package: str) -> Process:
        """The process of a package; others are ended where they hold too much memory."""
        others = {name: each for name, each in self._processes.items() if name != package}
        if sum(each.memory for each in others.values()) > self._memory / 2:
            for name, each in others.items():
                each.kill()
                del self._processes[name]
        process = self._processes.get(package)
        if process is None or not process.alive:
            process = self._processes[package] = Process(self._memory, self._patience)
        return process

    def _insist(self, name: str, process: Process) -> None:
        """End a process that does not stop by itself: one that is loading a model, say."""
        ends = time.monotonic() + GRACE
        while time.monotonic() < ends:
            with self.queue.changed:
                self.queue.changed.wait(0.05)
            if self.queue.get(name).state in ENDED:
                return
        self.queue.end(name, "cancelled")
        process.kill()


def clips_of(job: Job, recipe: Recipe) -> list[tuple[str, str]]:
    """The clips that went into what a recipe tells of, by their names in it, and their hashes."""
    adapters = {each.name for each in job.adapters}
    return [(name, digest) for name, digest in recipe.inputs.items() if name not in adapters]
