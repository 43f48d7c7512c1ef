"""Whether notes lie in a key and on the grid of a tempo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from transcribe import Note

from audiogen_core.compose import TEMPI
from audiogen_core.compose.styles import KEYS

FRAME_RATE = 75.0  # Hz, of the demo codec
TOLERANCE = 0.02  # seconds; a sixteenth is 0.12, 0.133 or 0.16
STRETCH = 4.0  # seconds, in which a tempo and where it begins are looked for
FEWEST = 6  # onsets of a stretch that says something
CLOSE = 0.04  # of a tempo that counts as the one asked for, as a share


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


def in_time(notes: Sequence[Note], start: float = 0.0) -> float:
    """The share of onsets within TOLERANCE of a sixteenth, whatever the tempo is and wherever it begins.

    Both are chosen anew in every STRETCH, as suits it best; so chance alone gives more than with `on_grid`.
    nan where no stretch has enough onsets.
    """
    onsets = np.array(sorted(note.onset for note in notes if note.onset >= start))
    last = onsets[-1] if len(onsets) else start
    begins = np.arange(start, max(start, last - STRETCH) + STRETCH / 2, STRETCH / 2)
    parts = [onsets[(onsets >= begin) & (onsets < begin + STRETCH)] for begin in begins]
    shares = [_best_fit(part) for part in parts if len(part) >= FEWEST]
    return float(np.mean(shares)) if shares else float("nan")


def tempo_kept(notes: Sequence[Note], tempo: str, start: float = 0.0) -> float:
    """1 where the tempo measured is within CLOSE of this one, else 0, also where it cannot be measured."""
    return float(abs(beats_per_minute(notes, start) / bpm(tempo) - 1) <= CLOSE)


def beats_per_minute(notes: Sequence[Note], start: float = 0.0) -> float:
    """The tempo whose sixteenths the onsets agree with best, of all from 80 to 140.

    Wherever the first one lies; a clip that changes its mind has the tempo it keeps to longest. nan without
    enough onsets.
    """
    onsets = np.array([note.onset for note in notes if note.onset >= start])
    tempi = np.arange(80.0, 140.0, 0.25)
    turns = np.exp(2j * np.pi * onsets * tempi[:, None] / 15)
    return float(tempi[np.abs(turns.sum(axis=1)).argmax()]) if len(onsets) >= FEWEST else float("nan")


def bpm(tempo: str) -> float:
    """Quarters a minute."""
    return 15 * FRAME_RATE / TEMPI[tempo]


def _best_fit(onsets: NDArray[np.float64]) -> float:
    best = 0.0
    for frames in TEMPI.values():
        sixteenth = frames / FRAME_RATE
        late = onsets[:, None] - np.arange(frames) / FRAME_RATE
        away = np.abs(late - sixteenth * np.round(late / sixteenth))
        best = max(best, float((away <= TOLERANCE).mean(axis=0).max()))
    return best
