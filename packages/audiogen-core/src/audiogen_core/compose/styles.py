"""The styles: what each plays in a bar. An event is (step, steps, instrument, pitch), steps in sixteenths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Event = tuple[int, int, str, int]


@dataclass(frozen=True)
class Key:
    """A tonic (MIDI), its scale in semitones, and progressions of four chords (as scale degrees)."""

    tonic: int
    scale: tuple[int, ...]
    progressions: tuple[tuple[int, ...], ...]

    def pitch(self, degree: int) -> int:
        """The MIDI pitch of a scale degree; 7 is an octave above 0."""
        return self.tonic + 12 * (degree // 7) + self.scale[degree % 7]


_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_IN_MAJOR = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (5, 3, 0, 4))
_IN_MINOR = ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 6, 2))

KEYS = {
    "C major": Key(60, _MAJOR, _IN_MAJOR),
    "A minor": Key(57, _MINOR, _IN_MINOR),
    "C minor": Key(60, _MINOR, _IN_MINOR),
    "G major": Key(55, _MAJOR, _IN_MAJOR),
    "D minor": Key(62, _MINOR, _IN_MINOR),
}


@dataclass(frozen=True)
class Bar:
    """What a style needs to know to play one bar.

    chord    four scale degrees, low to high
    rhythm   the steps on which the melody plays
    melody   which tone of the chord it plays there
    figure   the order in which accompaniments run through the chord
    cadence  whether the phrase ends here
    steps    sixteenths in the bar
    """

    key: Key
    chord: tuple[int, int, int, int]
    rhythm: tuple[int, ...]
    melody: tuple[int, ...]
    figure: tuple[int, ...]
    cadence: bool
    steps: int


def tune(bar: Bar, instrument: str, octave: int = 0, longest: int = 16) -> Iterator[Event]:
    """The melody; at a cadence its last note is the root."""
    ends = (*bar.rhythm[1:], bar.steps)
    for index, (step, end) in enumerate(zip(bar.rhythm, ends, strict=True)):
        tone = bar.melody[index % len(bar.melody)]
        if bar.cadence and index == len(bar.rhythm) - 1:
            tone = 0
        yield step, min(longest, end - step), instrument, bar.key.pitch(bar.chord[tone]) + 12 * octave


def tone(bar: Bar, index: int, octave: int) -> int:
    return bar.key.pitch(bar.chord[index]) + 12 * octave


def drums(bar: Bar) -> Iterator[Event]:
    for step in range(0, bar.steps, 2):
        yield step, 1, "hat", 0
    for step in range(0, bar.steps, 8):
        yield step, 1, "kick", 0
        yield step + 4, 1, "snare", 0
    if bar.cadence:
        for step in range(bar.steps - 3, bar.steps):
            yield step, 1, "snare", 0


def music_box(bar: Bar) -> Iterator[Event]:
    for index, step in enumerate((0, 8)):
        yield step, 16, "music box", tone(bar, 2 * index, 0)
    for step, _, instrument, pitch in tune(bar, "music box", octave=1):
        yield step, 16, instrument, pitch  # a music box rings on


def piano(bar: Bar) -> Iterator[Event]:
    for step in (0, 8):
        for index in range(3):
            yield step, 8, "piano", tone(bar, index, -1)
    yield 0, 8, "bass", tone(bar, 0, -2)
    yield 8, 8, "bass", tone(bar, 2 if bar.figure[1] == 1 else 0, -2)
    yield from tune(bar, "piano")


def beat(bar: Bar) -> Iterator[Event]:
    yield from drums(bar)
    for step in (0, 6, 8):
        yield step, 4, "bass", tone(bar, 0, -2)
    yield from tune(bar, "pluck", longest=4)


def chiptune(bar: Bar) -> Iterator[Event]:
    yield from drums(bar)
    for step in (0, 8):
        yield step, 4, "bass", tone(bar, 0, -2)
    for step in range(0, bar.steps, 2):
        yield step, 2, "blip", tone(bar, bar.figure[step // 2 % 4], 0)
    yield from tune(bar, "square", longest=4)


def marimba_waltz(bar: Bar) -> Iterator[Event]:
    yield 0, 4, "bass", tone(bar, 0, -2)
    for step in (4, 8):
        for index in (1, 2):
            yield step, 4, "marimba", tone(bar, index, -1)
    yield from tune(bar, "marimba", octave=1, longest=4)


def organ_hymn(bar: Bar) -> Iterator[Event]:
    yield 0, bar.steps, "organ", tone(bar, 0, -2)
    for index in range(3):
        yield 0, bar.steps, "organ", tone(bar, index, -1)
    yield from tune(bar, "organ", longest=8)


@dataclass(frozen=True)
class Style:
    """How a style plays a bar, its keys, its metre, what it is called in a caption and its lead."""

    play: Callable[[Bar], Iterator[Event]]
    words: tuple[str, ...]
    lead: str
    keys: tuple[str, ...] = ("C major", "A minor", "C minor")
    steps: int = 16
    has_drums: bool = False


STYLES: dict[str, Style] = {
    "music box": Style(music_box, ("music box", "gentle music box", "music box lullaby"), "music box"),
    "piano": Style(piano, ("piano", "piano piece", "calm piano and bass"), "piano"),
    "beat": Style(beat, ("beat", "groove with drums", "drum and bass beat"), "pluck", has_drums=True),
    "chiptune": Style(chiptune, ("chiptune", "video game tune", "8-bit chiptune"), "square", has_drums=True),
    "marimba waltz": Style(
        marimba_waltz, ("marimba waltz", "waltz for marimba"), "marimba", ("G major", "D minor"), steps=12
    ),
    "organ hymn": Style(organ_hymn, ("organ hymn", "church organ"), "organ", ("G major", "D minor")),
}

DEFAULT_STYLES = ("music box", "piano", "beat", "chiptune")
HELD_OUT_STYLES = ("marimba waltz", "organ hymn")
