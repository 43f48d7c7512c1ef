"""From a folder of audio to a page with new sounds, in stages of which each resumes, within a time.

What will be done, why, and what came of it is told in sentences, which the page repeats.
"""

from __future__ import annotations

import json
import os
import shlex
import time as clock
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core import codecs, hub
from audiogen_core.codec import fingerprint
from audiogen_core.dataset import scan
from audiogen_core.dataset.encode import Found, check_room, encode, find, length, some
from audiogen_core.dataset.engines import WorkerDied
from audiogen_core.dataset.options import Preparation
from audiogen_core.dataset.plan import read_plan as read_codes_plan
from audiogen_core.dataset.shards import FACTS, Meta
from audiogen_core.describe import FACTS as CODECS
from audiogen_core.describe import facts_of
from audiogen_core.errors import DownloadError, OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.models import Fetch, ModelSpec
from audiogen_core.settings import read_json
from audiogen_core.times import parse_time, shown_time
from audiogen_core.training import metrics
from audiogen_core.training.page import NAME as REPORT
from audiogen_core.training.schedule import Plan, read_plan
from audiogen_core.training.signals import Stop, Stopped, stopping
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.catalog import CATALOG
from audiogen_minigpt.codec_choice import choose_codec
from audiogen_minigpt.evaluate import Verdict, evaluate, read_evaluation, verdict
from audiogen_minigpt.report import DATA, SAMPLES, write_page
from audiogen_minigpt.settings import Settings, TrainConfig, load_config

if TYPE_CHECKING:
    from audiogen_minigpt.train import TrainResult

BUDGET = "budget.json"
STAGES = ("encode", "train", "judge", "sample", "report")

DEFAULT = 600.0
"""Seconds that a run takes beside encoding, where nobody says."""

SLOW = 6.0
"""Times that loading torch takes: as long as that judging, making sounds and the page take at least."""

MOST, FEWEST = 256, 32
"""Windows that a model is judged on in the end."""

SIZES = ((3, 10.0), (3, 6.0), (2, 6.0), (1, 6.0), (1, 4.0))
"""How many clips are made in the end, and how long each is: the more time the more."""

PLAYED = "better"
"""The checkpoint that is judged and plays in the end, as in `generate`; see `checkpoint.find`."""

BENT = {"noise": 0.15, "batch": 4}
"""Settings of a run that goes on from the demo model, unless somebody says otherwise: the noise that it was
trained with, and small steps, of which more fit into minutes."""

OnStep = Callable[[float, float], None]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    run      its folder
    page     report.html, or None when a signal came before
    step     updates of the model
    done     the stages that had something to do, of `STAGES`; empty when all was there
    signal   the signal that ended it early, or None
    verdict  what the model has learnt; None when a signal came before
    next     commands to go on with
    """

    run: Path
    page: Path | None
    step: int
    done: tuple[str, ...]
    signal: int | None
    verdict: Verdict | None = None
    next: tuple[str, ...] = ()


@closed()
def run(
    folder: str | Path,
    out: str | Path,
    *,
    time: str | float | None = None,
    codec: str | None = None,
    settings: Settings | None = None,
    from_scratch: bool = False,
    workers: int | None = None,
    new_data: bool = False,
    on_stage: Callable[[str], OnStep | None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    notify: Notify | None = None,
    fetch: Fetch | None = None,
) -> RunReport:
    """Make a model of a folder of audio, and sounds with it, in one folder; what is there is not done again.

    folder    audio files, at any depth
    out       gets data/ (codes), ckpt/, samples/, eval/, free/, metrics.jsonl and report.html
    time      that all this may take, with the training it had before, such as "10m" or seconds; None: as
              before, or else ten minutes beside encoding
    codec     name or path; None: as before, or else "demo" for music that it suits, and "encodec-24khz" for
              other recordings where that can be had
    settings  anything else about training
    from_scratch  begin with drawn weights, though the demo model fits
    workers   processes that encode; None: one per core
    new_data  training that has begun may go on with codes of a folder that has changed since
    on_stage  called with each stage's name as it begins, "look" before all others; may return an
              `on_step(done, total)` for it
    on_record called with each record of metrics.jsonl
    notify    called with sentences about what is found, done, and came of it
    fetch     how a codec that is not here comes; see `audiogen_core.codecs.load`

    The first SIGINT or SIGTERM ends it after the file, update or clip it is at; the next one at once.

    Raises OptionError when both folders are one, or encoding alone takes far longer than the time, and what
    `encode`, `train` and `evaluate` raise.
    """
    out, folder, settings = Path(out), Path(folder), settings or Settings()
    _check(folder, out, settings, from_scratch)
    if time is not None:
        seconds = parse_time(time) if isinstance(time, str) else float(time)
        settings = Settings({"seconds": seconds}).over(settings)
    with stopping() as stop:
        made = _Run(folder, out, settings, codec, stop, notify or (lambda text: None), fetch)
        made.begin = on_stage or (lambda stage: None)
        try:
            made.encode(from_scratch, workers, new_data)
            result = made.train(new_data, on_record)
            stop.check()
            return made.finish(result)
        except Stopped:
            made.notify("stopped; the same command goes on from here")
            newest = checkpoint.newest(out)
            return RunReport(out, None, newest.step if newest else 0, tuple(made.done), stop.signal)


def preview(
    folder: Path,
    out: Path,
    *,
    codec: str | None,
    settings: Settings,
    from_scratch: bool,
    workers: int | None,
    new_data: bool,
    offline: bool,
    on_stage: Callable[[str], OnStep | None],
    notify: Notify,
) -> dict[str, Any]:
    """What `run` would do, found out by reading the folder: nothing is written, trained or fetched.

    Raises as `run` does before it writes anything.
    """
    _check(folder, out, settings, from_scratch)
    asked = _Run(folder, out, settings, codec, Stop(), notify, None)
    asked.begin = on_stage
    return asked.preview(from_scratch, workers, new_data, offline=offline)


@dataclass
class _Run:
    """A run on its way: what was asked for, and what was found and done so far."""

    folder: Path
    out: Path
    settings: Settings
    codec: str | None
    stop: Stop
    notify: Notify
    fetch: Fetch | None
    begin: Callable[[str], OnStep | None] = field(default=lambda stage: None)
    done: list[str] = field(default_factory=list)
    started: float = field(default_factory=clock.monotonic)
    budget: float | None = None
    found: Found | None = None
    start: str | None = None
    loading: float = 0.0  # seconds that torch took
    judging: float | None = None  # seconds for a window, when some were judged
    sounding: float = 0.5  # seconds of work for one of sound, until some was made

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; infinite without one."""
        return float("inf") if self.budget is None else self.budget - (clock.monotonic() - self.started)

    @property
    def after(self) -> float:
        """The seconds of the budget that are kept for judging, making sounds and the page.

        A share of it before anything was timed; then what the least of that takes at the pace of now.
        """
        budget = self.budget or 0.0
        share = min(120.0, max(10.0, 0.2 * budget))
        count, seconds = SIZES[-1]
        least = FEWEST * (self.judging or 0.0) + self._sounds_take(count, seconds) + SLOW * self.loading
        return min(max(share, least), budget / 2)

    def steps_of(self, stage: str) -> OnStep:
        """The `on_step` of a stage that begins, in which a signal ends the run."""
        shown = self.begin(stage)

        def on_step(done: float, total: float) -> None:
            if shown:
                shown(done, total)
            self.stop.check()

        return on_step

    def encode(self, from_scratch: bool, workers: int | None, new_data: bool) -> None:
        """Look at the folder, choose the codec, and make what codes are missing."""
        before = load_config(self.out)
        self._check_begun(before, from_scratch, new_data)
        self.budget = self._asked(before is not None)
        asked = self.codec or (before.codec if before else None)
        if (facts := facts_of(asked or "demo")) is not None and self.folder.is_dir():
            check_room(self.folder, self.out / DATA, scan(self.folder)[0], facts, Preparation())
        codec, pace = choose_codec(self.folder, asked, self.notify, self.fetch, self.stop)

        def on_found(found: Found) -> None:
            self.found = found
            self._weigh(found, pace, workers, begun=before is not None)
            encoding.append(self.steps_of("encode"))

        encoding: list[OnStep] = []
        try:
            report = encode(
                self.folder,
                self.out / DATA,
                codec=codec,
                workers=workers,
                fetch=self.fetch,
                on_look=self.steps_of("look"),
                on_found=on_found,
                on_step=lambda done, total: encoding[0](done, total),
            )
        except WorkerDied:
            self.stop.check()  # Ctrl-C reaches workers, too, and ends those that have only just begun
            raise
        if report.encoded:
            self.done.append("encode")
        self.codec = codec
        if before is None:
            self.start = self._choose_start(from_scratch, Meta.load(self.out / DATA).facts)

    def _check_begun(self, before: TrainConfig | None, from_scratch: bool, new_data: bool) -> None:
        """Raises OptionError for what a run that is begun, of these settings if any, cannot go on with.

        Nothing of it has been changed by then.
        """
        if before is None:
            return
        if before.start is not None and from_scratch:
            raise OptionError(
                f"{self.out}: began with the model {before.start}; from scratch is for another run",
                "from_scratch",
            )
        if new_data or not self.folder.is_dir():
            return
        known = {entry.path for group in read_codes_plan(self.out / DATA) for entry in group}
        if known and known.isdisjoint(scan(self.folder)[0]):
            raise OptionError(
                f"{self.folder}: holds none of the {len(known)} files that {self.out} was made of; "
                "name another run, or go on with other music with --new-data",
                "new_data",
            )

    def train(self, new_data: bool, on_record: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        """Train on the codes of the run, or go on with it."""
        from audiogen_minigpt.train import train

        config = self._config(Meta.load(self.out / DATA).facts, self._training_seconds())

        def timed(record: dict[str, Any]) -> None:
            self._learn_pace(record, config)
            if on_record:
                on_record(record)

        for record in metrics.read(self.out):
            self._learn_pace(record, config)
        result = train(
            config,
            resume=True,
            new_data=new_data,
            until=None if self.budget is None else lambda: clock.monotonic() + self.left - self.after,
            on_step=self.begin("train"),
            on_record=timed,
            fetch=self.fetch,
        )
        if result.ran:
            self.done.append("train")
        return result

    def _config(self, facts: dict[str, Any], seconds: float | None) -> TrainConfig:
        """The settings of so many seconds of training on such data. Raises OptionError, ModelError."""
        before = load_config(self.out)
        told = Settings({"data": str(self.out / DATA), "run": str(self.out), "codec": self.codec})
        told = told.over(self.settings)
        if self.start is not None:
            told = told.over(Settings({**BENT, "start": self.start}))
        if seconds is not None:
            told = Settings({"seconds": seconds}).over(told)
            if (self.budget or 0.0) < DEFAULT:
                told = told.over(Settings({"eval_windows": 16, "log_every": 1}))
        return told.resumed(before, facts) if before else told.config(facts)

    def preview(
        self, from_scratch: bool, workers: int | None, new_data: bool, *, offline: bool
    ) -> dict[str, Any]:
        """What this run would do. Nothing is written, and nothing fetched."""
        before = load_config(self.out)
        self._check_begun(before, from_scratch, new_data)
        self.budget = self._asked(before is not None)
        asked = self.codec or (before.codec if before else None)
        codec, pace, to_fetch = self._codec_without_fetching(asked, offline)
        loaded = None if to_fetch else codecs.load_codec(codec, fetch=hub.here)
        info = loaded.info if loaded else CODECS[codec]
        found = find(self.folder, self.out / DATA, info, self.steps_of("look"))
        takes = self._weigh(found, pace, workers, begun=before is not None)
        books = fingerprint(loaded.codebook_vectors()) if loaded else ""
        facts = Meta.of(info, books, Preparation().count(info), {}).facts
        self.codec = codec
        if before is None:
            self.start = self._choose_start(from_scratch, facts)
        seconds = self._stored_seconds()
        if seconds is None and self.budget is not None:
            seconds = max(1.0, self.left - takes - self.after)
        config = self._config(facts, seconds)
        model = config.model or Settings().model(facts)
        return {
            "folder": str(self.folder),
            "files": found.files,
            "seconds": found.seconds,
            "to_encode_seconds": found.to_encode,
            "held_out": "the last tenth of each file" if found.tails else list(found.held_out),
            "left_out": [{"file": skip.path, "why": skip.why} for skip in found.skips],
            "codec": codec,
            "download_bytes": to_fetch.bytes if to_fetch else 0,
            "start": config.start,
            "model": model.to_dict(),
            "batch": config.batch,
            "training_seconds": seconds,
            "updates": self._updates(config),
            "run": str(self.out),
        }

    def _codec_without_fetching(self, asked: str | None, offline: bool) -> tuple[str, float, hub.Plan | None]:
        """As `choose_codec`, and what would be fetched for it."""
        missing: list[hub.Plan] = []
        policy = hub.Policy(offline=offline, listed=True, notify=self.notify)

        def planned(spec: ModelSpec) -> Path:
            folder = hub.planning(policy, missing)(spec)
            if missing:
                raise DownloadError(f"{spec.name} is yet to be fetched")
            return folder

        notes: list[str] = []
        try:
            codec, pace = choose_codec(self.folder, asked, notes.append, planned, self.stop)
        except DownloadError:
            if not missing:
                raise
            codec, pace = str(asked), 0.0
        if missing:
            codec, notes = missing[0].spec.name, notes[:1]
        for line in notes:
            self.notify(line)
        return codec, pace, missing[0] if missing else None

    def _updates(self, config: TrainConfig) -> int | None:
        """How many updates are to come, as far as that is known before any was timed."""
        plan, newest = read_plan(self.out, config.goal), checkpoint.newest(self.out)
        done = newest.step if newest else 0
        if plan is None and config.steps is not None:
            plan = Plan.of(config.steps, config.warmup, config.cooldown)
        if plan is not None:
            return max(0, plan.steps - done)
        if not newest or config.budget is None or not done:
            return None
        elapsed = float(newest.state["progress"]["elapsed"])
        left = max(0.0, config.budget - elapsed)
        return Plan.in_time(left, [elapsed / done], config.warmup, config.cooldown).steps

    def finish(self, result: TrainResult) -> RunReport:
        """Judge the model, make sounds with it, and write the page."""
        count, seconds = self._sounds()
        evaluation, step = read_evaluation(self.out), checkpoint.find(self.out, PLAYED).step
        if evaluation is None or evaluation.step != step:
            evaluation = evaluate(
                self.out,
                self.out / DATA,
                which=PLAYED,
                windows=self._windows(),
                clips=count,
                seconds=seconds,
                codec=self.codec,
                fetch=self.fetch,
                on_step=self.steps_of("judge"),
            )
            self.done.append("judge")
        if self._sample(step, count, seconds):
            self.done.append("sample")
        found = verdict(evaluation, metrics.read(self.out))
        commands = self._next(found, result.step)
        page = self.out / REPORT
        if self.done or not page.is_file():
            page = write_page(self.out, self.folder, self.found, evaluation, found, commands)
            self.done.append("report")
        self.notify(f"verdict: {found.sentence}")
        for what, command in commands:
            self.notify(f"{what}: {command}")
        told = tuple(command for _, command in commands)
        return RunReport(self.out, page, result.step, tuple(self.done), None, found, told)

    def _asked(self, begun: bool) -> float | None:
        """The seconds that this run may take: as asked; None for as before, or for a number of updates."""
        asked = self.settings.train.get("seconds")
        if asked is not None and not begun and asked < 30.0:
            self.notify(
                f"{shown_time(asked)} are little: looking, judging and making sounds alone take longer"
            )
        return asked if asked is None else float(asked)

    def _training_seconds(self) -> float | None:
        """The seconds of training that the budget leaves room for; once found out they stay.

        Kept until another time is asked for, so that a run which was stopped ends as it was planned.
        """
        stored, asked = self._stored_seconds(), self.settings.train.get("seconds")
        if stored is not None or self.budget is None:
            return stored
        began = clock.monotonic()
        import torch  # noqa: F401 - how long that takes tells how busy the machine is

        self.stop.check()
        self.loading = clock.monotonic() - began
        seconds = max(1.0, self.left - self.after)
        with atomic_path(self.out / BUDGET) as temporary:
            temporary.write_text(json.dumps({"asked": asked, "training": seconds}), encoding="utf-8")
        return seconds

    def _stored_seconds(self) -> float | None:
        """The seconds of training that were found out before, where no other time is asked for."""
        path, asked = self.out / BUDGET, self.settings.train.get("seconds")
        stored = read_json(path, OptionError) if path.is_file() else {}
        if stored and asked in (None, stored.get("asked")) and "steps" not in self.settings.train:
            return float(stored["training"])
        return None

    def _learn_pace(self, record: dict[str, Any], config: TrainConfig) -> None:
        """Take up what a record of the diary tells of how long judging a window and making sound take now."""
        if record["kind"] == "eval" and "seconds" in record:
            self.judging = record["seconds"] / config.eval_windows
        elif record["kind"] == "sample" and "seconds" in record and config.sample_seconds:
            self.sounding = record["seconds"] / (config.sample_seconds / 2)

    def _sounds_take(self, count: int, seconds: float) -> float:
        """Seconds of work for so many clips: each once from nothing, and its second half once more."""
        return count * seconds * 1.5 * self.sounding

    def _windows(self) -> int:
        """How many windows the model is judged on: what a third of the time that is left is enough for."""
        if self.judging is None:
            return MOST if self.left > 60.0 else FEWEST
        return next((n for n in (MOST, 128, 64) if n * self.judging <= self.left / 3), FEWEST)

    def _sounds(self) -> tuple[int, float]:
        """How many clips are made, and how long each is: as many as there is time for."""
        return next((size for size in SIZES if self._sounds_take(*size) + 8.0 <= self.left), SIZES[-1])

    def _choose_start(self, from_scratch: bool, facts: dict[str, Any]) -> str | None:
        """The model to go on from on such data: the one that was named, or the demo model where it fits."""
        named = self.settings.train.get("start")
        if named or from_scratch:
            return named
        if "demo" not in CATALOG:
            return None
        demo = checkpoint.find("demo")
        fits = all(demo.facts[key] == facts[key] for key in FACTS if key != "codebooks")
        if not fits or facts["codebooks"] < demo.config.codebooks:
            self.notify("the demo model plays codes of another codec: this one begins with nothing")
            return None
        if self.settings.size or self.settings.shape:
            self.notify("a shape was asked for that is not the demo model's: this one begins with nothing")
            return None
        self.notify("it starts from the demo model, which plays already (--from-scratch: from nothing)")
        return "demo"

    def _weigh(self, found: Found, pace: float, workers: int | None, *, begun: bool) -> float:
        """Tell what was found and will be done, and return the seconds that encoding takes, about.

        pace  seconds that encoding takes for one of audio on one core

        Raises OptionError when that is far more than the time there is.
        """
        takes = found.to_encode * pace / max(1, min(workers or _cores(), found.shards))
        takes += 2.0 * (found.shards > 0)
        if self.budget is None and "steps" not in self.settings.train and not begun:
            self.budget = DEFAULT + takes
        for line in self._plan(found, takes) if found.files else [found.headline]:
            self.notify(line)
        if takes > self.left + 60.0:
            raise OptionError(
                f"encoding {length(found.to_encode)} of audio takes about {shown_time(takes)} here, "
                f"more than --time {shown_time(self.budget or 0.0)}; give it "
                f"--time {shown_time(2 * takes)}, or fewer files"
            )
        return takes

    def _plan(self, found: Found, takes: float) -> list[str]:
        """What was found, what is held out, what will be done, and when it ends."""
        lines = [found.headline]
        if found.tails:
            lines.append("held out to judge by: the last tenth of each file, for there are few")
        elif found.held_out:
            lines.append(f"held out to judge by: {some(found.held_out)}")
        steps = self.settings.train.get("steps")
        parts = [f"encode {length(found.to_encode)}, about {shown_time(takes)}"] if found.shards else []
        if steps is not None or self.budget is None:
            parts.append(f"train {steps} updates" if steps else "train as planned before")
            return [*lines, f"to do: {'; '.join([*parts, 'judge and make sounds'])}"]
        spent, stored = sum(_times(self.out)), self._stored_seconds()
        of_all = self.left - takes - self.after if stored is None else stored
        training = max(0.0, min(of_all - spent, self.left - takes - self.after))
        more = f"train about {shown_time(training)}"
        parts += [
            f"{more} more, after {shown_time(spent)}" if spent else more,
            f"judge and make sounds, about {shown_time(self.after)}",
        ]
        end = clock.localtime(clock.time() + takes + training + self.after)
        return [*lines, f"to do: {'; '.join(parts)}; ends about {clock.strftime('%H:%M:%S', end)}"]

    def _next(self, found: Verdict, step: int) -> list[tuple[str, str]]:
        """Commands to go on with, and what for."""
        run = shlex.quote(str(self.out))
        again = f"audiogen-minigpt run {shlex.quote(str(self.folder))} -o {run}"
        spent = max(self.budget or 0.0, sum(_times(self.out)) + self.after)
        if "steps" in self.settings.train:
            longer = f"--steps {2 * step}"
        else:
            longer = f"--time {shown_time(_rounded(spent + (found.more or spent)))}"
        listen = ("hear more", f"audiogen-minigpt generate -m {run} -o new.wav --seconds 30")
        config = load_config(self.out)
        if found.worse and config and config.start:
            before = f"audiogen-minigpt generate -m {shlex.quote(config.start)} -o before.wav --seconds 30"
            return [listen, ("hear what it began with", before), ("with more music", f"{again} {longer}")]
        return [listen, ("train on", f"{again} {longer}")]

    def _sample(self, step: int, count: int, seconds: float) -> bool:
        """Make clips from nothing, unless they are there already; returns whether they had to be made."""
        stamp = self.out / SAMPLES / "made.json"
        with suppress(OptionError):
            if read_json(stamp, OptionError).get("step") == step:
                return False
        from audiogen_minigpt.clips import write_clips
        from audiogen_minigpt.generate import Generator

        on_step = self.steps_of("sample")
        generator = Generator.load(self.out, codec=self.codec, fetch=self.fetch)
        for old in stamp.parent.glob("sample-*.*"):  # of a run that had time for more
            old.unlink()
        write_clips(generator, stamp.parent, count=count, seconds=seconds, on_step=on_step)
        with atomic_path(stamp) as temporary:
            wanted = {"step": step, "count": count, "seconds": seconds}
            temporary.write_text(json.dumps(wanted), encoding="utf-8")
        return True


def _check(folder: Path, out: Path, settings: Settings, from_scratch: bool) -> None:
    """Refuse what cannot be, before any long work. Raises OptionError, and ModelError for no model."""
    if out.resolve() == folder.resolve():
        raise OptionError(f"{out}: holds the audio, and the sounds made would join it; name another run")
    require_room(out / REPORT)
    if {"steps", "seconds"} <= set(settings.train):
        raise OptionError("give a number of steps or a time, not both", "steps", "seconds")
    if (start := settings.train.get("start")) is not None:
        if from_scratch:
            raise OptionError(f"start from {start}, or from scratch: not both")
        checkpoint.find(start)
    if settings.size or settings.shape:
        settings.model({"codebook_size": 1024, "codebooks": 8})  # with codebooks as most codecs have them


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _times(out: Path) -> list[float]:
    """The seconds of training so far, in a list of one; none before any."""
    newest = checkpoint.newest(out)
    return [float(newest.state["progress"]["elapsed"])] if newest else []


def _rounded(seconds: float) -> float:
    """A duration that one likes to type: up to a whole minute, or of more than two hours to a whole hour."""
    unit = 60.0 if seconds < 7200 else 3600.0
    return unit * -(-seconds // unit)
