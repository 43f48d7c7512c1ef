"""Tuning a MusicGen on a folder of clips: a LoRA beside its frozen transformer, from the first step to a
folder that peft, transformers and `--lora` load.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map
from numpy.typing import NDArray

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.formats.adapters import write_peft
from audiogen_core.hub import asking
from audiogen_core.models import ModelSpec, Shipped
from audiogen_core.musicgen.files import Places
from audiogen_core.options import described, plain
from audiogen_core.settings import read_json
from audiogen_core.training import checkpoints, metrics
from audiogen_core.training.errors import Diverged, differences
from audiogen_core.training.lock import lock
from audiogen_core.training.page import Clip as Shown
from audiogen_core.training.page import Section, write_report
from audiogen_core.training.pictures import LOSSES, draw_losses
from audiogen_core.training.schedule import Plan, read_plan, shown_time, write_plan
from audiogen_core.training.signals import Stop, Stopped, stopping
from audiogen_core.values import closed
from audiogen_mlx import blas
from audiogen_mlx.catalog import MUSICGEN
from audiogen_mlx.musicgen import tune_data
from audiogen_mlx.musicgen.adapted import Adapted, Batch, Factors, batch, fresh, targeted
from audiogen_mlx.musicgen.load import Parts, find_files
from audiogen_mlx.musicgen.tune_data import Clip, Data
from audiogen_mlx.musicgen.tune_options import FREE, RATE, Tuning

CONFIG = "config.json"
ADAPTER = "adapter"
SAMPLES = "samples"

BETAS = (0.9, 0.999)
JUDGED = 8
"""Held-out clips that are judged at most, and how often in a run at least."""

OFTEN = 60.0
"""Seconds between two checkpoints, at most an update more."""

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Tuned:
    """How a run ended.

    adapter  the folder for --lora, or None when a signal came before the first checkpoint
    losses   of the held-out clips, before and after; None where nothing is held out
    signal   the signal that stopped it, or None
    """

    run: Path
    adapter: Path | None
    page: Path | None
    step: int
    steps: int
    losses: tuple[float | None, float | None]
    signal: int | None


@closed()
def tune(
    asked: Tuning,
    run: str | Path,
    *,
    fetch: Any = None,
    on_stage: Callable[[str], OnStep | None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> Tuned:
    """Tune a model, or go on with it; the same call again goes on where a run was ended.

    run        gets data/ (codes), ckpt/, samples/, adapter/, metrics.jsonl, and when all is done report.html
    fetch      how models of the catalogue are fetched
    on_stage   called with "encode" and "train" as they begin; may give an `on_step(done, total)`
    on_record  called with each record of metrics.jsonl

    SIGINT and SIGTERM end it after the current update, with a checkpoint. Raises OptionError for settings
    that do not fit the model or the run, AudioError when there is nothing to learn from, Diverged, DiskFull,
    and what loading a MusicGen raises.
    """
    run = Path(run)
    require_room(run / CONFIG)
    if run.resolve() == asked.folder.resolve():
        raise OptionError(f"{run}: holds the audio; name another folder for the run")
    run.mkdir(parents=True, exist_ok=True)
    with stopping() as stop, lock(run):
        _check_resumable(asked, run)
        made = _Run(asked, run, stop, fetch, on_stage or (lambda stage: None), on_record)
        try:
            made.begin()
        except Stopped:
            return Tuned(run, None, None, 0, 0, (None, None), stop.signal)
        made.train()
        return made.end()


class _Run:
    """A run on its way: the model, its data, what is learned, and what was done so far."""

    def __init__(
        self,
        asked: Tuning,
        run: Path,
        stop: Stop,
        fetch: Any,
        on_stage: Callable[[str], OnStep | None],
        on_record: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.asked, self.run, self.stop, self.on_stage = asked, run, stop, on_stage
        self.fetch = fetch or asking(unlisted=asked.unlisted)
        self.metrics = metrics.Metrics(run, on_record)
        self.elapsed, self.step = 0.0, 0
        self.first_loss: float | None = None
        self.last_loss: float | None = None

    def begin(self) -> None:
        """The model, the data, and what is learned where the last checkpoint left it; then the plan."""
        asked = self.asked
        blas.set_threads(asked.threads)
        places = Places(asked.t5, asked.tokenizer, asked.codec, asked.mert, self.fetch)
        files = find_files(asked.model, places, unlisted=asked.unlisted)
        if asked.seconds > files.config.window_seconds:
            raise OptionError(
                f"seconds must be at most {files.config.window_seconds:g}, as the model was trained; "
                f"got {asked.seconds:g}",
                "seconds",
            )
        modules = targeted(files.config, asked.targets)
        parts = Parts(files, dtype=asked.dtype)
        shown = self.on_stage("encode")

        def on_step(done: int, total: int) -> None:
            if shown:
                shown(done, total)
            self.stop.check()

        self.data: Data = tune_data.prepare(parts, asked.folder, self.run, asked.seconds, on_step)
        self.files, self.config, self.network = files, parts.config, parts.transformer
        del parts  # the text encoder and the codec have done their work
        gc.collect()
        mx.clear_cache()
        alpha = asked.alpha or float(asked.rank)
        self.model = Adapted(
            self.network, dict.fromkeys(modules, alpha / asked.rank), checkpoint=asked.checkpoint
        )
        self.factors = fresh(self.network, modules, asked.rank, asked.seed, dora=asked.dora)
        self.lr = asked.lr or RATE / self.config.width
        self.optimiser = optim.AdamW(
            self.lr, betas=list(BETAS), weight_decay=asked.weight_decay, bias_correction=True
        )
        self.optimiser.init(self.factors)
        self._restore()
        self.progress = self.on_stage("train")
        self.plan = self._planned()

    def _restore(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoints.prune(self.run)
        last = checkpoints.newest(self.run)
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
        self.first_loss, self.last_loss = last.state["losses"]
        table = last.table("factors")
        self.factors = {
            module: {leaf: mx.array(table[f"{module}.{leaf}"]) for leaf in own}
            for module, own in self.factors.items()
        }
        moments = last.table("moments")
        state = self.optimiser.state
        for module, own in self.factors.items():
            state[module] = {
                leaf: {each: mx.array(moments[f"{module}.{leaf}.{each}"]) for each in ("m", "v")}
                for leaf in own
            }
        state["step"] = mx.array(self.step, mx.uint64)

    def save(self) -> None:
        """A checkpoint of now."""
        factors = _flat(self.factors)
        state = {module: self.optimiser.state[module] for module in self.factors}
        checkpoints.save(
            self.run,
            self.step,
            {"factors": factors, "moments": _flat(state)},
            {
                "data": self.data.identity,
                "elapsed": self.elapsed,
                "losses": [self.first_loss, self.last_loss],
            },
        )
        checkpoints.prune(self.run)

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
                    mx.eval(self._gradients(self.step))
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
        every = max(1, self.plan.steps // JUDGED)
        if self.step == 0:
            self.first_loss = self.last_loss = self._judge()
            self._sample("before")
            self.save()
        saved = time.monotonic()
        sampled = {self.plan.steps * (i + 1) // (self.asked.samples + 1) for i in range(self.asked.samples)}
        while self.step < self.plan.steps and self.stop.signal is None:
            began = time.perf_counter()
            loss, norm = self._update()
            took = time.perf_counter() - began
            self.elapsed += took
            rate = float(self.optimiser.learning_rate.item())
            self._write("train", loss=loss, norm=norm, learning_rate=rate, seconds=took)
            if self.progress:
                self.progress(self.step, self.plan.steps)
            if self.step % every == 0 or self.step == self.plan.steps:
                self.last_loss = self._judge()
                saved -= OFTEN
            if time.monotonic() - saved >= OFTEN:
                self.save()
                saved = time.monotonic()
            if self.step in sampled - {self.plan.steps}:
                self._sample(f"step-{self.step:06d}")
            self._hurry()
        self.save()

    def _update(self) -> tuple[float, float]:
        loss, gradients = self._gradients(self.step)
        clipped, norm = optim.clip_grad_norm(gradients, self.asked.clip or math.inf)  # type: ignore[no-untyped-call]
        self.optimiser.learning_rate = self.lr * self.plan.rate(self.step)
        self.factors = self.optimiser.apply_gradients(clipped if self.asked.clip else gradients, self.factors)
        mx.eval(self.factors, self.optimiser.state, norm)
        if not math.isfinite(loss):
            raise Diverged(
                f"{self.run}: the loss of step {self.step} is not finite; begin anew with a lower --lr"
            )
        self.step += 1
        return loss, float(norm.item())

    def _gradients(self, step: int) -> tuple[float, Factors]:
        """The mean loss of an update's clips, and its gradients; which clips follows from seed and step."""
        asked, clips = self.asked, self.data.train
        rng = np.random.default_rng([asked.seed, step])
        total: Any = None
        for part in range(asked.accumulate):
            first = (step * asked.accumulate + part) * asked.batch
            chosen = [clips[_turn(first + i, len(clips), asked.seed)] for i in range(asked.batch)]
            told = (rng.random(len(chosen)) >= asked.text_dropout).tolist()
            shown = [
                int(rng.integers(1 << 30)) if each and rng.random() >= asked.clip_dropout else None
                for each in told
            ]
            made = self.model.gradients(self.factors, self._batch(chosen, told, shown))
            total = made if total is None else tree_map(lambda a, b: a + b, total, made)
            mx.eval(total)
        loss, gradients = tree_map(lambda each: each / asked.accumulate, total)
        return loss, gradients

    def _batch(self, clips: list[Clip], told: list[bool], excerpts: list[int | None]) -> Batch:
        """Clips as a batch: which captions are told, and by which excerpts melodies or styles are shown."""
        before = [tune_data.ahead(self.network, *each) for each in zip(clips, excerpts, strict=True)]
        return batch(
            self.config,
            [clip.codes for clip in clips],
            [self.data.texts[clip.caption] for clip in clips],
            told,
            [each for each in before if each is not None] or None,
        )

    def _judge(self) -> float | None:
        """The mean loss of held-out clips, or None when nothing is held out."""
        clips = self.data.held_out[:JUDGED]
        if not clips:
            return None
        losses = [self.model.loss(self.factors, self._batch([clip], [True], [0])) for clip in clips]
        mean = float(np.mean(losses))
        self._write("eval", loss=mean)
        return mean

    def _hurry(self) -> None:
        """End the plan sooner when time is running out."""
        budget, left = self.asked.goal["seconds"], self.plan.steps - self.step
        if budget is None or self.step < 4 or left <= 1:
            return
        fit = int(max(0.0, float(budget) - self.elapsed) / (self.elapsed / self.step))
        if fit < 0.8 * left and left > self.plan.cooldown:
            self.plan = self.plan.cool_from(self.step, max(1, fit))
            write_plan(self.run, self.asked.goal, self.plan)
            self._note(f"slower than planned: {self.plan.steps} steps in all")

    # What comes of it

    def adapter(self) -> Path:
        """Write what is learned as a folder for --lora."""
        return write_peft(
            self.run / ADAPTER,
            _flat(self.factors),
            rank=self.asked.rank,
            alpha=self.asked.alpha or float(self.asked.rank),
            base=_base(str(self.asked.model)),
            card=self._card(),
            dora=self.asked.dora,
        )

    def _sample(self, name: str) -> None:
        """A clip with what is learned so far; "before" it is one without. The model is opened anew for it."""
        if not self.asked.samples:
            return
        from audiogen_mlx.musicgen.generate import MusicGen

        asked, clip = self.asked, (self.data.held_out or self.data.train)[0]
        opened = {
            each.name: getattr(asked, each.name) for each in described(type(asked)) if each.name in _OPENING
        }
        merged = () if name == "before" else (str(self.adapter()),)
        music = MusicGen.load(**opened, dtype=asked.dtype, fetch=self.fetch, lora=merged)
        sound = music.generate(clip.caption, seconds=asked.seconds, seed=asked.seed, normalize=True)
        path = self.run / SAMPLES / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        sound.save(path, force=True)
        del music
        gc.collect()
        mx.clear_cache()
        self._write("sample", path=str(path))

    def end(self) -> Tuned:
        """The adapter and the page."""
        done = self.step >= self.plan.steps
        adapter = self.adapter()
        if done and not (self.run / SAMPLES / "after.wav").is_file():
            self._sample("after")
        draw_losses(self.run)
        page = self._page() if done else None
        losses = (self.first_loss, self.last_loss)
        return Tuned(self.run, adapter, page, self.step, self.plan.steps, losses, self.stop.signal)

    def _facts(self) -> dict[str, Any]:
        asked, data = self.asked, self.data
        count = len(data.train) + len(data.held_out)
        return {
            "model": str(asked.model),
            "licence of the model": _licence(str(asked.model)),
            "clips": f"{count} of up to {asked.seconds:g} s, {data.seconds / 60:.1f} min in all",
            "captions": data.sources,
            "held out": f"{len(data.held_out)} clips",
            "beside": ", ".join(asked.targets),
            "rank, alpha": f"{asked.rank}, {asked.alpha or asked.rank:g}" + ", DoRA" * asked.dora,
            "training": f"{self.step} of {self.plan.steps} updates of {asked.batch * asked.accumulate} "
            f"clips, {shown_time(self.elapsed)}, rate {self.lr:.2g}",
            "held-out loss": f"{_number(self.first_loss)} before, {_number(self.last_loss)} after",
        }

    def _card(self) -> str:
        base = _base(str(self.asked.model))
        lines = [f"- {key}: {value}" for key, value in self._facts().items()]
        return (
            f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\n---\n\n# A LoRA for {base}\n\n"
            + "\n".join(lines)
            + "\n\nWhat is made with it is under the licence of the model as well.\n"
        )

    def _page(self) -> Path:
        sounds = self.run / SAMPLES
        ordered = sorted(
            sounds.glob("*.wav"), key=lambda path: (path.stem == "after", path.stem != "before", path.stem)
        )
        clips = [Shown(_TITLES.get(path.stem, f"After {path.stem}"), path) for path in ordered]
        skips = [(skip.path, skip.message) for skip in self.data.skips]
        caption = (self.data.held_out or self.data.train)[0].caption
        sections = [
            Section("Losses", "Mean nats per code; lower is better.", picture=self.run / LOSSES),
            Section("Sounds", f"The same seed and the same words each time: {caption}", clips=clips),
            *([Section("Left out", rows=[("file", "why"), *skips])] if skips else []),
        ]
        return write_report(self.run, f"audiogen-mlx tune: {self.asked.folder.name}", self._facts(), sections)

    def _note(self, message: str) -> None:
        self._write("event", message=message)

    def _write(self, kind: str, **facts: Any) -> None:
        self.metrics.write({"kind": kind, "step": self.step, **facts})


_OPENING = ("model", "t5", "tokenizer", "codec", "mert", "threads", "unlisted")
_TITLES = {"before": "Before", "after": "When it was done"}


def _check_resumable(asked: Tuning, run: Path) -> None:
    """Keep the settings of a new run; raise OptionError when those of one that goes on are others."""
    said = {
        each.name: plain(getattr(asked, each.name))
        for each in described(Tuning)
        if each.option.role != "hidden"
    }
    path = run / CONFIG
    begun = any(run.glob(f"{checkpoints.FOLDER}/step-*"))
    if begun and not path.is_file():
        raise OptionError(f"{run}: holds a run of something else; name another folder")
    if begun:
        before = read_json(path, OptionError)
        rows = {
            key: (before.get(key), value)
            for key, value in said.items()
            if key not in FREE and before.get(key) != value
        }
        if rows:
            raise OptionError(
                f"{run}: was begun with other settings; leave them as they were, or name another folder; "
                f"{differences(rows, 'the run', 'what is asked now')}"
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(said, indent=2), encoding="utf-8")


def _turn(place: int, count: int, seed: int) -> int:
    """Which of `count` clips is in this place of an endless order in which each comes once in a round."""
    order = np.random.default_rng([seed, 7, place // count]).permutation(count)
    return int(order[place % count])


def _flat(tree: Any) -> dict[str, NDArray[Any]]:
    pairs: Any = tree_flatten(tree)
    return {name: np.array(value) for name, value in pairs}


def _base(model: str) -> str:
    """What cards and peft call a model: its repository where it has one."""
    spec = MUSICGEN.get(model)
    return spec.repo if isinstance(spec, ModelSpec) else model


def _licence(model: str) -> str:
    spec = MUSICGEN.get(model)
    return spec.license if isinstance(spec, ModelSpec | Shipped) else "see the model"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
