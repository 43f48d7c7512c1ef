"""Files that release 0.1.0 made are made again, to the sample, from the recipes they carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from audiogen_minigpt.cli import commands as minigpt
from audiogen_mlx.cli import cli as mlx
from audiogen_onnx.cli import cli as onnx
from support.commands import call
from support.stored import FIXTURES, Stored, digest, recorded_here, samples, stored

PROGRAMS: dict[str, typer.Typer] = {
    "audiogen-mlx": mlx,
    "audiogen-onnx": onnx,
    "audiogen-minigpt": minigpt,
}


def moved(file: Stored) -> list[str]:
    """Where model and clips are now, told as 0.1.0 was told."""
    places = {role: FIXTURES / place for role, place in file.use.items()}
    if file.program == "audiogen-mlx":
        return [text for role, place in places.items() for text in ("--use", f"{role}={place}")]
    return [str(text) for role, place in places.items() for text in (f"--{role.replace('_', '-')}", place)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As when the files were made: torch adds in another order with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("file", stored(), ids=lambda file: file.name)
@pytest.mark.filterwarnings("ignore::audiogen_core.audio.ClippingWarning")
def test_a_stored_file_is_made_again(file: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where none of the recipe's paths is
    again = tmp_path / "again.flac"
    done = call(PROGRAMS[file.program], "replay", file.path, "-o", again, "-q", *moved(file))
    assert done.exit_code == 0, done.stderr
    before, after = samples(file.path), samples(again)
    assert before.shape == after.shape
    gap = int(np.abs(before.astype(np.int32) - after).max())
    assert gap <= 1, f"{gap} steps of 16 bits apart"
    if recorded_here():
        assert digest(again) == file.sha256
