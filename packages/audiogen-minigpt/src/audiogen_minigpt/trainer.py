"""One process's part in training: updates, what is done when one fails, evaluation, checkpoints.

An update is a pure function of the weights, the optimizer's state and the step's number: windows and dropout
are drawn from (seed, step), so nothing else has to be saved and a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiogen_core.sampling import Sampling
from audiogen_core.training.errors import DiskFull, Diverged
from audiogen_core.training.metrics import Metrics
from audiogen_core.training.schedule import Plan, Timing
from audiogen_core.training.signals import Stop
from audiogen_minigpt import checkpoint
from audiogen_minigpt.checkpoint import Checkpoint, load_into
from audiogen_minigpt.config import SAMPLING, ModelConfig
from audiogen_minigpt.dataset import Windows
from audiogen_minigpt.device import autocast, synchronize
from audiogen_minigpt.layout import Layout
from audiogen_minigpt.model import GPT
from audiogen_minigpt.optim import Optimizer
from audiogen_minigpt.ranks import LossModule, Ranks, accumulating, settle, spread, whole
from audiogen_minigpt.settings import TrainConfig

PATIENCE = 3
"""Updates in a row that may fail before the last checkpoint is taken up again."""

_LOGITS_LIMIT = 2**28  # numbers; what the logits of one pass may hold

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """What a checkpoint keeps beside tensors.

    elapsed  seconds of training so far, those before a restart of the process included
    lr_scale the learning rate is multiplied by this; less than 1 after a restart
    restarts how often training went back to a checkpoint because it diverged
    skipped  updates left out because something was not finite
    streak   how many of them in a row
    last_loss, judged_at  mean loss in nats on the validation data, and the step it was measured at
    lost     records in a row whose loss is far above that of guessing
    best_loss, best_step  the lowest such loss, and its step
    """

    elapsed: float = 0.0
    lr_scale: float = 1.0
    restarts: int = 0
    skipped: int = 0
    streak: int = 0
    lost: int = 0
    last_loss: float | None = None
    judged_at: int | None = None
    best_loss: float | None = None
    best_step: int | None = None


@dataclass
class Sums:
    """What is averaged between two records."""

    losses: Tensor
    counts: Tensor
    updates: int = 0
    norm: float = 0.0
    seconds: float = 0.0


class Trainer:
    """One process's part in a run.

    step        updates done
    plan        how many there will be
    progress    see `Progress`
    checkpoint  folder of the last one, in the first process; None before there is any
    metrics     the run's diary, in the first process
    timing      how long updates ("update"), judging with its sample ("judge") and saving ("save") take
    stop        whether a signal has asked to stop
    until       when a time budget ends at the latest, by the clock of `timing`
    """

    def __init__(
        self,
        config: TrainConfig,
        model_config: ModelConfig,
        windows: Windows,
        ranks: Ranks,
        device: torch.device,
        dtype: torch.dtype,
        last: Checkpoint | None = None,
        on_record: Callable[[dict[str, Any]], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timing = Timing(now)
        self.config, self.model_config, self.windows = config, model_config, windows
        self.ranks, self.device, self.dtype = ranks, device, dtype
        self.layout = Layout.from_config(model_config)
        self.metrics = Metrics(config.run, on_record) if ranks.first else None
        with torch.random.fork_rng(devices=[]):
            self.model = GPT(model_config).to(device)
        self.module = LossModule(self.model)
        self._source = last or (checkpoint.find(config.start) if config.start else None)
        self.spread = spread(self.module, ranks, shard=config.shard)
        compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
        self.call: Callable[..., tuple[Tensor, Tensor]] = (
            torch.compile(self.spread) if compiled else self.spread
        )
        self.lr = config.learning_rate(model_config)
        self.plan = Plan(1, 0, 0)
        self.restore(last)
        self.stop: Stop = Stop()
        self.until: Callable[[], float] = lambda: math.inf
        self.begin()

    def begin(self) -> None:
        """Count time and updates from now on, as part of the run."""
        self.clock = self.timing.now()
        self._began = self.step, self.progress.elapsed

    @property
    def pace(self) -> float | None:
        """Seconds from one update to the next, all that is done between them included; None before any."""
        step, elapsed = self._began
        return (self.progress.elapsed - elapsed) / (self.step - step) if self.step > step else None

    @property
    def sampling(self) -> Sampling:
        """How codes are drawn: as the checkpoint says that this goes on from, if any."""
        return self._source.sampling if self._source else SAMPLING

    def restore(self, last: Checkpoint | None) -> None:
        """Continue from a checkpoint, or from the first weights."""
        tensors = last.model_tensors() if last else self._initial()
        load_into(self.model, tensors, last.path if last else Path(self.config.run))
        self.optimizer = Optimizer(self.model, self.config.optimizer, self.lr, self.config.weight_decay)
        self.step, self.progress = 0, Progress()
        if last:
            self.optimizer.load(last.training_tensors())
            self.step, self.progress = last.step, Progress(**last.state["progress"])
        self.checkpoint = last.path if last and self.ranks.first else None
        self._saved_at = last.step if last else None
        self._clear()

    def update(self) -> bool:
        """Do one update; returns False when it was skipped because something was not finite."""
        config, began = self.config, time.perf_counter()
        self.model.train()
        torch.manual_seed(_mixed(config.seed, self.step, self.ranks.rank))  # of dropout and of `noisy`
        codes = torch.from_numpy(self.windows.train_batch(self.step, config.batch, config.seed))
        _, targets, mask = self.layout.apply(codes)
        inputs = self.layout.tokens(noisy(codes, config.noise, self.layout.codebook_size))[:, :-1]
        inputs, targets, mask = (part.to(self.device) for part in (inputs, targets, mask))
        total = self.ranks.sum(mask.sum(dtype=torch.float32))
        tallies = torch.zeros(2, self.model_config.codebooks, device=self.device)
        rows = self._rows_per_pass(len(codes))
        for start in range(0, len(codes), rows):
            part = slice(start, start + rows)
            with accumulating(self.spread, last=start + rows >= len(codes)):
                with autocast(self.device, self.dtype):
                    losses, counts = self.call(inputs[part], targets[part], mask[part])
                # Gradients are averaged over processes; times their number, it is the sum over all targets.
                torch.autograd.backward(losses.sum() * (self.ranks.world / total))
            tallies += torch.stack([losses.detach(), counts])
        self.ranks.sum(tallies)
        limit = config.clip or math.inf
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)))
        good = math.isfinite(norm) and math.isfinite(float(tallies[0].sum()))
        if good:
            self.optimizer.set_rate(self.plan.rate(self.step) * self.progress.lr_scale)
            self.optimizer.step()
            self.sums.losses += tallies[0]
            self.sums.counts += tallies[1]
            self.sums.norm += norm
            self.sums.updates += 1
        self.optimizer.zero_grad()
        self.step += 1
        self.sums.seconds += time.perf_counter() - began
        return good

    def advance(self) -> None:
        """An update, and what a failed one calls for.

        A failed update is left out. After `PATIENCE` in a row the last checkpoint is taken up again with half
        the learning rate, once; the next time Diverged is raised.
        """
        progress = self.progress
        with self.timing.part("update"):
            good = self.update()
        if good:
            progress.streak = 0
        else:
            progress.skipped += 1
            progress.streak += 1
            self.note(f"update {self.step} was skipped: the loss or its gradient is not finite")
        if progress.streak >= PATIENCE:
            self._restart()

    def evaluate(self) -> list[float] | None:
        """The mean loss of each codebook in nats on the validation windows; None when there are none."""
        self.model.eval()
        tallies = torch.zeros(2, self.model_config.codebooks, device=self.device)
        with torch.no_grad(), autocast(self.device, self.dtype):
            for batch in self.windows.val_batches(self.config.batch, self.config.eval_windows):
                codes = torch.from_numpy(batch)
                rows = self._rows_per_pass(len(codes))
                for start in range(0, len(codes), rows):
                    part = self.layout.apply(codes[start : start + rows])
                    inputs, targets, mask = (value.to(self.device) for value in part)
                    tallies += torch.stack(self.module(inputs, targets, mask))
        settle(self.module)
        self.ranks.sum(tallies)
        self.model.train()
        return None if not tallies[1].sum() else (tallies[0] / tallies[1]).tolist()

    def save(self, *, last: bool = False) -> None:
        """Write a checkpoint of this step, unless it has one, and delete those no longer needed.

        last  the run ends here: a full disk raises DiskFull in every process, where before it is noted and
              the next checkpoint tried in its turn; weights on which the last updates failed are kept, too
        """
        if self.step in (0, self._saved_at) or (self.progress.streak and not last):
            return
        self.tick()
        problem: DiskFull | None = None
        try:
            with self.timing.part("save"):
                self._write_checkpoint()
        except DiskFull as error:
            problem = error
        (full,) = self.ranks.any(problem is not None, device=self.device)
        if not full:
            self._saved_at = self.step
        elif last:
            raise problem or DiskFull(
                f"{self.config.run}: the first process had no room for the last checkpoint"
            )
        elif problem:
            log.warning("%s; training goes on, and the next checkpoint is tried in its turn", problem)
            self.note(str(problem))

    def time_steps(self, seconds: float) -> list[float]:
        """The seconds of some updates, at most about `seconds` in all; the run is then back where it was.

        The first two, which are slower, do not count, unless there is no time for a third; the first, which
        is slow by seconds, not unless one takes eight times that long. Raises Stopped.
        """
        times: list[float] = []
        enough = (math.inf, max(8 * seconds, 3.0), max(seconds, 3.0), *4 * [seconds])
        while len(times) < len(enough) and sum(times) < enough[len(times)]:
            if self.ranks.world == 1:  # else the others would wait
                self.stop.check()
            start = self.timing.now()
            self.update()
            synchronize(self.device)
            times.append(self.timing.now() - start)
        self.restore(checkpoint.newest(self.config.run))
        return times[2:] or times[-1:]

    def tick(self) -> None:
        """Bring the time spent up to date."""
        now = self.timing.now()
        self.progress.elapsed += now - self.clock
        self.clock = now

    def write(self, kind: str, **facts: Any) -> None:
        """Put a record into the diary."""
        if self.metrics:
            self.metrics.write({"kind": kind, "step": self.step, **facts})

    def note(self, message: str) -> None:
        """Put something worth knowing into the diary."""
        self.write("event", message=message)

    def take_sums(self) -> Sums:
        """What was summed since this was last called."""
        sums = self.sums
        self._clear()
        return sums

    def _restart(self) -> None:
        before, failed_at = self.progress, self.step
        if before.restarts:
            raise Diverged(
                f"{self.config.run}: {PATIENCE} updates in a row were not finite at step {failed_at}, "
                "again after a restart with half the learning rate; train anew with a lower --lr"
            )
        self.restore(checkpoint.newest(self.config.run))
        self.progress.elapsed, self.progress.skipped = before.elapsed, before.skipped
        self.progress.restarts += 1
        self.progress.lr_scale *= 0.5
        if self.metrics:
            self.metrics.truncate(self.step)
        self.note(f"not finite at step {failed_at}: back to step {self.step} with half the learning rate")

    def _write_checkpoint(self) -> None:
        """In the first process, to which the others give their shares of what is spread. Raises DiskFull."""
        model = {name: whole(value) for name, value in self.model.named_parameters()}
        training = self.optimizer.tensors()
        if not self.ranks.first:
            return
        state = {
            "model": self.model_config.to_dict(),
            "data": self.windows.facts,
            "codes": self.windows.identity,
            "config": self.config.to_dict(),
            "plan": asdict(self.plan),
            "progress": asdict(self.progress),
            "val_loss": self.progress.last_loss if self.progress.judged_at == self.step else None,
        }
        if self._source and "sampling" in self._source.state:
            state["sampling"] = self._source.state["sampling"]
        self.checkpoint = checkpoint.save(self.config.run, self.step, model, training, state)
        checkpoint.prune(self.config.run, self.config.keep, self.progress.best_step)

    def _initial(self) -> dict[str, Tensor]:
        """The first weights: those of the model to start from, or drawn from the seed.

        They are drawn on the CPU, so that they are the same on every device and rank.
        """
        if self._source:
            return {name: tensor.float() for name, tensor in self._source.model_tensors().items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return dict(GPT(self.model_config).named_parameters())

    def _rows_per_pass(self, rows: int) -> int:
        if self.config.micro_batch:
            return min(rows, self.config.micro_batch)
        each = self.model_config.context * self.layout.streams * self.model_config.codebook_size
        return max(1, min(rows, _LOGITS_LIMIT // each))

    def _clear(self) -> None:
        zeros = torch.zeros(self.model_config.codebooks, device=self.device)
        self.sums = Sums(zeros, zeros.clone())


def noisy(codes: Tensor, most: float, size: int) -> Tensor:
    """Codes (B, T, K) in which a share of each window, up to `most`, comes from other frames of the window.

    Drawn from torch's global generator. BOS frames (`size`) neither go nor come.
    """
    if not most:
        return codes
    shares = most * torch.rand(len(codes), 1, 1)
    others = codes[:, torch.randperm(codes.shape[1])]
    taken = (torch.rand(codes.shape) < shares) & (codes != size) & (others != size)
    return torch.where(taken, others, codes)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "little")
