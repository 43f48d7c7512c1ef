"""What is found in clips, and the figures of a set of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import music
import numpy as np
from classifier import Classifier, accuracy
from clips import Clip
from distances import Frechet, Table, window_means
from memory import Memory
from spectra import FRAME_RATE, log_mel
from transcribe import HOP, RATE, Note, Transcription

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.compose import DEFAULT_STYLES, STYLES

SHUFFLES = 8
LEVEL_SECONDS = 0.02  # in which a level is measured
SILENT, MOST_SILENCE = -50.0, 1.0  # dB of full scale, and seconds of it that are too many
LOUD_END = -30.0  # dB of full scale: a clip that ends louder was cut off
FULL = 0.9999  # of full scale, as 16 bits have it
KEYS = sorted({key for style in DEFAULT_STYLES for key in STYLES[style].keys})

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Heard:
    """What was found in a clip."""

    clip: Clip
    notes: tuple[Note, ...]
    answer: dict[str, str]
    pitches: Table
    spectra: Table


class Judge:
    """Hears clips and gives the figures of sets of them.

    memory  the training set, or None where it is not at hand
    """

    def __init__(
        self,
        transcriber: Callable[[Audio], Transcription],
        classifier: Classifier,
        codec: Codec,
        memory: Memory | None = None,
    ) -> None:
        self.transcriber, self.classifier, self.codec, self.memory = transcriber, classifier, codec, memory
        self.pitch_distance: Frechet | None = None
        self.mel_distance: Frechet | None = None

    def refer(self, pitches: Table, spectra: Table) -> None:
        """Measure distances from these windows of held-out music."""
        self.pitch_distance, self.mel_distance = Frechet(pitches), Frechet(spectra)

    def hear(self, clip: Clip) -> Heard:
        """Transcribe, classify and measure what comes after a clip's start."""
        found = self.transcriber(clip.audio)
        notes = tuple(note for note in found.notes if note.onset >= clip.start - music.TOLERANCE)
        part = clip.audio.slice(clip.start) if clip.start else clip.audio
        first = round(clip.start * RATE / HOP)
        both = np.concatenate([found.sounding, found.beginning], axis=1)[first:]
        spectra = log_mel(part)
        means = window_means(spectra, FRAME_RATE), window_means(np.abs(np.diff(spectra, axis=0)), FRAME_RATE)
        rows = min(len(mean) for mean in means)
        return Heard(
            clip,
            notes,
            self.classifier(part),
            window_means(both, RATE / HOP),
            np.concatenate([mean[:rows] for mean in means], axis=1),
        )

    def row(self, name: str, heard: Sequence[Heard]) -> Row:
        """The figures of a set."""
        facts = [each.clip.facts for each in heard]
        return {
            "what": name,
            "clips": len(heard),
            **self._by_caption(heard, facts),
            "any_key": _mean([music.best_key(each.notes, KEYS) for each in heard]),
            "any_grid": _mean([music.best_tempo(each.notes, each.clip.start) for each in heard]),
            "in_time": _mean([music.in_time(each.notes, each.clip.start) for each in heard]),
            **self._sound(heard),
            "notes": sum(len(each.notes) for each in heard) / sum(_judged(each.clip) for each in heard),
            "pitch_distance": _distance(self.pitch_distance, [each.pitches for each in heard]),
            "mel_distance": _distance(self.mel_distance, [each.spectra for each in heard]),
            "memory": self._memory(heard),
        }

    def shuffled(self, name: str, heard: Sequence[Heard], seed: int = 0) -> Row:
        """The figures that depend on captions, with captions of other clips."""
        draws = np.random.Generator(np.random.PCG64(seed))
        rows = []
        for _ in range(SHUFFLES):
            order = draws.permutation(len(heard))
            facts: list[dict[str, str]] = [{}] * len(heard)
            for place, other in zip(order, np.roll(order, 1), strict=True):  # a cycle: nobody keeps theirs
                facts[place] = heard[other].clip.facts
            rows.append(self._by_caption(heard, facts))
        means = {key: _mean([row[key] for row in rows]) for key in rows[0]}
        return {"what": name, "clips": len(heard), **means}

    def _by_caption(self, heard: Sequence[Heard], facts: Sequence[dict[str, str]]) -> Row:
        pairs = list(zip(heard, facts, strict=True))
        answers = [each.answer for each in heard]
        return {
            "key": _mean([music.in_key(each.notes, fact["key"]) for each, fact in pairs if "key" in fact]),
            **{
                name: _mean(
                    [
                        measured(each.notes, fact["tempo"], each.clip.start)
                        for each, fact in pairs
                        if "tempo" in fact
                    ]
                )
                for name, measured in (("grid", music.on_grid), ("bpm", music.tempo_kept))
            },
            **{name: accuracy(answers, facts, name) for name in ("style", "tempo", "lead")},
        }

    def _sound(self, heard: Sequence[Heard]) -> Row:
        """The shares of clips that nobody would play to anybody."""
        clips = [each.clip.audio for each in heard]
        return {
            "silent": _mean([silence(clip) > MOST_SILENCE for clip in clips]),
            "clipped": _mean([clip.peak >= FULL for clip in clips]),
            "cut_off": _mean([ending(clip) > LOUD_END for clip in clips]),
            "cut_off_faded": _mean([ending(clip.fade()) > LOUD_END for clip in clips]),
        }

    def _memory(self, heard: Sequence[Heard]) -> float:
        """Mean seconds of the longest stretch of codes that is in the training set, too."""
        if self.memory is None:
            return math.nan
        longest = []
        for clip in (each.clip for each in heard):
            codes = clip.codes
            if codes is None:
                codes = self.codec.encode(clip.audio.resample(24_000).mix(1), self.memory.codebooks).values
            first = round(clip.start * FRAME_RATE)
            longest.append(self.memory.longest(codes[:, first:].astype(np.int16)) / FRAME_RATE)
        return _mean(longest)


def silence(audio: Audio) -> float:
    """Seconds of the longest stretch below SILENT."""
    levels = _levels(audio)
    loud = np.flatnonzero(levels >= SILENT)
    return float(np.diff([-1, *loud, len(levels)]).max() - 1) * LEVEL_SECONDS


def ending(audio: Audio) -> float:
    """The level of the end, dB of full scale."""
    return float(_levels(audio)[-1])


def _levels(audio: Audio) -> Table:
    """The level (RMS, dB of full scale) in each LEVEL_SECONDS, the last ending with the clip."""
    size = round(LEVEL_SECONDS * audio.sample_rate)
    count = max(1, audio.samples.shape[1] // size)
    parts = audio.samples[:, -count * size :].reshape(audio.channels, count, -1).astype(np.float64)
    return 10 * np.log10((parts**2).mean(axis=(0, 2)) + 1e-12)


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _judged(clip: Clip) -> float:
    return clip.audio.duration - clip.start


def _distance(frechet: Frechet | None, windows: list[Table]) -> float:
    return frechet(np.concatenate(windows)) if frechet else math.nan
