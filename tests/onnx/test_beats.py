"""Beats as a grid, as text, as a file; and the mask around them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.errors import OptionError
from audiogen_core.noise import RecordedNoise, SeededNoise
from audiogen_onnx.vampnet.beats import Beats, beat_mask

RATE, HOP = 1000, 10  # frames of 10 ms
FACTS = {"sample_rate": RATE, "hop_length": HOP}


def kept(mask: np.ndarray) -> list[int]:
    assert (mask == mask[..., :1, :]).all(), "a beat is kept in all codebooks"
    return np.flatnonzero(~mask[..., 0, :]).tolist()


def test_a_grid_has_every_beat_before_the_end() -> None:
    beats = Beats.grid(120, 3.0)
    np.testing.assert_allclose(beats.times, [0, 0.5, 1, 1.5, 2, 2.5])
    assert beats.downbeats.tolist() == [True, False, False, False, True, False]


def test_a_grid_may_begin_later_or_before_the_clip() -> None:
    np.testing.assert_allclose(Beats.grid(60, 3.0, offset=0.25).times, [0.25, 1.25, 2.25])
    early = Beats.grid(60, 3.0, offset=-1.5, beats_per_bar=3)
    np.testing.assert_allclose(early.times, [0.5, 1.5, 2.5])
    assert early.downbeats.tolist() == [False, True, False]
    assert len(Beats.grid(60, 3.0, offset=5)) == 0
    assert not Beats.grid(60, 3.0, beats_per_bar=0).downbeats.any()


def test_tempos_that_do_not_divide_the_minute_keep_their_count() -> None:
    for bpm in (59.9, 97, 123.45, 174):
        assert len(Beats.grid(bpm, 60.0)) == math.ceil(bpm)


@pytest.mark.parametrize(
    "given", [{"bpm": 0}, {"bpm": -3}, {"bpm": 5000}, {"bpm": math.nan}, {"offset": math.inf}]
)
def test_grids_that_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="beats"):
        Beats.grid(given.pop("bpm", 120), 10.0, **given)


@pytest.mark.parametrize("text", ["0.5, 1,1.5", "0.5 1 1.5", "1.5 0.5 1 1", "0.5\n1.0\n1.5\n", "0.5;1;1.5"])
def test_times_as_text(text: str) -> None:
    beats = Beats.parse(text)
    assert beats.times.tolist() == [0.5, 1.0, 1.5]
    assert not beats.downbeats.any()


def test_lines_with_places_in_the_bar() -> None:
    beats = Beats.parse("# made by hand\n0.1 1\n0.6\t2\n\n1.1 3  # weak\n1.6 1\n")
    assert beats.times.tolist() == [0.1, 0.6, 1.1, 1.6]
    assert beats.downbeats.tolist() == [True, False, False, True]


def test_label_tracks() -> None:
    beats = Beats.parse("0.100000\t0.100000\t1\n0.600000\t0.600000\tsnare\n")
    assert beats.times.tolist() == [0.1, 0.6]
    assert beats.downbeats.tolist() == [True, False]


@pytest.mark.parametrize(
    "beats",
    [
        Beats.grid(97, 9.0, offset=0.37, beats_per_bar=3),
        Beats.at([0.25, 0.5, 1.75], downbeats=[1.0]),
        Beats.at([0.25, 0.5]),
        Beats.at([], downbeats=[0.5]),
        Beats.at([]),
    ],
    ids=["grid", "upbeat first", "no bars", "a single one", "none"],
)
def test_text_is_read_as_it_is_written(beats: Beats) -> None:
    again = Beats.parse(beats.text())
    np.testing.assert_allclose(again.times, beats.times, atol=1e-6)
    np.testing.assert_array_equal(again.downbeats, beats.downbeats)


@pytest.mark.parametrize("text", ["0.5, x", "one", "-1 2", "nan", "1e999", "0.5\nhello 1\n"])
def test_what_is_not_a_time_is_named(text: str) -> None:
    with pytest.raises(OptionError, match=r"the beats: '.*' is not a time in seconds"):
        Beats.parse(text)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "beats.txt").write_text("\ufeff0.5 1\n1.0 2\n", encoding="utf-8")
    assert Beats.read(tmp_path / "beats.txt").downbeats.tolist() == [True, False]
    assert len(Beats.parse("")) == 0
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x80")
    (tmp_path / "long.txt").write_text("1\n" * 600_000)
    wrong = {"none": "cannot be read", "sound.wav": "not a text", "long.txt": "more than 1 MiB"}
    for name, words in wrong.items():
        with pytest.raises(OptionError, match=words):
            Beats.read(tmp_path / name)


def test_beats_out_of_order_are_refused() -> None:
    with pytest.raises(OptionError, match="later than the one before"):
        Beats(np.array([1.0, 0.5]), np.zeros(2, bool))
    with pytest.raises(OptionError, match="one mark each"):
        Beats(np.array([1.0, 1.5]), np.zeros(3, bool))


def test_frames_around_beats_are_kept() -> None:
    mask = beat_mask((2, 3, 30), Beats.at([0.1, 0.2]), before=0.02, after=0.03, **FACTS)
    assert mask.shape == (2, 3, 30)
    assert kept(mask[0]) == kept(mask[1]) == [8, 9, 10, 11, 12, 18, 19, 20, 21, 22]


def test_times_are_rounded_up_to_frames() -> None:
    assert kept(beat_mask((1, 30), Beats.at([0.101]), after=0.011, **FACTS)) == [11, 12]


def test_the_reverse_generates_them() -> None:
    beats = Beats.at([0.1])
    mask = beat_mask((2, 30), beats, keep=False, **FACTS)
    np.testing.assert_array_equal(mask, ~beat_mask((2, 30), beats, **FACTS))


def test_downbeats_and_the_others_are_chosen_apart() -> None:
    beats = Beats.at(np.arange(8) / 10, downbeats=[0.0, 0.4])

    def frames(**options: object) -> list[int]:
        return kept(beat_mask((1, 100), beats, after=0.01, **FACTS, **options))  # type: ignore[arg-type]

    assert frames() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert frames(upbeats=False) == [0, 40]
    assert frames(downbeats=False) == [10, 20, 30, 50, 60, 70]
    assert frames(downbeat_every=2) == [0, 10, 20, 30, 50, 60, 70]
    assert frames(upbeat_every=3) == [0, 10, 40, 50]
    assert frames(upbeats=False, downbeats=False) == []
    with pytest.raises(OptionError, match="1 or more"):
        frames(upbeat_every=0)


def test_a_beat_at_the_beginning_is_kept_unless_as_the_original() -> None:
    beats = Beats.at([0.01])
    assert kept(beat_mask((1, 30), beats, before=0.02, after=0.02, **FACTS)) == [0, 1, 2]
    assert kept(beat_mask((1, 30), beats, before=0.02, after=0.02, compat="upstream", **FACTS)) == []


def test_beats_beyond_the_end_change_nothing() -> None:
    assert beat_mask((1, 30), Beats.at([0.3, 9.0]), **FACTS).all()


def test_dropout_lets_single_frames_go() -> None:
    draws = RecordedNoise([[[0.1, 0.9, 0.4]], [[0.5, 0.49, 0.51]]])
    beats = Beats.at([0.1], downbeats=[0.2])
    made = beat_mask((1, 30), beats, after=0.03, dropout=0.5, noise=draws, **FACTS)
    assert kept(made) == [11, 20, 22]
    assert beat_mask((1, 30), beats, dropout=1.0, noise=SeededNoise(0), **FACTS).all()
    with pytest.raises(OptionError, match="needs noise"):
        beat_mask((1, 30), beats, dropout=0.5, **FACTS)


def test_dropout_of_an_item_is_that_of_its_single_run() -> None:
    beats = Beats.grid(60, 3)
    both = beat_mask((2, 1, 300), beats, after=0.5, dropout=0.5, noise=SeededNoise(4), **FACTS)
    second = beat_mask((1, 1, 300), beats, after=0.5, dropout=0.5, noise=SeededNoise(5), **FACTS)
    np.testing.assert_array_equal(both[1], second[0])
    assert (both[0] != both[1]).any()
