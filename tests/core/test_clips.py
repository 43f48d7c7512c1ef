"""Which clips of a folder are learned from, which are held out, and after which samples are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.codec import CodecInfo
from audiogen_core.errors import OptionError
from audiogen_core.training import checkpoints
from audiogen_core.training.clips import Data, Made, prepare

RATE = 8000
INFO = CodecInfo("test", RATE, 1, 8, 1, 16)


def write(folder: Path, *seconds: float) -> Path:
    """Files of so many seconds: "00.wav" and so on, no two alike."""
    folder.mkdir()
    for index, each in enumerate(seconds):
        times = np.arange(round(each * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * (200 + 10 * index) * times)
        Audio(tone[None].astype(np.float32), RATE).save(folder / f"{index:02}.wav")
        (folder / f"{index:02}.txt").write_text(f"caption {index}")
    return folder


def prepared(
    folder: Path, run: Path, understood: Callable[[str], bool] = lambda caption: True
) -> tuple[Data, list[str]]:
    """What comes of clips of a second, and the files of what is held out."""

    def encode(clip: Audio) -> Made:
        return np.zeros((1, round(clip.duration * 8)), np.int32), None

    data = prepare(folder, run, 1.0, INFO, encode, understood=understood)
    return data, [clip.path for clip in data.held_out]


@pytest.mark.parametrize(
    ("seconds", "files"),
    [
        ((1,), []),
        ((2,), ["00.wav"]),
        ((1, 1), ["01.wav"]),
        ((1, 1, 1, 1, 1, 1, 1, 1), ["02.wav", "06.wav"]),
        ((2, 2, 2), ["00.wav", "02.wav"]),
        ((30, 1, 20), ["00.wav", "02.wav", "00.wav", "02.wav", "00.wav"]),
        ((2,) * 11, ["02.wav", "08.wav", "02.wav", "08.wav"]),
        ((1,) * 30, ["05.wav", "15.wav", "25.wav"]),
    ],
)
def test_what_is_held_out_is_of_several_files(seconds: tuple[int, ...], files: list[str], tmp_path: Path):
    data, held_out = prepared(write(tmp_path / "in", *seconds), tmp_path / "run")
    assert held_out == files
    assert len(data.train) == sum(seconds) - len(files) and data.train
    assert not {id(clip) for clip in data.train} & {id(clip) for clip in data.held_out}
    assert data.shown is (data.held_out or data.train)[0]


def test_it_is_of_clips_that_say_something(tmp_path: Path):
    folder = write(tmp_path / "in", *(2,) * 11)
    told = {"caption 2", "caption 8", "caption 5"}
    data, held_out = prepared(folder, tmp_path / "run", lambda caption: caption not in told)
    assert len(set(held_out)) == 2 and data.shown is data.held_out[0]
    assert not told & {clip.caption for clip in data.held_out}
    data, _ = prepared(folder, tmp_path / "few", lambda caption: caption == "caption 5")  # it is learned from
    assert data.shown.caption == "caption 5" and "05.wav" not in {clip.path for clip in data.held_out}
    data, _ = prepared(folder, tmp_path / "none", lambda caption: False)
    assert data.shown is data.held_out[0]


def test_a_run_that_goes_on_holds_out_what_it_did(tmp_path: Path):
    folder, run = write(tmp_path / "in", *(2,) * 11), tmp_path / "run"
    before, held_out = prepared(folder, run)
    checkpoints.save(run, 0, {}, {})
    again, still = prepared(folder, run, lambda caption: caption == "caption 5")
    assert still == held_out and again.shown.caption == before.shown.caption
    (note,) = (run / "data").glob("held-out-*.json")
    note.write_text('{"held_out": [["99.wav", 0]], "shown": ["00.wav", 0]}')
    with pytest.raises(OptionError, match="damaged"):
        prepared(folder, run)
    note.unlink()  # as in a run of a version that kept none
    older, files = prepared(folder, run)
    assert files == ["00.wav", "00.wav"] and older.shown.path == "00.wav"
