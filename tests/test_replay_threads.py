"""A file is made again to the byte whatever number of threads is in force: its recipe keeps its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from threadpoolctl import threadpool_info

from audiogen_core.recipe import Recipe
from support.commands import call
from support.programs import program as program_of

JOBS = {
    "musicgen": ("audiogen-mlx", ["musicgen", "slow piano", "-m", "demo", "--seconds", "1"]),
    "stable-audio": (
        "audiogen-mlx",
        ["stable-audio", "slow piano", "-m", "demo", "--seconds", "1", "--steps", "2"],
    ),
    "vamp": ("audiogen-onnx", ["vamp", "in.wav", "-m", "demo"]),
    "generate": ("audiogen-minigpt", ["generate", "demo", "--seconds", "1"]),
}


def numpys_threads() -> set[int]:
    """Of the library that numpy's products come from; others, loaded later, compute nothing here."""
    return {each["num_threads"] for each in threadpool_info() if "numpy.libs" in each["filepath"]}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.filterwarnings("ignore::audiogen_core.audio.ClippingWarning")
def test_the_same_bytes_with_one_two_and_four_threads(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = 0.3 * np.random.default_rng(0).normal(size=(44_100, 1)).clip(-3, 3)
    soundfile.write("in.wav", clip, 44_100)
    program, words = JOBS[job]
    app = program_of(program)
    made = {}
    for count in (1, 2, 4):
        made[count] = tmp_path / f"{count}.wav"
        done = call(app, *words, "--seed", 3, "--threads", count, "-o", made[count], "-q")
        assert done.exit_code == 0, done.stderr
        assert Recipe.read(made[count]).settings["threads"] == count
        assert numpys_threads() == {count}
    for count, before in made.items():  # four are in force at first, and then those of the file before
        again = tmp_path / f"again-{count}.wav"
        done = call(app, "replay", before, "-o", again, "-q")
        assert done.exit_code == 0, done.stderr
        assert numpys_threads() == {count}
        assert again.read_bytes() == before.read_bytes()
    other = tmp_path / "other.wav"
    done = call(app, "replay", made[2], "--threads", 1, "-o", other, "-q")
    assert done.exit_code == 0, done.stderr
    assert other.read_bytes() == made[1].read_bytes()
