"""The line that shows how training goes."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from audiogen_core.cli import note, progress
from audiogen_core.progress import OnStep


class Status:
    """Shows records of metrics.jsonl on stderr: on a terminal one line that changes, else evaluations."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.steps = 0
        self._sample = ""

    def on_step(self, done: float, total: float) -> None:
        """Take note of how many updates are planned."""
        self.steps = int(total)

    def on_record(self, record: dict[str, Any]) -> None:
        """Show a record."""
        kind = record["kind"]
        if kind == "sample":
            self._sample = f", {record['path']}"
        elif kind == "train" and self.live:
            sys.stderr.write("\r\x1b[2K" + self._progress(record))
            sys.stderr.flush()
        elif kind in ("eval", "event") and not self.quiet:
            self.clear()
            note(_evaluation(record) if kind == "eval" else f"step {record['step']}: {record['message']}")

    def clear(self) -> None:
        """Take the changing line away."""
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _progress(self, record: dict[str, Any]) -> str:
        of = f"/{self.steps}" if self.steps else ""
        share, left = 100 * record["share_of_peak"], _time(record["seconds_left"])
        return (
            f"step {record['step']}{of}, loss {_number(record['loss'])} "
            f"(first codebook {_number(record['codebook_losses'][0])}), "
            f"{record['bits_per_second'] or 0:.0f} bits/s, {record['frames_per_second']:.0f} frames/s, "
            f"{share:.0f} % of peak, {left} left{self._sample}"
        )


def _evaluation(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']}: loss {_number(record['loss'])} on held-out data, "
        f"{record['bits_per_second'] or 0:.0f} bits for a second of audio"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Stages:
    """Shows the stages of a run: a bar for each, and the training line for training."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.status = Status(quiet)
        self._bar = ExitStack()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def begin(self, stage: str) -> OnStep:
        """End what was shown and show the next stage; returns its `on_step`."""
        self._end()
        if stage == "train":
            return self.status.on_step
        return self._bar.enter_context(progress(_LABELS[stage][0], unit=_LABELS[stage][1], quiet=self.quiet))

    def _end(self) -> None:
        self._bar.close()
        self.status.clear()


_LABELS = {"encode": ("encoding", "shards"), "judge": ("judging", "parts"), "sample": ("sampling", "clips")}
