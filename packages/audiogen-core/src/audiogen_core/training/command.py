"""The command `tune`, the same for all packages: what is learned from, how it goes, what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from audiogen_core import cli, commands
from audiogen_core.jobs import Job, Writing
from audiogen_core.options import Described, option
from audiogen_core.training.options import Tuning

if TYPE_CHECKING:
    from audiogen_core.training.tuning import Tuned

Asked = TypeVar("Asked", bound=Tuning)


@dataclass(frozen=True, kw_only=True)
class Into(Described):
    """Where `tune` puts its run."""

    output: Annotated[
        Path | None, option("Folder of the run; FOLDER-tuned, here, when absent.", "-o", metavar="RUN")
    ] = None
    dry_run: Annotated[bool, option("Show what would be done, and stop.")] = False


def carry_out(
    tune: Callable[..., Tuned],
    job: Job,
    asked: Asked,
    writing: Writing,
    into: Into,
    *,
    unlisted: bool,
    use: str,
    captioned: bool = True,
) -> None:
    """Tune, shown as it goes.

    job        that makes sound with such models
    use        what to type with what was learned, with ADAPTER for its place
    captioned  whether the model reads captions
    """
    run = into.output or Path(f"{asked.folder.resolve().name}-tuned")
    if into.dry_run:
        from audiogen_core.training.tuning import preview

        cli.emit(preview(asked, run, captioned=captioned), json=writing.json)
        return
    from audiogen_core.training.signals import ANSWER, stopping
    from audiogen_core.training.status import Stages

    silent = writing.quiet or writing.json
    with (
        stopping(None if silent else ANSWER),
        Stages({"encode": ("encoding", "files")}, silent, run) as stages,
        commands.hinting(job, vars(asked).get("model")),
    ):
        fetch = commands.fetching(writing.offline, silent, unlisted)
        made = tune(
            asked,
            run,
            fetch=fetch,
            on_stage=stages.begin,
            on_record=stages.status.on_record,
            notify=None if silent else stages.tell,
        )
    if made.adapter is not None and not silent:
        cli.note(made.verdict)
        page = f"page: {made.page}; " if made.page else ""
        cli.note(f"{page}use it with {use.replace('ADAPTER', str(made.adapter))}")
    if made.signal is not None and not silent:
        of = f" after {made.step} of {made.steps} updates" if made.steps else ""
        cli.note(f"stopped{of}; the same command goes on from here")
    if writing.json:
        before, after = made.losses
        told: dict[str, Any] = {
            "path": str(made.adapter),
            "page": made.page and str(made.page),
            "step": made.step,
            "steps": made.steps,
            "loss_before": before,
            "loss_after": after,
            "verdict": made.verdict,
            "faults": made.faults,
        }
        cli.emit(told, json=True)
    elif made.adapter is not None:
        cli.say(str(made.adapter))
    if made.signal is not None:
        raise SystemExit(128 + made.signal)
