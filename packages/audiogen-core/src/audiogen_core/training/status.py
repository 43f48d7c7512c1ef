"""The line that shows how training goes, and the bars of a run's other stages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from audiogen_core.cli import note, progress
from audiogen_core.progress import OnStep
from audiogen_core.training import metrics


class Status:
    """Shows records of metrics.jsonl on stderr: on a terminal in one line that changes, else now and then."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.steps = 0
        self._first: float | None = None
        self._told = 0

    def on_step(self, done: float, total: float) -> None:
        """Take note of how many updates are planned."""
        self.steps = int(total)

    def begin(self, before: Sequence[Mapping[str, Any]]) -> None:
        """Take note of the loss that a run began with, of the records that it has."""
        self._first = next((record["loss"] for record in before if record["kind"] == "train"), None)

    def on_record(self, record: dict[str, Any]) -> None:
        """Show a record."""
        kind = record["kind"]
        if kind == "train":
            self._training(record)
        elif self.quiet:
            return
        elif kind == "sample":
            wrong = "; ".join(record.get("faults", ()))
            self._line(f"  hear it: {record['path']}" + (f"; CHECK: {wrong}" if wrong else ""))
        elif kind == "eval":
            self._line(_evaluation(record))
        else:
            self._line(f"step {record['step']}: {record['message']}")

    def clear(self) -> None:
        """Take the changing line away."""
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        self.clear()
        note(text)

    def _training(self, record: dict[str, Any]) -> None:
        """Show how training goes: always on a terminal, elsewhere each time that a tenth more is done."""
        if self._first is None:
            self._first = record["loss"]
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[2K" + self._progress(record)[:width])
            sys.stderr.flush()
        elif not self.quiet and self.steps and record["step"] * 10 // self.steps > self._told:
            self._told = record["step"] * 10 // self.steps
            note(self._progress(record))

    def _progress(self, record: dict[str, Any]) -> str:
        of = f"/{self.steps}" if self.steps else ""
        parts = [
            f"step {record['step']}{of}",
            f"{_time(record['seconds_left'])} left",
            f"loss {_number(record['loss'])} (began at {_number(self._first)})",
        ]
        if "bits_per_second" in record:
            parts.append(f"{record['bits_per_second'] or 0:.0f} bits/s")
        if "frames_per_second" in record:
            parts.append(f"{record['frames_per_second']:.0f} frames/s")
        if "share_of_peak" in record:
            parts.append(f"{100 * record['share_of_peak']:.0f} % of peak")
        return ", ".join(parts)


def _evaluation(record: dict[str, Any]) -> str:
    text = f"step {record['step']}: loss {_number(record['loss'])} on held-out data"
    if "bits_per_second" in record:
        text += f", {record['bits_per_second'] or 0:.0f} bits for a second of audio"
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Stages:
    """Shows the stages of a run: a bar for each, and the training line for training.

    labels  of the stages that have bars: what is shown, and the unit
    run     whose diary says where its losses began, for one that goes on
    """

    def __init__(
        self, labels: Mapping[str, tuple[str, str]], quiet: bool = False, run: Path | None = None
    ) -> None:
        self.labels, self.quiet, self.run = labels, quiet, run
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
            if self.run is not None:
                self.status.begin(metrics.read(self.run))
            return self.status.on_step
        label, unit = self.labels[stage]
        return self._bar.enter_context(progress(label, unit=unit, quiet=self.quiet))

    def tell(self, text: str) -> None:
        """A sentence of its own, beside what is shown."""
        self.status.clear()
        if not self.quiet:
            note(text)

    def _end(self) -> None:
        self._bar.close()
        self.status.clear()
