"""The composer: pieces repeat exactly, keep to the frames, differ by seed; folders are whole or refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core import Audio, Recipe
from audiogen_core.compose import (
    DEFAULT_STYLES,
    HELD_OUT_STYLES,
    STYLES,
    TEMPI,
    compose,
    render,
    write_folder,
)
from audiogen_core.compose.synth import DRUMS, HOP_LENGTH, INSTRUMENTS, drum, note
from audiogen_core.errors import AudioError, OptionError

SEEDS = st.integers(0, 2**40)


@settings(max_examples=30)
@given(seed=SEEDS, seconds=st.floats(0.02, 25), style=st.sampled_from([None, *STYLES]))
def test_a_piece_is_the_same_every_time_and_keeps_to_the_frames(seed, seconds, style):
    piece, again = compose(seed, seconds=seconds, style=style), compose(seed, seconds=seconds, style=style)
    np.testing.assert_array_equal(piece.audio.samples, again.audio.samples)
    assert (piece.caption, piece.attributes, piece.notes) == (again.caption, again.attributes, again.notes)
    frames = max(1, round(seconds * 75))
    assert piece.audio.samples.shape == (1, frames * HOP_LENGTH)
    assert np.abs(piece.audio.samples).max() < 1
    sixteenth = TEMPI[piece.attributes["tempo"]]
    for onset, length, instrument, pitch in piece.notes:
        assert 0 <= onset < frames
        assert onset % sixteenth == 0
        assert length % sixteenth == 0
        assert (instrument in DRUMS) == (pitch == 0)
        assert instrument in DRUMS or 28 <= pitch <= 100


@settings(max_examples=20)
@given(seed=SEEDS, seconds=st.floats(1, 8))
def test_a_shorter_piece_is_the_start_of_a_longer_one(seed, seconds):
    short, long = compose(seed, seconds=seconds).audio.samples, compose(seed, seconds=16).audio.samples
    np.testing.assert_array_equal(short, long[:, : short.shape[1]])


def test_a_note_is_the_same_samples_wherever_it_stands():
    wave = note("piano", 60, 40)
    for onset in (0, 9, 77):
        mix = render([(onset, 40, "piano", 60)], 200).samples[0]
        start = onset * HOP_LENGTH
        np.testing.assert_array_equal(mix[start : start + len(wave)], np.tanh(wave))
        assert not mix[:start].any()


def test_sounds_are_frozen_audible_and_faded_at_their_ends():
    waves = [note(name, 60, 30) for name in INSTRUMENTS] + [drum(name) for name in DRUMS]
    for wave in waves:
        assert not wave.flags.writeable
        assert 0.05 < np.abs(wave).max() < 1
        assert np.abs(wave[-20:]).max() < 0.1 * np.abs(wave).max()


def test_high_notes_do_not_alias():
    spectrum = np.abs(np.fft.rfft(note("square", 108, 75)))
    frequency = np.linspace(0, 12000, len(spectrum))
    assert spectrum[frequency < 4000].max() < 0.02 * spectrum.max()  # the fundamental is 4186 Hz


def test_seeds_give_different_pieces_and_every_style_comes_up():
    pieces = [compose(seed, seconds=4) for seed in range(60)]
    assert len({piece.audio.samples.tobytes() for piece in pieces}) == 60
    for name, values in {
        "style": set(DEFAULT_STYLES),
        "tempo": set(TEMPI),
        "key": {"C major", "A minor", "C minor"},
    }.items():
        assert {piece.attributes[name] for piece in pieces} == values
    assert len({piece.caption for piece in pieces}) > 30


def test_held_out_styles_are_never_drawn_but_can_be_asked_for():
    assert len(HELD_OUT_STYLES) >= 2
    assert not set(HELD_OUT_STYLES) & set(DEFAULT_STYLES)
    for style in HELD_OUT_STYLES:
        piece = compose(3, seconds=10, style=style)
        assert piece.attributes["style"] == style
        assert piece.attributes["key"] in ("G major", "D minor")


def test_a_phrase_comes_back():
    piece = compose(5, seconds=60, style="piano")
    bar = 16 * TEMPI[piece.attributes["tempo"]]
    bars = [
        {(onset - k * bar, *rest) for onset, *rest in piece.notes if k * bar <= onset < (k + 1) * bar}
        for k in range(16)
    ]
    assert bars[0:4] == bars[4:8] == bars[12:16]
    assert bars[8:12] != bars[0:4]


def test_captions_say_what_is_heard():
    for seed in range(40):
        piece = compose(seed, seconds=1)
        words = STYLES[piece.attributes["style"]].words
        assert any(word in piece.caption for word in words)
        for tempo in TEMPI:
            if tempo in piece.caption.replace(",", "").split():
                assert tempo == piece.attributes["tempo"]
        if " in " in piece.caption:
            assert piece.caption.endswith(piece.attributes["key"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "positive"),
        ({"seconds": float("nan")}, "positive"),
        ({"seconds": float("inf")}, "positive"),
        ({"style": "chiptunes"}, "did you mean chiptune"),
        ({"style": "xxxx"}, "known styles: music box"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        compose(0, **options)


def test_a_negative_seed_is_refused():
    with pytest.raises(OptionError, match="negative"):
        compose(-1, seconds=1)


def test_a_folder_holds_pieces_with_captions_and_recipes(tmp_path):
    steps = []
    out = tmp_path / "music"
    paths = write_folder(out, minutes=0.35, seed=2, piece_seconds=5, on_step=lambda *step: steps.append(step))
    assert [path.name for path in paths] == [f"piece-{i:05d}.wav" for i in range(5)]
    assert steps == [(i, 5) for i in range(1, 6)]
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["path"] for line in lines] == [path.name for path in paths]
    assert [line["style"] for line in lines] == [*DEFAULT_STYLES, DEFAULT_STYLES[0]]
    assert sum(line["seconds"] for line in lines) == pytest.approx(21)
    for path, line in zip(paths, lines, strict=True):
        audio, recipe = Audio.load(path), Recipe.read(path)
        assert audio.sample_rate == 24000
        again = compose(recipe.seed, seconds=recipe.settings["seconds"], style=recipe.settings["style"])
        np.testing.assert_allclose(audio.samples, again.audio.samples, atol=1 / 32768)
        assert line["caption"] == again.caption == recipe.settings["caption"]
        assert [tuple(event) for event in line["notes"]] == list(again.notes)


def test_equal_seeds_give_equal_bytes_and_a_longer_folder_starts_alike(tmp_path):
    def contents(name, **options):
        write_folder(tmp_path / name, piece_seconds=3, **options)
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.wav")}

    first, again = contents("a", minutes=0.1, seed=1), contents("b", minutes=0.1, seed=1)
    longer, other = contents("c", minutes=0.2, seed=1), contents("d", minutes=0.1, seed=2)
    assert first == again
    assert first.items() <= longer.items()
    assert not set(first.values()) & set(other.values())
    assert (tmp_path / "a" / "captions.jsonl").read_bytes() == (
        tmp_path / "b" / "captions.jsonl"
    ).read_bytes()


def test_styles_can_be_chosen(tmp_path):
    write_folder(tmp_path / "a", minutes=0.1, seed=0, piece_seconds=2, styles=["organ hymn"])
    lines = (tmp_path / "a" / "captions.jsonl").read_text().splitlines()
    assert {json.loads(line)["style"] for line in lines} == {"organ hymn"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes"),
        ({"minutes": -2}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"piece_seconds": 0}, "piece_seconds"),
        ({"seed": -1}, "seed"),
        ({"styles": ["pianno"]}, "did you mean piano"),
    ],
)
def test_bad_options_leave_no_folder(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        write_folder(tmp_path / "a", **{"minutes": 0.1, "seed": 0} | options)
    assert not (tmp_path / "a").exists()


def test_a_folder_in_use_is_refused_unless_forced(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(OptionError, match="not empty"):
        write_folder(tmp_path, minutes=0.02, seed=0)
    write_folder(tmp_path, minutes=0.02, seed=0, force=True)
    assert (tmp_path / "mine.txt").read_text() == "kept"
    with pytest.raises(OptionError, match="not a folder"):
        write_folder(tmp_path / "mine.txt", minutes=0.02, seed=0)


def test_a_full_disk_is_reported_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(path, text, encoding):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AudioError, match=r"captions\.jsonl: cannot be written \(No space left on device\)"):
        write_folder(tmp_path / "a", minutes=0.02, seed=0)
    assert not (tmp_path / "a" / "captions.jsonl").exists()
