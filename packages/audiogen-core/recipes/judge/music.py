"""Whether notes lie in a key and on the grid of a tempo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from transcribe import Note

from audiogen_core.compose import TEMPI
from audiogen_core.compose.styles import KEYS

FRAME_RATE = 75.0  # Hz, of the demo codec
TOLERANCE = 0.02  # seconds; a sixteenth is 0.12, 0.133 or 0.16


def in_key(notes: Sequence[Note], key: str) -> float:
    """The share of all sounding time that belongs to notes of the key's scale; nan without notes."""
    scale = {(KEYS[key].tonic + step) % 12 for step in KEYS[key].scale}
    lengths = np.array([note.end - note.onset for note in notes])
    inside = np.array([note.pitch % 12 in scale for note in notes])
    return float(lengths[inside].sum() / lengths.sum()) if len(notes) else float("nan")


def on_grid(notes: Sequence[Note], tempo: str, start: float = 0.0) -> float:
    """The share of onsets within TOLERANCE of a sixteenth, counted from second 0; nan without notes.

    start  onsets before it do not count
    """
    onsets = np.array([note.onset for note in notes if note.onset >= start])
    sixteenth = TEMPI[tempo] / FRAME_RATE
    away = np.abs(onsets - sixteenth * np.round(onsets / sixteenth))
    return float((away <= TOLERANCE).mean()) if len(onsets) else float("nan")


def best_key(notes: Sequence[Note], keys: Iterable[str]) -> float:
    """`in_key` in the key that suits best."""
    return max((in_key(notes, key) for key in keys), default=float("nan"))


def best_tempo(notes: Sequence[Note], start: float = 0.0) -> float:
    """`on_grid` at the tempo that suits best."""
    return max(on_grid(notes, tempo, start) for tempo in TEMPI)
