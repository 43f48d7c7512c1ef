"""The judge of the demo models: each figure on clips whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from audiogen_core import Audio, codecs
from audiogen_core.compose import compose
from audiogen_core.errors import AudioError, ModelError
from support import recipes


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    with recipes.recipe("judge") as modules:
        yield modules


class ByScore:
    """In the place of the transcriber: reads the notes off the piece a clip was composed as."""

    def __init__(self, recipe: recipes.Modules, seed: int, seconds: float) -> None:
        self.recipe, self.seed, self.seconds = recipe, seed, seconds
        self.heard = 0

    def __call__(self, audio: Audio):
        piece = compose(self.seed + self.heard % 6, seconds=self.seconds)
        self.heard += 1
        note = self.recipe.transcribe.Note
        notes = [note(p, on / 75, (on + length) / 75) for on, length, _, p in piece.notes if p]
        frames = round(audio.duration * 22_050 / 256)
        rolls = np.zeros((2, frames, 88), np.float32)
        for each in notes:
            rolls[0, round(each.onset * 86.13) : round(each.end * 86.13), each.pitch - 21] = 1
            rolls[1, round(each.onset * 86.13), each.pitch - 21] = 1
        return self.recipe.transcribe.Transcription(rolls[0], rolls[1], tuple(notes))


# -- notes -------------------------------------------------------------------------------------------


def test_notes_are_read_off_likelihoods(recipe):
    sounding, beginning = np.zeros((2, 100, 88), np.float32)
    sounding[10:40, 39] = 0.8  # middle C
    beginning[9:12, 39] = (0.3, 0.9, 0.3)
    beginning[25, 39] = 0.7  # struck again
    sounding[50:52, 50] = 0.9  # too short
    beginning[50, 50] = 0.9
    first, second = recipe.transcribe.read_notes(sounding, beginning)
    frame = 256 / 22_050
    assert (first.pitch, second.pitch) == (60, 60)
    assert (first.onset, first.end) == pytest.approx((10 * frame, 25 * frame))
    assert (second.onset, second.end) == pytest.approx((25 * frame, 40 * frame))


def test_an_onset_between_two_frames_is_found_between_them(recipe):
    sounding, beginning = np.ones((2, 20, 88), np.float32) * 0.9
    beginning[:] = 0
    beginning[9:12, 0] = (0.4, 0.8, 0.7)
    (note,) = recipe.transcribe.read_notes(sounding, beginning)
    assert 10.2 < note.onset / (256 / 22_050) < 10.5


def test_notes_in_and_out_of_a_key(recipe):
    note = recipe.transcribe.Note
    notes = [note(60, 0, 3), note(64, 0, 1)]  # C for 3 s, E for 1 s
    assert recipe.music.in_key(notes, "C major") == 1
    assert recipe.music.in_key(notes, "C minor") == 0.75
    assert recipe.music.best_key(notes, ["C minor", "C major"]) == 1
    assert np.isnan(recipe.music.in_key([], "C major"))


def test_onsets_on_and_off_a_grid(recipe):
    note = recipe.transcribe.Note
    notes = [note(60, 0.12 * step + away, 9.0) for step, away in ((0, 0.0), (5, 0.015), (9, 0.06), (20, 0.0))]
    assert recipe.music.on_grid(notes, "fast") == 0.75
    assert recipe.music.on_grid(notes, "fast", start=1.0) == 0.5
    assert recipe.music.best_tempo(notes) == 0.75
    assert recipe.music.on_grid(notes, "medium") < 0.75


def test_in_time_wherever_the_beat_begins(recipe):
    note, rng = recipe.transcribe.Note, np.random.default_rng(0)
    sixteenth = 9 / 75
    beat = [note(60, 0.42 + sixteenth * step, 1.0) for step in range(0, 80, 2)]
    assert recipe.music.in_time(beat) == 1
    assert recipe.music.on_grid(beat, "fast") < 0.2
    drifted = [note(60, each.onset + 0.06 * (each.onset > 5), 1.0) for each in beat]
    assert 0.8 < recipe.music.in_time(drifted) < 1
    chance = [note(60, onset, 20.0) for onset in rng.uniform(0, 10, 80)]
    assert 0.3 < recipe.music.in_time(chance) < 0.6
    assert np.isnan(recipe.music.in_time(beat[:3]))


@pytest.mark.parametrize(("frames", "bpm"), [(9, 125.0), (10, 112.5), (12, 93.75)])
def test_a_tempo_is_measured_and_compared(recipe, frames, bpm):
    """Also beside the composer's tempi, and wherever it begins."""
    note, names = recipe.transcribe.Note, {9: "fast", 10: "medium", 12: "slow"}
    for share, kept in ((1.0, 1), (1.03, 1), (0.97, 1), (1.06, 0), (0.94, 0)):
        sixteenth = frames / 75 / share
        beat = [note(60, 0.31 + sixteenth * step, 1.0) for step in (*range(0, 60, 4), 7, 18, 33)]
        assert recipe.music.beats_per_minute(beat) == pytest.approx(bpm * share, rel=0.01)
        assert recipe.music.tempo_kept(beat, names[frames]) == kept
    assert recipe.music.tempo_kept(beat, names[frames], start=8.0) == 0  # too few to measure
    assert np.isnan(recipe.music.beats_per_minute([]))


def test_composed_pieces_are_measured_at_their_tempo(recipe):
    for seed in range(12):
        piece = compose(2_000_300_000 + seed, seconds=8.0)
        notes = [recipe.transcribe.Note(p, on / 75, 9.0) for on, _, _, p in piece.notes if p]
        assert recipe.music.tempo_kept(notes, piece.attributes["tempo"]) == 1


# -- levels ------------------------------------------------------------------------------------------


def test_silence_and_loud_ends_are_found(recipe):
    judging = recipe.judging
    samples = np.full((2, 5 * 8000), 0.1, np.float32)
    samples[:, 8000:20000] = 0.001  # -60 dB for 1.5 s
    clip = Audio(samples, 8000)
    assert judging.silence(clip) == pytest.approx(1.5, abs=0.02)
    assert judging.ending(clip) == pytest.approx(-20, abs=0.01)
    assert judging.ending(clip.fade()) < -30
    assert judging.silence(Audio(samples[:, :20000], 8000)) == pytest.approx(1.5, abs=0.02)  # to its end
    assert judging.silence(Audio(samples * 0, 8000)) == pytest.approx(5)
    assert judging.silence(Audio(samples[:, :8000], 8000)) == 0
    assert judging.ending(Audio(samples[:, :100], 8000)) == pytest.approx(-20, abs=0.01)  # 12.5 ms are all


# -- distances and copies ----------------------------------------------------------------------------


def test_distances_grow_with_the_difference(recipe):
    draws = np.random.default_rng(0)
    reference, same = draws.normal(size=(2, 400, 6)) * [1, 2, 3, 4, 5, 6]
    frechet = recipe.distances.Frechet(reference)
    assert frechet(reference) == pytest.approx(0, abs=1e-9)
    assert frechet(same) < 0.1
    moved = reference + np.arange(1, 7)  # by one spread
    assert frechet(moved) == pytest.approx(1, rel=0.1)
    assert frechet(reference * 3) == pytest.approx(4, rel=0.1)  # (3 - 1)^2


@pytest.mark.parametrize("length", [1, 2, 3, 14, 64, 100])
def test_the_longest_copy_is_found(recipe, length):
    draws = np.random.default_rng(length)
    training = draws.integers(0, 1024, (3, 4, 100)).astype(np.int16)
    clip = draws.integers(0, 1024, (4, 300)).astype(np.int16)
    start = (100 - length) // 2
    clip[:, 50 : 50 + length] = training[1][:, start : start + length]
    found = recipe.memory.Memory(training, 4).longest(clip)
    assert found == max(rung for rung in recipe.memory.LADDER if rung <= length)
    assert found > 0.85 * length


def test_a_copy_in_some_codebooks_is_none(recipe):
    training = np.random.default_rng(0).integers(0, 1024, (2, 4, 50)).astype(np.int16)
    clip = training[0].copy()
    clip[3] += 1
    assert recipe.memory.Memory(training, 4).longest(clip) == 0
    assert recipe.memory.Memory(training, 3).longest(clip) == 50


# -- the classifier ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_classifier_learns_style_and_tempo(recipe):
    classifier = recipe.classifier.Classifier()
    classifier.train(codecs.load_codec("demo", ops="torch"), pieces=60, seconds=6.0, rounds=30)
    pieces = [compose(2_000_300_000 + i, seconds=6.0) for i in range(16)]
    answers = [classifier(piece.audio) for piece in pieces]
    facts = [piece.attributes for piece in pieces]
    assert recipe.classifier.accuracy(answers, facts, "style") > 0.8
    assert recipe.classifier.accuracy(answers, facts, "tempo") > 0.8
    assert np.isnan(recipe.classifier.accuracy(answers, [{}] * 16, "tempo"))


# -- whole folders -----------------------------------------------------------------------------------


def test_a_folder_is_judged(recipe, tmp_path):
    lines = []
    for index in range(6):
        piece = compose(2_000_400_000 + index, seconds=3.0)
        piece.audio.save(tmp_path / f"{index}.wav")
        facts = {key: piece.attributes[key] for key in ("key", "tempo")}
        lines.append(json.dumps({"path": f"{index}.wav", **facts, "style": ""}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    clips = recipe.clips.load(tmp_path, 2.0)
    assert {round(clip.audio.duration, 3) for clip in clips} == {2.0}
    transcriber = ByScore(recipe, 2_000_400_000, 2.0)
    training = np.zeros((1, 4, 40), np.int16)
    judge = recipe.judging.Judge(
        transcriber,
        recipe.classifier.Classifier(),
        codecs.load_codec("demo", ops="torch"),
        recipe.memory.Memory(training, 4),
    )
    heard = [judge.hear(clip) for clip in clips]
    judge.refer(*(np.concatenate([getattr(one, name) for one in heard]) for name in ("pitches", "spectra")))
    row = judge.row("a", heard)
    assert (row["key"], row["grid"], row["any_key"], row["any_grid"]) == (1, 1, 1, 1)
    assert row["pitch_distance"] == pytest.approx(0, abs=1e-6)
    assert np.isnan(row["style"])  # the captions say nothing of it
    assert row["memory"] == 0
    assert row["bpm"] > 0.8  # two seconds of a slow piece are few onsets
    assert (row["silent"], row["clipped"]) == (0, 0)
    assert row["cut_off"] == 1 and row["cut_off_faded"] == 0  # 2 of 3 seconds are judged
    assert judge.shuffled("b", heard)["grid"] < 1
    text = recipe.judge.table([recipe.judge.plain(row)])
    assert text.splitlines()[2].startswith("| a | 6 | 1.00 | 1.00 | 1.00 | 1.00 | ")


def test_a_continuation_is_judged_from_its_start(recipe):
    piece = compose(2_000_400_000, seconds=4.0)
    transcriber = ByScore(recipe, 2_000_400_000, 4.0)
    judge = recipe.judging.Judge(transcriber, recipe.classifier.Classifier(), None)
    heard = judge.hear(recipe.clips.Clip(piece.audio, {"tempo": "fast"}, start=2.0))
    assert min(note.onset for note in heard.notes) >= 1.98
    assert len(heard.spectra) == 1  # the one window of the last two seconds


def test_unigram_codes_are_as_frequent_as_those_of_the_clips(recipe):
    codec = codecs.load_codec("demo", ops="torch")
    known = recipe.clips.reconstructed(recipe.clips.composed(2_000_400_000, 2, 2.0), codec, 4)
    made = recipe.clips.unigram(known, codec)
    assert [clip.codes.shape for clip in made] == [(4, 150)] * 2
    for book in range(4):
        pool = np.concatenate([clip.codes[book] for clip in known])
        assert set(np.concatenate([clip.codes[book] for clip in made])) <= set(pool)


def test_a_folder_without_captions_is_refused(recipe, tmp_path):
    with pytest.raises(AudioError, match="a line of JSON for each clip"):
        recipe.clips.load(tmp_path, 1.0)
    with pytest.raises(ModelError, match="basic-pitch"):
        recipe.transcribe.Transcriber(tmp_path / "nmp.onnx")
