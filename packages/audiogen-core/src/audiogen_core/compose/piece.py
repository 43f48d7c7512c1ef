"""The composer: from a seed to a piece with form, harmony, melody and a caption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.compose.styles import DEFAULT_STYLES, KEYS, STYLES, Bar, Style
from audiogen_core.compose.synth import DRUMS, HOP_LENGTH, SAMPLE_RATE, drum, limit, note
from audiogen_core.errors import OptionError, nearest

TEMPI = {"slow": 12, "medium": 10, "fast": 9}  # frames in a sixteenth: 94, 112 and 125 beats per minute

_FRAME_RATE = SAMPLE_RATE // HOP_LENGTH  # Hz
_RHYTHMS = (
    (0, 4, 8, 12),
    (0, 6, 8, 14),
    (0, 4, 6, 8, 12),
    (0, 2, 4, 8, 10, 12),
    (0, 8),
    (0, 3, 6, 8, 11, 14),
)
_FIGURES = ((0, 1, 2, 1), (0, 1, 2, 3), (0, 2, 1, 2))

Note = tuple[int, int, str, int]
"""Onset in frames, length in frames, instrument, MIDI pitch (0 for drums)."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A composed piece: its sound, what a person would call it, and what is in it.

    attributes  style, lead, key, tempo, bpm, drums, seed
    notes       every note played, by onset
    """

    audio: Audio
    caption: str
    attributes: dict[str, Any]
    notes: tuple[Note, ...]


def compose(seed: int, *, seconds: float = 60.0, style: str | None = None) -> Piece:
    """A piece of 24 kHz mono music, the same for the same arguments.

    Four-bar phrases in the form A A' B A' over one chord progression, with a cadence at the end of each;
    a motif returns with small changes. `style` None draws one of `DEFAULT_STYLES`. Raises OptionError for
    an unknown style or a length that is not positive.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise OptionError(f"seconds must be positive, got {seconds}")
    if seed < 0:
        raise OptionError(f"seed must not be negative, got {seed}")
    rng = np.random.Generator(np.random.PCG64([7, seed]))
    name = _pick(rng, DEFAULT_STYLES) if style is None else check_style(style)
    chosen = STYLES[name]
    key = _pick(rng, chosen.keys)
    tempo = _pick(rng, tuple(TEMPI))
    frames = max(1, round(seconds * _FRAME_RATE))
    notes = tuple(sorted(_notes(rng, chosen, key, TEMPI[tempo], frames)))
    attributes = {
        "style": name,
        "lead": chosen.lead,
        "key": key,
        "tempo": tempo,
        "bpm": round(60 * _FRAME_RATE / (4 * TEMPI[tempo]), 2),
        "drums": chosen.has_drums,
        "seed": seed,
    }
    return Piece(render(notes, frames), _caption(rng, chosen, key, tempo), attributes, notes)


def render(notes: Sequence[Note], frames: int) -> Audio:
    """The sound of some notes, `frames` long."""
    mix = np.zeros((frames + 130) * HOP_LENGTH, np.float32)  # room for the longest note to end
    for onset, length, instrument, pitch in notes:
        wave = drum(instrument) if instrument in DRUMS else note(instrument, pitch, length)
        start = onset * HOP_LENGTH
        mix[start : start + len(wave)] += wave
    return Audio(limit(mix[None, : frames * HOP_LENGTH]), SAMPLE_RATE)


def check_style(style: str) -> str:
    """The name of a style. Raises OptionError with all names for one that does not exist."""
    if style in STYLES:
        return style
    every = f"known styles: {', '.join(STYLES)}"
    hint = nearest(style, STYLES, "known styles")
    told = hint if hint == every else f"{hint} {every}"
    raise OptionError(f"unknown style {style!r}; {told}")


def _notes(rng: np.random.Generator, style: Style, key: str, sixteenth: int, frames: int) -> Iterator[Note]:
    bar_frames = style.steps * sixteenth
    for index, bar in enumerate(_bars(rng, style, key, math.ceil(frames / bar_frames))):
        for step, steps, instrument, pitch in style.play(bar):
            onset = index * bar_frames + step * sixteenth
            if onset < frames:
                yield onset, steps * sixteenth, instrument, pitch


def _bars(rng: np.random.Generator, style: Style, key: str, count: int) -> Iterator[Bar]:
    progression = _pick(rng, KEYS[key].progressions)
    figure = _pick(rng, _FIGURES)
    rhythms = [tuple(step for step in _pick(rng, _RHYTHMS) if step < style.steps) for _ in range(2)]
    motifs = [tuple(int(tone) for tone in rng.integers(0, 4, 8)) for _ in range(2)]
    for index in range(count):
        root = progression[index % 4]
        phrase = index // 4 % 4
        motif = index % 2 if phrase != 2 else 1 - index % 2  # the B phrase turns the motifs round
        yield Bar(
            key=KEYS[key],
            chord=(root, root + 2, root + 4, root + 7),
            rhythm=rhythms[motif],
            melody=motifs[motif],
            figure=figure,
            cadence=index % 4 == 3,
            steps=style.steps,
        )


def _caption(rng: np.random.Generator, style: Style, key: str, tempo: str) -> str:
    words = _pick(rng, style.words)
    speed = "" if tempo == "medium" and rng.random() < 0.5 else f"{tempo} "
    forms = (f"{speed}{words} in {key}", f"{speed}{words}", f"{words}, {tempo}, in {key}", f"{tempo} {words}")
    chosen: str = _pick(rng, forms)
    return chosen


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]
