"""Training a GPT on a folder of codes: the run from its first step to its last checkpoint.

`train` is the loop: set up, then update, record, judge and save until the plan is done or a signal comes.
`trainer.Trainer` is what one process does in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from audiogen_core.dataset.shards import Meta, identity
from audiogen_core.errors import OptionError
from audiogen_core.files import require_room
from audiogen_core.models import Fetch
from audiogen_core.times import shown_time
from audiogen_core.training.lock import lock
from audiogen_core.training.metrics import bits_per_second
from audiogen_core.training.schedule import Plan, read_plan, write_plan
from audiogen_core.values import closed
from audiogen_minigpt import checkpoint
from audiogen_minigpt.checkpoint import Checkpoint
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.dataset import Dataset, Windows, check_data
from audiogen_minigpt.settings import (
    Settings,
    TrainConfig,
    check_model,
    check_resumable,
    load_config,
    save_config,
)

if TYPE_CHECKING:
    from audiogen_core.training.signals import Stop
    from audiogen_minigpt.clips import Samples
    from audiogen_minigpt.ranks import Ranks
    from audiogen_minigpt.trainer import Trainer

FAR = 1.5
"""Times the loss of guessing: above that a model has not just learned little, its rate throws it about."""

FEW = 4
"""Batches of data below which a model sees nothing but the same again."""


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    run        its folder
    step, steps  updates done, and planned; 0 are planned when a signal came before there was a plan
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
        return self.step >= self.steps > 0


@closed()
def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    new_data: bool = False,
    until: Callable[[], float] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    fetch: Fetch | None = None,
    now: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train, or go on training; checkpoints, metrics.jsonl and samples are left in the run's folder.

    config     what to train; `config.run` is made where it is missing
    resume     go on with the run in `config.run`; without it a folder that holds a run is refused
    new_data   a run that is resumed may go on with other codes than it had so far; its diary tells
    until      tells when a time budget ends at the latest, by `now`: all that comes before the first update
               is then part of it. It may tell something else from update to update
    on_step    called with (updates done, updates planned)
    on_record  called with each record of metrics.jsonl; see `metrics`
    fetch      how the codec of the samples comes where it is not here; see `audiogen_core.codecs.load`
    now        tells the time in seconds

    Within a time budget no update is begun that would not be done, judged and saved at its end, as far as the
    updates, judgements and checkpoints before tell; but there is one update at least.

    Started by torchrun, this is one of its processes and the result is the same in all; the global batch does
    not depend on how many there are. SIGINT and SIGTERM end the run after the current update, with a
    checkpoint.

    Raises OptionError for settings that do not fit the data or the run, and for other data than a resumed run
    had; CodesError for data that is damaged, or changes while it is read; ModelError for damaged checkpoints,
    Diverged, and DiskFull when the last checkpoint cannot be written.
    """
    if resume and (result := finished(config, new_data)) is not None:
        return result
    # Torch and all that needs it is imported from here on: a run that is finished is told at once.
    import torch

    from audiogen_core.training.pictures import draw_losses
    from audiogen_core.training.signals import Stopped, stopping
    from audiogen_minigpt.clips import Samples
    from audiogen_minigpt.device import choose_device, choose_dtype, peak_flops
    from audiogen_minigpt.layout import Layout
    from audiogen_minigpt.ranks import Ranks, joined
    from audiogen_minigpt.trainer import Trainer

    ranks = Ranks.from_environment()
    device = choose_device(config.device, ranks.local)
    dtype = choose_dtype(config.dtype, device)
    cuda = [device] if device.type == "cuda" else []
    with stopping() as stop, _held(config, resume, ranks), joined(ranks, device), torch.random.fork_rng(cuda):
        # Set up: the data, the model and its optimizer where the last checkpoint left them, the plan.
        config, model = _resolved(config, ranks)
        frames = Layout.from_config(model).window(model.context)
        windows = Windows(config.data, model.codebooks, frames, rank=ranks.rank, world=ranks.world)
        last = checkpoint.newest(config.run)
        if last:
            check_data(config.run, last.facts, config.data, windows.facts)
        changed = last is not None and _other_codes(last, config, windows.identity, new_data)
        if last is None and config.start:
            started = checkpoint.find(config.start)
            check_data(config.start, started.facts, config.data, windows.facts)
        trainer = Trainer(config, model, windows, ranks, device, dtype, last, on_record, now)
        if ranks.first:  # a checkpoint is the weights and two numbers of the optimizer for each of them
            weights = sum(one.numel() * one.element_size() for one in trainer.model.parameters())
            require_room(Path(config.run) / checkpoint.FOLDER, 3 * weights)
        peak = peak_flops(device, dtype) * ranks.world
        samples = Samples(config, windows, fetch, trainer.sampling) if ranks.first else None
        if ranks.first:
            save_config(config)
        if trainer.metrics:
            # Of what a killed run had done since its last checkpoint.
            trainer.metrics.truncate(trainer.step if last else -1)
        if changed:
            trainer.note(f"goes on with other codes, those in {config.data}: {windows.train.seconds:.0f} s")
        if last is None:
            _note_little_data(trainer)
        trainer.stop, trainer.until = stop, until or trainer.until
        try:
            if last is None and ranks.world == 1:
                stop.check()
            if last is None and config.start:
                _evaluate(trainer)  # what it knows of this music already
            trainer.plan = _planned(trainer)
        except Stopped:
            return _result(trainer, 0, stop, ran=0)
        judge_every = config.eval_every or _interval(config, trainer.plan)
        save_every = config.save_every or judge_every
        began_at = trainer.step
        trainer.begin()  # the steps that were timed for the plan are no part of the run

        # Train: update, record, judge, save, until the plan is done or a signal comes.
        while trainer.step < trainer.plan.steps and not _asked_to_stop(trainer, stop):
            trainer.advance()
            step = trainer.step
            if step % config.log_every == 0:
                _record(trainer, peak)
            if step % judge_every == 0:
                _judge(trainer, samples)
            if step % save_every == 0:
                trainer.save()
            trainer.tick()
            if on_step:
                on_step(step, trainer.plan.steps)
        if trainer.step >= trainer.plan.steps and trainer.step != began_at:  # sooner, perhaps, than it knew
            _record(trainer, peak)
            if trainer.step % judge_every:
                _judge(trainer, samples)
        trainer.save(last=True)
        if ranks.first and trainer.step != began_at:
            draw_losses(config.run)
        return _result(trainer, trainer.plan.steps, stop, trainer.step - began_at)


def _result(trainer: Trainer, steps: int, stop: Stop, ran: int) -> TrainResult:
    return TrainResult(
        run=Path(trainer.config.run),
        step=trainer.step,
        steps=steps,
        loss=trainer.progress.last_loss,
        best_step=trainer.progress.best_step,
        checkpoint=trainer.checkpoint,
        signal=stop.signal,
        ran=ran,
    )


def finished(config: TrainConfig, new_data: bool = False) -> TrainResult | None:
    """How the run in `config.run` ended, when it has done all that is asked of it; else None.

    Raises OptionError for settings that do not fit the run or the data, and for other data unless `new_data`.
    """
    before, plan = load_config(config.run), read_plan(config.run, config.goal)
    last = checkpoint.newest(config.run) if before and plan else None
    if before is None or plan is None or last is None or last.step < plan.steps:
        return None
    check_resumable(before, config if config.model else replace(config, model=before.model))
    check_data(config.run, last.facts, config.data, Meta.load(config.data).facts)
    splits = [Dataset.open(config.data, split=split) for split in ("train", "val")]
    _other_codes(last, config, identity(track for part in splits for track in part.tracks), new_data)
    progress = last.state["progress"]
    return TrainResult(
        run=Path(config.run),
        step=last.step,
        steps=plan.steps,
        loss=progress["last_loss"],
        best_step=progress["best_step"],
        checkpoint=last.path,
        signal=None,
        ran=0,
    )


def _other_codes(last: Checkpoint, config: TrainConfig, codes: str, allowed: bool) -> bool:
    """Whether the data is not what a run has been trained on. Raises OptionError when that is not allowed."""
    other = bool(last.state.get("codes", codes) != codes)  # release 0.1.0 did not keep it
    if other and not allowed:
        raise OptionError(
            f"{config.data}: other codes than {config.run} was trained on so far; resume it with those, or "
            "allow these with --new-data"
        )
    return other


@contextmanager
def _held(config: TrainConfig, resume: bool, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder, in the first process only; refuse one that holds a run unless it is resumed."""
    if not ranks.first:
        yield
        return
    run = Path(config.run)
    require_room(run / "config.json")
    run.mkdir(parents=True, exist_ok=True)
    with lock(run):
        if not resume and (load_config(run) or checkpoint.listed(run)):
            raise OptionError(f"{run}: this folder holds a run already; resume it, or choose another folder")
        checkpoint.clean(run)
        yield


def _resolved(config: TrainConfig, ranks: Ranks) -> tuple[TrainConfig, ModelConfig]:
    """The config with its model, and that; checked against the data, and against the run that is resumed."""
    facts = Meta.load(config.data).facts
    started = checkpoint.find(config.start).config if config.start else None
    model = config.model or started or Settings().model(facts)
    check_model(model, facts)
    config = replace(config, model=model)
    if config.batch % ranks.world:
        raise OptionError(f"a batch of {config.batch} cannot be shared equally by {ranks.world} processes")
    before = load_config(config.run) if ranks.first else None
    if before is not None:
        check_resumable(before, config)
    return config, model


def _planned(trainer: Trainer) -> Plan:
    """The stored plan where the same was asked for, else a new one, stored at once.

    With a time budget some updates are timed first; the first process's verdict holds for all.
    """
    config, up, down = trainer.config, trainer.config.warmup, trainer.config.cooldown
    plan = read_plan(config.run, config.goal)
    if plan is None and config.steps is not None:
        plan = Plan.of(config.steps, up, down)
    elif plan is None:
        times = trainer.time_steps(min(30.0, 0.03 * (config.budget or 0.0)))
        left = max(0.0, _left(trainer))
        more = trainer.ranks.agree(Plan.in_time(left, times, up, down).steps, trainer.device)
        plan = Plan.of(trainer.step + more, up, down)
        fit = "1 update fits" if more == 1 else f"{more} updates fit"
        trainer.note(f"about {fit} into {shown_time(left)}, at {median(times):.2g} s each")
    if trainer.ranks.first:
        write_plan(config.run, config.goal, plan)
    return plan


def _interval(config: TrainConfig, plan: Plan) -> int:
    """Steps between evaluations: a tenth of the run, but no more than one for each minute of a budget."""
    parts = 10 if config.steps is not None else min(10, max(2, round((config.budget or 0.0) / 60)))
    return max(1, min(1000, plan.steps // parts))


def _asked_to_stop(trainer: Trainer, stop: Stop) -> bool:
    """Whether any process was asked to stop. Ends the plan sooner, or now, when time is running out."""
    plan, step, fit = trainer.plan, trainer.step, _fitting(trainer)
    late = fit is not None and (fit == 0 or plan.late(step, fit))
    asked, late = trainer.ranks.any(stop.signal is not None, late, device=trainer.device)
    if late and not asked:
        fit = trainer.ranks.agree(fit or 0, trainer.device)
        trainer.plan = plan.cool_from(step, plan.cut(step, fit) if fit else 0)
        falling = plan.steps - step <= plan.cooldown
        told = "the rate falls faster" if falling else "the cool-down begins early"
        told = told if fit else "there is no time for another update"
        trainer.note(f"slower than planned: {told}, {trainer.plan.steps} steps in all")
        if trainer.ranks.first:
            write_plan(trainer.config.run, trainer.config.goal, trainer.plan)
    return asked or trainer.step >= trainer.plan.steps


def _fitting(trainer: Trainer) -> int | None:
    """How many updates fit into the time that is left; None where it has no limit, or nobody can tell yet."""
    if trainer.config.steps is not None or trainer.pace is None:
        return None
    left = _left(trainer) - trainer.timing.usual("judge", "save")
    if left < trainer.timing.usual("update"):
        return 0
    return max(1, int(left / trainer.pace))


def _left(trainer: Trainer) -> float:
    """Seconds of the time budget that are left, with what the end needs."""
    of_training = (trainer.config.budget or 0.0) - trainer.progress.elapsed
    return min(of_training, trainer.until() - trainer.timing.now())


def _note_little_data(trainer: Trainer) -> None:
    """Tell when there is too little to learn from."""
    train, window, batch = trainer.windows.train, trainer.windows.frames, trainer.config.batch
    batches = train.length / (window * batch)
    if batches < FEW:
        amount = "less than one window" if train.length < window else f"{batches:.1f} batches"
        trainer.note(
            f"there are {train.seconds:.1f} s to train on, {amount}: the model will know them by heart and "
            "little else; encode more audio"
        )


def _record(trainer: Trainer, peak: float) -> None:
    """Put the means since the last record into the diary. `peak` in floating point operations per second."""
    config, windows, sums = trainer.config, trainer.windows, trainer.take_sums()
    if not sums.updates:
        return
    losses = (sums.losses / sums.counts).tolist()
    mean, guessing = sum(losses) / len(losses), math.log(trainer.model_config.codebook_size)
    positions = sums.updates * config.batch * trainer.model_config.context / sums.seconds
    frames = sums.updates * config.batch * windows.frames / sums.seconds
    trainer.write(
        "train",
        loss=mean,
        codebook_losses=losses,
        bits_per_second=bits_per_second(losses, windows.frame_rate),
        lr=trainer.lr * trainer.plan.rate(trainer.step - 1) * trainer.progress.lr_scale,
        gradient_norm=sums.norm / sums.updates,
        frames_per_second=frames,
        audio_seconds_per_second=frames / windows.frame_rate,
        share_of_peak=positions * trainer.model.flops_per_token() / peak,
        seconds_left=(trainer.plan.steps - trainer.step) * (trainer.pace or 0.0),
        elapsed=trainer.progress.elapsed,
    )
    lost = trainer.progress.lost = trainer.progress.lost + 1 if mean > FAR * guessing else 0
    if lost == 2 or (lost == 1 and trainer.step >= trainer.plan.steps):
        trainer.note(
            f"the loss is {mean:.1f}, where guessing costs {guessing:.1f}: this is not learning; train anew "
            "with a lower --lr"
        )


def _evaluate(trainer: Trainer) -> float | None:
    """The mean loss in nats on the validation data, put into the diary; None when there is none."""
    began = trainer.timing.now()
    losses = trainer.evaluate()
    took = trainer.timing.now() - began
    if losses is None:
        return None
    mean = sum(losses) / len(losses)
    bits = bits_per_second(losses, trainer.windows.frame_rate)
    trainer.write("eval", loss=mean, codebook_losses=losses, bits_per_second=bits, seconds=took)
    return mean


def _judge(trainer: Trainer, samples: Samples | None) -> None:
    """Evaluate, keep the best, and make a sample, for which there may be no time."""
    with trainer.timing.part("judge"):
        progress, mean = trainer.progress, _evaluate(trainer)
        if mean is not None:
            progress.last_loss, progress.judged_at = mean, trainer.step
            if progress.best_loss is None or mean < progress.best_loss:
                progress.best_loss, progress.best_step = mean, trainer.step
                trainer.save()
        sampled = trainer.timing.now()
        over = trainer.config.steps is None and _left(trainer) <= 0
        sample = samples.make(trainer.model, trainer.step) if samples and not over else None
        if sample:
            trainer.write("sample", path=str(sample), seconds=trainer.timing.now() - sampled)
