"""The diary of a run: metrics.jsonl, one JSON object on each line.

Every record has "kind" and "step". Kinds: "train" (means since the record before), "eval" (on validation
data), "sample" (the "path" of a clip made by the way, and its "faults" where it was checked), "event"
(something worth knowing, in "message").
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audiogen_core.files import atomic_path, require_regular
from audiogen_core.training.errors import means_full

NAME = "metrics.jsonl"

_LARGEST = 1 << 28  # bytes of a diary that are read

log = logging.getLogger(__name__)


class Metrics:
    """Appends records to a run's diary. A full disk is reported once and does not stop the run.

    on_record  called with each record
    """

    def __init__(self, run: str | Path, on_record: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path = Path(run) / NAME
        self.on_record = on_record
        self._warned = False

    def write(self, record: dict[str, Any]) -> None:
        """Append one record. Values that are not finite become null."""
        line = json.dumps(_plain(record)) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if not means_full(error):
                raise
            if not self._warned:
                log.warning("%s: the disk is full; records are being lost", self.path)
            self._warned = True
        if self.on_record:
            self.on_record(record)

    def truncate(self, step: int) -> None:
        """Forget what came after `step`, and a last line that a kill cut short."""
        records = [record for record in read(self.path) if record["step"] <= step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read(path: str | Path) -> list[dict[str, Any]]:
    """The records of a diary, or of the run in a folder; lines that are damaged are left out."""
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        require_regular(path)
        with path.open("rb") as file:
            lines = file.read(_LARGEST).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, IsADirectoryError):  # the folder of a run that has only just begun
        return []
    return [record for record in map(_record, lines) if record is not None]


def bits_per_second(codebook_losses: Sequence[float], frame_rate: float) -> float:
    """Bits a second of audio costs: frame rate (Hz) times the summed losses (nats) of its codebooks."""
    return frame_rate * sum(codebook_losses) / math.log(2)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
