"""Training a GPT on a folder of codes: the run from its first step to its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core.errors import OptionError
from audiogen_minigpt import checkpoint
from audiogen_minigpt.facts import check_data, read_facts
from audiogen_minigpt.lock import lock
from audiogen_minigpt.schedule import read_plan
from audiogen_minigpt.settings import TrainConfig, check_resumable, load_config

if TYPE_CHECKING:
    from audiogen_minigpt.ranks import Ranks


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    run        its folder
    step, steps  updates done, and planned
    loss       mean loss in nats of the last validation, or None without validation data
    best_step  the step with the lowest such loss
    checkpoint the last checkpoint
    signal     the signal that stopped it, or None
    ran        updates done by this call; 0 when the run was finished already
    """

    run: Path
    step: int
    steps: int
    loss: float | None
    best_step: int | None
    checkpoint: Path | None
    signal: int | None
    ran: int

    @property
    def finished(self) -> bool:
        """Whether all planned updates are done."""
        return self.step >= self.steps


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    on_step: Callable[[int, int], None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train, or go on training; checkpoints, metrics.jsonl and samples are left in the run's folder.

    config     what to train; `config.run` is made where it is missing
    resume     go on with the run in `config.run`; without it a folder that holds a run is refused
    on_step    called with (updates done, updates planned)
    on_record  called with each record of metrics.jsonl; see `metrics`

    Started by torchrun, this is one of its processes and the result is the same in all; the global batch does
    not depend on how many there are. SIGINT and SIGTERM end the run after the current update, with a
    checkpoint.

    Raises OptionError for settings that do not fit the data or the run, CodesError for damaged data,
    ModelError for damaged checkpoints, Diverged, and DiskFull when the last checkpoint cannot be written.
    """
    if resume:
        done = finished(config)
        if done is not None:
            return done
    import torch

    from audiogen_minigpt.device import choose_device, choose_dtype
    from audiogen_minigpt.ranks import Ranks, joined
    from audiogen_minigpt.session import Session
    from audiogen_minigpt.signals import stopping

    ranks = Ranks.from_environment()
    device = choose_device(config.device, ranks.local)
    dtype = choose_dtype(config.dtype, device)
    cuda = [device] if device.type == "cuda" else []
    with _held(config, resume, ranks), joined(ranks, device), stopping() as stop, torch.random.fork_rng(cuda):
        session = Session(config, ranks, device, dtype, stop, on_step, on_record)
        began_at = session.trainer.step
        session.go()
        return TrainResult(
            run=Path(config.run),
            step=session.trainer.step,
            steps=session.trainer.plan.steps,
            loss=session.loss,
            best_step=session.trainer.progress.best_step,
            checkpoint=session.folder,
            signal=stop.signal,
            ran=session.trainer.step - began_at,
        )


def finished(config: TrainConfig) -> TrainResult | None:
    """How the run in `config.run` ended, when it has done all that is asked of it; else None.

    Raises OptionError for settings that do not fit the run or the data.
    """
    before, plan = load_config(config.run), read_plan(config.run, config.asked)
    found = checkpoint.newest(config.run) if before and plan else None
    if before is None or plan is None or found is None or found.step < plan.steps:
        return None
    check_resumable(before, config if config.model else replace(config, model=before.model))
    check_data(config.run, found.facts, config.data, read_facts(config.data))
    progress = found.state["progress"]
    return TrainResult(
        run=Path(config.run),
        step=found.step,
        steps=plan.steps,
        loss=progress["last_loss"],
        best_step=progress["best_step"],
        checkpoint=found.path,
        signal=None,
        ran=0,
    )


@contextmanager
def _held(config: TrainConfig, resume: bool, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder, in the first process only; refuse one that holds a run unless it is resumed."""
    if not ranks.first:
        yield
        return
    run = Path(config.run)
    run.mkdir(parents=True, exist_ok=True)
    with lock(run):
        if not resume and (load_config(run) or checkpoint.listed(run)):
            raise OptionError(f"{run}: this folder holds a run already; resume it, or choose another folder")
        checkpoint.clean(run)
        yield
