"""Tuning: a model that is there already learns a folder of clips. What such a run does, whatever learns.

A backend brings a `Learner`; the lock, signals, plan, diary, checkpoints, samples, page and verdict are here.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiogen_core.audio import Audio, probe
from audiogen_core.check import faults
from audiogen_core.dataset.encode import headline, some
from audiogen_core.dataset.folder import Skip, each_caption, scan, sources
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.models import ModelSpec, Shipped
from audiogen_core.options import described, plain
from audiogen_core.progress import OnStep
from audiogen_core.recipe import hash_file
from audiogen_core.runs import ADAPTER
from audiogen_core.settings import read_json
from audiogen_core.sound_reader import name_of
from audiogen_core.times import shown_time
from audiogen_core.training import checkpoints, metrics
from audiogen_core.training.checkpoints import Checkpoint, Table
from audiogen_core.training.clips import Clip, Data
from audiogen_core.training.errors import differences
from audiogen_core.training.lock import lock
from audiogen_core.training.options import Tuning
from audiogen_core.training.page import Clip as Shown
from audiogen_core.training.page import Section, write_report
from audiogen_core.training.pictures import LOSSES, draw_losses
from audiogen_core.training.schedule import Plan, read_plan, write_plan
from audiogen_core.training.signals import Stop, Stopped, stopping

CONFIG = "config.json"
SAMPLES = "samples"

JUDGED = 8
"""Held-out clips that are judged at most."""

TIMES = 16
"""How often in a run they are, at least."""

OFTEN = 60.0
"""Seconds between two checkpoints, at most an update more."""

LESS = 0.995
"""Times a loss: what is below that is less of it, and no accident."""

OnStage = Callable[[str], OnStep | None]
OnRecord = Callable[[dict[str, Any]], None]
Notify = Callable[[str], None]


class Learner(ABC):
    """What learns in a run: a model that stays as it is, and what is learned beside it.

    data     what it learns from, and is judged by
    base     what cards call the model: its repository where it has one
    licence  of the model
    """

    data: Data
    base: str
    licence: str

    @abstractmethod
    def update(self, step: int, share: float) -> dict[str, float]:
        """The update after `step` others, at this share of its learning rate.

        Which clips it is of follows from seed and step. The facts for the diary: "loss" (nats per code),
        "norm" of the gradient, "learning_rate". Raises Diverged.
        """

    @abstractmethod
    def rehearse(self, step: int) -> None:
        """The work of an update, of which nothing stays."""

    @abstractmethod
    def judge(self, clips: Sequence[Clip]) -> float:
        """The mean loss of clips that it does not learn from, nats per code; always drawn alike."""

    @abstractmethod
    def tables(self) -> dict[str, Table]:
        """All that an update changes, as tables of tensors by name."""

    @abstractmethod
    def restore(self, last: Checkpoint) -> None:
        """Put back what `tables` gave."""

    @abstractmethod
    def write(self, folder: Path, facts: Mapping[str, Any]) -> Path:
        """Write what is learned as files that others read, with a card of the facts. Returns the folder."""

    @abstractmethod
    def sample(self, adapter: Path | None) -> Audio:
        """A clip after `data.shown`, made with the run's seed.

        adapter  what `write` wrote a moment ago; None: without what is learned
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the page tells of how it learns."""


@dataclass(frozen=True)
class Tuned:
    """How a run ended.

    adapter  the folder of what was learned, or None when a signal came before the first checkpoint
    page     report.html, or None when a signal came before all was done
    losses   of the held-out clips, before and with the adapter; None where nothing is held out
    verdict  what came of it, in a sentence or two
    faults   what is wrong with the clip that was made in the end, as `audiogen-core check` finds it
    signal   the signal that stopped it, or None
    """

    run: Path
    adapter: Path | None
    page: Path | None
    step: int
    steps: int
    losses: tuple[float | None, float | None]
    verdict: str
    faults: tuple[str, ...]
    signal: int | None


def tune(
    asked: Tuning,
    run: str | Path,
    begin: Callable[[OnStep], Learner],
    *,
    program: str,
    captioned: bool = True,
    on_stage: OnStage | None = None,
    on_record: OnRecord | None = None,
    notify: Notify | None = None,
) -> Tuned:
    """Tune a model, or go on with it; the same call again goes on where a run was ended.

    run        gets data/ (codes), ckpt/, samples/, adapter/, metrics.jsonl, and when all is done report.html
    begin      opens the model and prepares its data; is given an `on_step` for the encoding
    program    the command, as the page names it
    captioned  whether the model reads captions
    on_stage   called with "encode" and "train" as they begin; may give an `on_step(done, total)`
    on_record  called with each record of metrics.jsonl
    notify     called with sentences on what is found and will be done

    What is kept in the end is what had the least loss of held-out clips, so a run that is too long for its
    clips costs time and nothing else.

    SIGINT and SIGTERM end it after the current update, with a checkpoint. Raises OptionError for settings
    that do not fit the model or the run, AudioError when there is nothing to learn from, Diverged, DiskFull,
    and what opening the model raises.
    """
    run = Path(run)
    _check_places(asked, run)
    if notify:  # nobody else waits for files to be read once more
        for line in look(asked.folder, captioned=captioned).lines:
            notify(line)
        told = f"{asked.steps} updates" if asked.steps else shown_time(float(asked.goal["seconds"] or 0))
        notify(f"to do: open the model, encode what is not encoded yet, and train {told}")
    run.mkdir(parents=True, exist_ok=True)
    with stopping() as stop, lock(run):
        said = _check_resumable(asked, run)
        if not checkpoints.listed(run):
            with atomic_path(run / CONFIG) as temporary:
                temporary.write_text(json.dumps(said, indent=2), encoding="utf-8")
        made = _Run(asked, run, stop, program, on_stage or (lambda stage: None), on_record, notify)
        try:
            made.begin(begin)
        except Stopped:
            return Tuned(run, None, None, 0, 0, (None, None), "", (), stop.signal)
        made.train()
        return made.end()


@dataclass(frozen=True)
class Look:
    """What a folder holds to learn from, as the headers of its files tell.

    seconds   of all files
    captions  where they come from, in words; "" where none are read
    """

    files: int
    seconds: float
    captions: str
    skips: list[Skip]

    @property
    def lines(self) -> list[str]:
        """That in sentences."""
        told = [headline(self.files, self.seconds, self.skips)]
        return [*told, f"captions: {self.captions}"] if self.captions else told


def look(folder: Path, *, captioned: bool) -> Look:
    """Look into a folder, without decoding a file: which are silent is found when they are encoded.

    Raises AudioError when there is nothing to learn from.
    """
    names, skips = scan(folder)
    seconds: dict[str, float] = {}
    digests: dict[str, str] = {}
    for name in names:
        try:
            sound, digest = probe(folder / name), hash_file(folder / name)
        except AudioError as error:
            skips.append(Skip(name, "unreadable", str(error).removeprefix(f"{name_of(folder / name)}: ")))
            continue
        if digest in digests:
            skips.append(Skip(name, "duplicate", f"the same bytes as {digests[digest]}"))
            continue
        digests[digest] = name
        seconds[name] = sound.frames / sound.sample_rate
    if not seconds:
        why = f": {skips[0].path}: {skips[0].message}" if skips else ""
        raise AudioError(f"{folder}: nothing to learn from{why}")
    captions = sources(dict(each_caption(folder, list(seconds))).values()) if captioned else ""
    return Look(len(seconds), sum(seconds.values()), captions, skips)


def preview(asked: Tuning, run: Path, *, captioned: bool) -> dict[str, Any]:
    """What `tune` would learn from, and for how long, without opening a model; nothing is written.

    captioned  whether the model reads captions

    Raises as `tune` does for settings that do not fit the run, and AudioError when there is nothing to learn
    from.
    """
    _check_places(asked, run)
    _check_resumable(asked, run)
    found = look(asked.folder, captioned=captioned)
    plan, last = read_plan(run, asked.goal), checkpoints.newest(run)
    done, elapsed = (last.step, last.state["elapsed"]) if last else (0, 0.0)
    if plan is None and asked.steps is not None:
        plan = Plan.of(asked.steps, asked.warmup, asked.cooldown)
    elif plan is None and done:
        left = max(0.0, float(asked.goal["seconds"] or 0) - elapsed)
        more = Plan.in_time(left, [elapsed / done], asked.warmup, asked.cooldown).steps
        plan = Plan.of(done + more, asked.warmup, asked.cooldown)
    return {
        "folder": str(asked.folder),
        "files": found.files,
        "seconds": found.seconds,
        "captions": found.captions,
        "left_out": [{"file": skip.path, "why": skip.why} for skip in found.skips],
        "model": str(vars(asked).get("model")),
        "training_seconds": asked.goal["seconds"],
        "clips_in_an_update": asked.batch * asked.accumulate,
        "updates": None if plan is None else max(0, plan.steps - done),
        "run": str(run),
    }


def _check_places(asked: Tuning, run: Path) -> None:
    require_room(run / CONFIG)
    if run.resolve() == asked.folder.resolve():
        raise OptionError(f"{run}: holds the audio; name another folder for the run")


class _Run:
    """A run on its way: what learns, the plan, and what was done so far."""

    def __init__(
        self,
        asked: Tuning,
        run: Path,
        stop: Stop,
        program: str,
        on_stage: OnStage,
        on_record: OnRecord | None,
        notify: Notify | None,
    ) -> None:
        self.asked, self.run, self.stop, self.on_stage = asked, run, stop, on_stage
        self.program, self.notify = program, notify or (lambda text: None)
        self.metrics = metrics.Metrics(run, on_record)
        self.elapsed, self.step, self.fresh = 0.0, 0, True
        self.first_loss: float | None = None
        self.best: tuple[int, float] | None = None  # the update after which held-out clips cost least

    def begin(self, begin: Callable[[OnStep], Learner]) -> None:
        """The model and its data, what is learned where the last checkpoint left it, and the plan."""
        shown = self.on_stage("encode")

        def on_step(done: float, total: float) -> None:
            if shown:
                shown(done, total)
            self.stop.check()

        self.learner = begin(on_step)
        self.data = self.learner.data
        self._restore()
        self.progress = self.on_stage("train")
        self._tell_clips()
        self.plan = self._planned()
        if not self.fresh:
            self.notify(f"goes on after {self.step} of {self.plan.steps} updates")
        if self.progress:
            self.progress(self.step, self.plan.steps)

    def _tell_clips(self) -> None:
        data = self.data
        silent = [skip.path for skip in data.skips if skip.reason == "silent"]
        if silent:
            self.notify(f"left out as well, silent: {some(silent)}")
        count = len(data.train) + len(data.held_out)
        out = [f"{some([path])} ({clips})" for path, clips in Counter(c.path for c in data.held_out).items()]
        held_out = f"held out to judge by: {some(out)}" if out else "none is held out to judge by"
        self.notify(f"{count} clip{'s' * (count != 1)}; {held_out}")

    def _restore(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoints.clean(self.run)
        last = checkpoints.newest(self.run)
        self.fresh = last is None
        if last is None:
            self.metrics.truncate(-1)
            return
        if last.state["data"] != self.data.identity:
            raise OptionError(
                f"{self.asked.folder}: other clips or captions than {self.run} was tuned on so far; go on "
                "with those, or name another run"
            )
        self.metrics.truncate(last.step)
        self.step, self.elapsed = last.step, last.state["elapsed"]
        self.first_loss = last.state["first_loss"]
        self.best = last.state["best"] and tuple(last.state["best"])
        self.learner.restore(last)

    def save(self) -> None:
        """A checkpoint of now."""
        state = {
            "data": self.data.identity,
            "elapsed": self.elapsed,
            "first_loss": self.first_loss,
            "best": self.best,
        }
        checkpoints.save(self.run, self.step, self.learner.tables(), state)
        checkpoints.prune(self.run, best=self.best and self.best[0])

    # Training

    def _planned(self) -> Plan:
        asked = self.asked
        plan = read_plan(self.run, asked.goal)
        if plan is None:
            if asked.steps is not None:
                plan = Plan.of(asked.steps, asked.warmup, asked.cooldown)
            else:
                times = []
                for _ in range(2):  # the first one is slower, as all that is done for the first time
                    began = time.perf_counter()
                    self.learner.rehearse(self.step)
                    times.append(time.perf_counter() - began)
                self.elapsed += sum(times)
                left = max(0.0, float(asked.goal["seconds"] or 0) - self.elapsed)
                more = Plan.in_time(left, times[1:], asked.warmup, asked.cooldown).steps
                plan = Plan.of(self.step + more, asked.warmup, asked.cooldown)
                self._note(f"about {more} updates fit into {shown_time(left)}, at {times[1]:.2g} s each")
            write_plan(self.run, asked.goal, plan)
        return plan

    def train(self) -> None:
        """Update, record, judge, save, until the plan is done or a signal comes."""
        every = max(1, self.plan.steps // TIMES)
        if self.fresh:
            self.first_loss = self._judge()
            self._sample("before")
            self.save()
        saved = time.monotonic()
        sampled = {self.plan.steps * (i + 1) // (self.asked.samples + 1) for i in range(self.asked.samples)}
        self._tell_end(every, sampled)
        while self.step < self.plan.steps and self.stop.signal is None:
            began = time.perf_counter()
            facts = self.learner.update(self.step, self.plan.rate(self.step))
            took = time.perf_counter() - began
            self.step += 1
            self.elapsed += took
            left = (self.plan.steps - self.step) * self.elapsed / self.step
            self._write("train", **facts, seconds=took, seconds_left=left)
            if self.progress:
                self.progress(self.step, self.plan.steps)
            if self.step % every == 0 or self.step == self.plan.steps:
                loss = self._judge()
                if loss is not None and (self.best is None or loss < self.best[1]):
                    self.best = self.step, loss
                saved -= OFTEN
            if time.monotonic() - saved >= OFTEN:
                self.save()
                saved = time.monotonic()
            if self.step in sampled - {self.plan.steps}:
                self._sample(f"step-{self.step:06d}")
            self._hurry()
        self.save()

    def _tell_end(self, every: int, sampled: AbstractSet[int]) -> None:
        """When it ends: by the time it has, or its pace; and by how long judging and a clip took last."""
        budget, steps = self.asked.goal["seconds"], self.plan.steps
        if self.step >= steps:
            return
        if self.step:
            left = (steps - self.step) * self.elapsed / self.step
        elif budget is not None:
            left = max(0.0, float(budget) - self.elapsed)
        else:
            return  # no update was timed yet
        took = {record["kind"]: record.get("seconds", 0.0) for record in metrics.read(self.run)}
        to_come = range(self.step + 1, steps + 1)
        left += took.get("eval", 0.0) * sum(step % every == 0 or step == steps for step in to_come)
        left += took.get("sample", 0.0) * (1 + len(sampled & set(to_come[:-1])))
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        self.notify(
            f"{len(to_come)} update{'s' * (len(to_come) != 1)} to come, about {shown_time(left)} "
            f"with judging and sounds; ends about {end}"
        )

    def _judge(self) -> float | None:
        """The mean loss of held-out clips, or None when nothing is held out."""
        clips = self.data.held_out[:JUDGED]
        if not clips:
            return None
        began = time.perf_counter()
        mean = self.learner.judge(clips)
        self._write("eval", loss=mean, seconds=time.perf_counter() - began)
        return mean

    def _hurry(self) -> None:
        """End the plan sooner when time is running out."""
        budget = self.asked.goal["seconds"]
        if budget is None or self.step < 4:
            return
        fit = int(max(0.0, float(budget) - self.elapsed) / (self.elapsed / self.step))
        if self.plan.late(self.step, fit):
            self.plan = self.plan.cool_from(self.step, self.plan.cut(self.step, fit))
            write_plan(self.run, self.asked.goal, self.plan)
            self._note(f"slower than planned: {self.plan.steps} steps in all")

    # What comes of it

    def _sample(self, name: str) -> None:
        """A clip with what is learned so far; "before" it is one without."""
        if not self.asked.samples:
            return
        path = self.run / SAMPLES / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        began = time.perf_counter()
        self.learner.sample(None if name == "before" else self._adapter()).save(path, force=True)
        took = time.perf_counter() - began
        self._write("sample", path=str(path), faults=_heard_faults(path), seconds=took)

    def _adapter(self) -> Path:
        return self.learner.write(self.run / ADAPTER, self._facts())

    def end(self) -> Tuned:
        """What was learned, and when all is done the page."""
        if self.best is not None and self.best[0] != self.step:
            self.learner.restore(checkpoints.read(checkpoints.folder(self.run, self.best[0])))
        adapter, is_done = self._adapter(), self.step >= self.plan.steps
        after = self.run / SAMPLES / "after.wav"
        if is_done and not after.is_file():
            self._sample("after")
        draw_losses(self.run)
        losses, said = (self.first_loss, self.best and self.best[1]), self._verdict()
        page = self._page(said) if is_done else None
        wrong = tuple(_heard_faults(after)) if after.is_file() else ()
        return Tuned(
            self.run, adapter, page, self.step, self.plan.steps, losses, said, wrong, self.stop.signal
        )

    def _verdict(self) -> str:
        return verdict(
            [(each["step"], each["loss"]) for each in metrics.read(self.run) if each["kind"] == "eval"]
        )

    def _facts(self) -> dict[str, Any]:
        asked, data = self.asked, self.data
        count = len(data.train) + len(data.held_out)
        facts = {
            "model": self.learner.base,
            "licence of the model": self.learner.licence,
            "clips": f"{count}, {data.seconds / 60:.1f} min in all",
            "captions": data.sources,
            "held out": f"{len(data.held_out)} clips",
            **self.learner.facts(),
            "training": f"{self.step} of {self.plan.steps} updates of {asked.batch * asked.accumulate} "
            f"clips, {shown_time(self.elapsed)}",
        }
        if self.first_loss is not None and self.best is not None:
            step, loss = self.best
            facts["held-out loss"] = f"{self.first_loss:.3f} before; least {loss:.3f}, after {step} updates"
        return {name: value for name, value in facts.items() if value}

    def _page(self, said: str) -> Path:
        sounds = self.run / SAMPLES
        ordered = sorted(
            sounds.glob("*.wav"), key=lambda path: (path.stem == "after", path.stem != "before", path.stem)
        )
        clips = [Shown(_TITLES.get(path.stem, f"After {path.stem}"), path) for path in ordered]
        skips = [(skip.path, skip.message) for skip in self.data.skips]
        about = self.data.shown.caption or self.data.shown.path
        sections = [
            Section("Verdict", said),
            Section("Losses", "Mean nats per code; lower is better.", picture=self.run / LOSSES),
            Section("Sounds", f"The same seed each time, after the same: {about}", clips=clips),
            *([Section("Left out", rows=[("file", "why"), *skips])] if skips else []),
        ]
        return write_report(self.run, f"{self.program}: {self.asked.folder.name}", self._facts(), sections)

    def _note(self, message: str) -> None:
        self._write("event", message=message)

    def _write(self, kind: str, **facts: Any) -> None:
        self.metrics.write({"kind": kind, "step": self.step, **facts})


def _heard_faults(clip: Path) -> list[str]:
    return [str(fault) for fault in faults(Audio.load(clip))]


_TITLES = {"before": "Before", "after": "When it was done"}


def verdict(losses: Sequence[tuple[int, float]]) -> str:
    """What came of a run, in words: of the losses of held-out clips, (step, loss), the first before it."""
    if not losses:
        return "Nothing was held out, so nobody can say whether it learned; listen, or give more files."
    (start, first), (end, last) = losses[0], losses[-1]
    if end == start:
        return "It has not learned yet."
    best_step, best = min(losses[1:], key=lambda each: each[1])
    change = f"held-out clips cost {best:.3f} nats a code, and {first:.3f} before"
    if best >= LESS * first:
        more = "Take more updates, or more of one kind."
        return f"It learned little that holds for other clips: {change}. {more}"
    if best >= LESS * last:
        return f"It learned: {change}."
    return (
        f"It learned: {change}. That was after {best_step} of {end} updates, and is what is kept; then it "
        f"began to learn its clips by heart ({last:.3f} in the end). More clips would carry further."
    )


def card(base: str, facts: Mapping[str, Any], **head: str) -> str:
    """The text of a README.md beside what was learned; `head` are further fields of its front matter."""
    front = "\n".join(f"{key}: {value}" for key, value in {"base_model": json.dumps(base), **head}.items())
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return (
        f"---\n{front}\n---\n\n# A LoRA for {base}\n\n{lines}\n\n"
        "What is made with it is under the licence of the model as well.\n"
    )


def known(catalog: Mapping[str, ModelSpec | Shipped], model: str) -> tuple[str, str]:
    """What cards call a model, and its licence, as far as a catalogue knows."""
    spec = catalog.get(model)
    base = spec.repo if isinstance(spec, ModelSpec) else model
    return base, "see the model" if spec is None else spec.license


def _check_resumable(asked: Tuning, run: Path) -> dict[str, Any]:
    """The settings, as a run keeps them; raises OptionError when those of one that goes on are others."""
    said = {
        each.name: plain(getattr(asked, each.name))
        for each in described(type(asked))
        if each.option.role != "hidden"
    }
    path = run / CONFIG
    begun = bool(checkpoints.listed(run))
    if begun and not path.is_file():
        raise OptionError(f"{run}: holds a run of something else; name another folder")
    if begun:
        before = read_json(path, OptionError)
        rows = {
            key: (before.get(key), value)
            for key, value in said.items()
            if key not in asked.free and before.get(key) != value
        }
        if rows:
            raise OptionError(
                f"{run}: was begun with other settings; leave them as they were, or name another folder; "
                f"{differences(rows, 'the run', 'what is asked now')}"
            )
    return said
