"""A command that encodes a folder: how it is shown, and what is told of the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiogen_core import cli
from audiogen_core.dataset.options import Coder, Division, Preparation

if TYPE_CHECKING:
    from audiogen_core.jobs import Shown
    from audiogen_core.models import Fetch


def carry_out(
    folder: Path,
    output: Path | None,
    coder: Coder,
    preparation: Preparation,
    division: Division,
    fetch: Fetch,
    shown: Shown,
) -> None:
    """Encode a folder, or go on with it, and tell what there is now.

    output  None: here, named after the folder
    """
    from audiogen_core.dataset.encode import encode, some, verify

    output = output or Path(f"{folder.resolve().name}-codes")
    with cli.progress("encoding", unit="shards", quiet=shown.quiet or shown.json) as on_step:
        report = encode(
            folder,
            output,
            codec=coder.codec,
            ops=coder.on,
            engine=division.engine,
            workers=division.workers,
            options=preparation,
            val_permille=division.val_permille,
            split_by=division.split_by,
            fetch=fetch,
            on_step=on_step,
        )
    if division.verify:
        cli.note(f"checked: {verify(output)} frames are as they were written")
    if report.skips:
        named = some([f"{skip.path} ({skip.why})" for skip in report.skips])
        cli.note(f"{len(report.skips)} left out: {named}; more of that in {output / 'report.jsonl'}")
    if report.tails:
        cli.note("held out: the last tenth of the music, for there is nothing else to hold out")
    if report.captions:
        cli.note(f"captions: {report.captions}; they are in {output / 'captions.jsonl'}")
    if shown.json:
        facts: dict[str, Any] = {"path": str(output), "tracks": report.tracks, "seconds": report.seconds}
        facts |= {"val_seconds": report.val_seconds, "left_out": len(report.skips)}
        facts["captions"] = report.captions
        cli.emit(facts | {kind: len(paths) for kind, paths in vars(report.changes).items()}, json=True)
    else:
        cli.say(str(output))
