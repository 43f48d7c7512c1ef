"""A training run while it is going on: when to record, judge, sample and save."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audiogen_core.errors import OptionError
from audiogen_minigpt import checkpoint
from audiogen_minigpt.device import peak_flops
from audiogen_minigpt.errors import DiskFull
from audiogen_minigpt.facts import check_data, read_facts
from audiogen_minigpt.metrics import bits_per_second
from audiogen_minigpt.pictures import draw_losses
from audiogen_minigpt.ranks import Ranks
from audiogen_minigpt.samples import Samples
from audiogen_minigpt.schedule import Plan, read_plan, write_plan
from audiogen_minigpt.settings import (
    Settings,
    TrainConfig,
    check_model,
    check_resumable,
    load_config,
    save_config,
)
from audiogen_minigpt.signals import Stop
from audiogen_minigpt.trainer import Trainer
from audiogen_minigpt.windows import Windows

OVERTIME = 1.15
"""How much longer than planned the steady part may take before the cool-down begins early."""

OnStep = Callable[[int, int], None]
OnRecord = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


class Session:
    """One process's view of a run, from the state on the disk to the last checkpoint.

    trainer  the updates
    loss     mean loss in nats of the last validation, or None
    folder   the last checkpoint, or None
    """

    def __init__(
        self,
        config: TrainConfig,
        ranks: Ranks,
        device: torch.device,
        dtype: torch.dtype,
        stop: Stop,
        on_step: OnStep | None,
        on_record: OnRecord | None,
    ) -> None:
        self.ranks, self.stop, self.on_step, self.on_record = ranks, stop, on_step, on_record
        self.config = config = self._resolved(config)
        found = checkpoint.newest(config.run)
        if found:
            check_data(config.run, found.facts, config.data, self.windows.facts)
        self.trainer = Trainer(config, self.model_config, self.windows, ranks, device, dtype)
        self.trainer.restore(found)
        self.saved_at = self.trainer.step if found else None
        self.folder: Path | None = found.path if found else None
        self.peak = peak_flops(device, dtype) * ranks.world
        self.samples = Samples(config, self.windows) if ranks.first else None
        if ranks.first:
            save_config(config)
        if self.trainer.metrics:
            self.trainer.metrics.truncate(self.trainer.step)
        self.trainer.plan = self._plan()
        self.clock = time.perf_counter()

    def go(self) -> None:
        """Train until the plan is done or a signal comes, and leave a checkpoint."""
        trainer, config = self.trainer, self.config
        began_at = trainer.step
        judge = self._interval(config.eval_every)
        save = self._interval(config.save_every or config.eval_every)
        while trainer.step < trainer.plan.steps and not self._asked_to_stop():
            trainer.advance()
            step, done = trainer.step, trainer.step >= trainer.plan.steps
            if step % config.log_every == 0 or done:
                self._record()
            if step % judge == 0 or done:
                self._judge()
            if step % save == 0:
                self._save(last=False)
            self._tick()
            if self.on_step:
                self.on_step(step, trainer.plan.steps)
        self._save(last=True)
        if self.ranks.first and trainer.step != began_at:
            draw_losses(config.run)

    @property
    def loss(self) -> float | None:
        """Mean loss in nats of the last validation, or None."""
        return self.trainer.progress.last_loss

    def _resolved(self, config: TrainConfig) -> TrainConfig:
        """The config with its model; checked against the data, and against the run that is resumed."""
        facts = read_facts(config.data)
        model = config.model or Settings().model(facts)
        check_model(model, facts)
        config = replace(config, model=model)
        self.model_config, self.windows = model, Windows(config.data, model)
        if config.batch % self.ranks.world:
            raise OptionError(
                f"a batch of {config.batch} cannot be shared equally by {self.ranks.world} processes"
            )
        before = load_config(config.run) if self.ranks.first else None
        if before is not None:
            check_resumable(before, config)
        return config

    def _plan(self) -> Plan:
        """The stored plan where the same was asked for, else a new one, stored at once.

        With a time budget some updates are timed first; the first process's verdict holds for all.
        """
        config, trainer = self.config, self.trainer
        up, down = config.warmup, config.cooldown
        plan = read_plan(config.run, config.asked)
        if plan is None and config.steps is not None:
            plan = Plan.of(config.steps, up, down)
        elif plan is None:
            budget = config.budget or 0.0
            times = trainer.time_steps(min(30.0, 0.03 * budget))
            more = Plan.in_time(max(0.0, budget - trainer.progress.elapsed), times, up, down)
            steps = self.ranks.broadcast(torch.tensor([more.steps], device=trainer.device))
            plan = Plan.of(trainer.step + int(steps), up, down)
        if self.ranks.first:
            write_plan(config.run, config.asked, plan)
        return plan

    def _interval(self, given: int) -> int:
        """Steps between evaluations: a tenth of the run, but no more than one for each minute of a budget."""
        config = self.config
        parts = 10 if config.steps is not None else min(10, max(2, round((config.budget or 0.0) / 60)))
        return given or max(1, min(1000, self.trainer.plan.steps // parts))

    def _tick(self) -> None:
        """Bring the time spent up to date."""
        now = time.perf_counter()
        self.trainer.progress.elapsed += now - self.clock
        self.clock = now

    def _asked_to_stop(self) -> bool:
        """Whether any process was asked to stop. Begins the cool-down when time is running out."""
        trainer, plan = self.trainer, self.trainer.plan
        asked = self.stop.signal is not None
        late = False
        if self.config.steps is None and plan.warmup < trainer.step < plan.steps - plan.cooldown:
            steady = (plan.steps - plan.cooldown) / plan.steps
            late = trainer.progress.elapsed > OVERTIME * steady * (self.config.budget or 0.0)
        if self.ranks.world > 1:
            flags = torch.tensor([asked, late], dtype=torch.float32, device=trainer.device)
            asked, late = (bool(flag) for flag in self.ranks.sum(flags))
        if late and not asked:
            self._cool_early()
        return asked

    def _cool_early(self) -> None:
        trainer, plan = self.trainer, self.trainer.plan
        share = plan.cooldown / max(1, plan.steps - plan.cooldown)
        trainer.plan = plan.cool_from(trainer.step, max(1, round(trainer.step * share)))
        self._note(f"slower than planned: the cool-down begins early, {trainer.plan.steps} steps in all")
        if self.ranks.first:
            write_plan(self.config.run, self.config.asked, trainer.plan)

    def _record(self) -> None:
        trainer, config, windows = self.trainer, self.config, self.windows
        sums = trainer.take_sums()
        if not sums.updates:
            return
        losses = (sums.losses / sums.counts).tolist()
        positions = sums.updates * config.batch * trainer.model_config.context / sums.seconds
        frames = sums.updates * config.batch * windows.frames / sums.seconds
        self._write(
            {
                "kind": "train",
                "step": trainer.step,
                "loss": sum(losses) / len(losses),
                "codebook_losses": losses,
                "bits_per_second": bits_per_second(losses, windows.frame_rate),
                "lr": trainer.lr * trainer.plan.rate(trainer.step - 1) * trainer.progress.lr_scale,
                "gradient_norm": sums.norm / sums.updates,
                "frames_per_second": frames,
                "audio_seconds_per_second": frames / windows.frame_rate,
                "share_of_peak": positions * trainer.model.flops_per_token() / self.peak,
                "seconds_left": (trainer.plan.steps - trainer.step) * sums.seconds / sums.updates,
                "elapsed": trainer.progress.elapsed,
            }
        )

    def _judge(self) -> None:
        """Evaluate, keep the best, and make samples."""
        trainer, progress = self.trainer, self.trainer.progress
        losses = trainer.evaluate()
        if losses is not None:
            mean = sum(losses) / len(losses)
            bits = bits_per_second(losses, self.windows.frame_rate)
            record = {"loss": mean, "codebook_losses": losses, "bits_per_second": bits}
            self._write({"kind": "eval", "step": trainer.step, **record})
            progress.last_loss, progress.judged_at = mean, trainer.step
            if progress.best_loss is None or mean < progress.best_loss:
                progress.best_loss, progress.best_step = mean, trainer.step
                self._save(last=False)
        sample = self.samples.make(trainer.model, trainer.step) if self.samples else None
        if sample:
            self._write({"kind": "sample", "step": trainer.step, "path": str(sample)})

    def _save(self, last: bool) -> None:
        trainer = self.trainer
        if trainer.step in (0, self.saved_at) or (trainer.progress.streak and not last):
            return
        self._tick()
        problem: DiskFull | None = None
        try:
            self.folder = trainer.save()
        except DiskFull as error:
            problem = error
        failed = torch.tensor([problem is not None], dtype=torch.float32, device=trainer.device)
        if not self.ranks.sum(failed).item():
            self.saved_at = trainer.step
            return
        if last:
            raise problem or DiskFull(
                f"{self.config.run}: the first process had no room for the last checkpoint"
            )
        if problem:
            log.warning("%s; training goes on, and the next checkpoint is tried in its turn", problem)
            self._note(str(problem))

    def _note(self, message: str) -> None:
        self._write({"kind": "event", "step": self.trainer.step, "message": message})

    def _write(self, record: dict[str, Any]) -> None:
        if self.trainer.metrics:
            self.trainer.metrics.write(record)
        if self.on_record and self.ranks.first:
            self.on_record(record)
