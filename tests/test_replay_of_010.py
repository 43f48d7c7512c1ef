"""Files that release 0.1.0 made are made again, to the sample, from the recipes they carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from support.commands import call
from support.programs import program
from support.stored import FIXTURES, Stored, digest, recorded_here, samples, stored


def by_role(file: Stored) -> list[str]:
    """Where model and clips are now, by `--use`."""
    return [text for role, place in file.use.items() for text in ("--use", f"{role}={FIXTURES / place}")]


def by_options(file: Stored) -> list[str]:
    """The same by an option for each, as `audiogen-onnx` and `audiogen-minigpt` of 0.1.0 had them."""
    return [
        str(text)
        for role, place in file.use.items()
        for text in (f"--{role.replace('_', '-')}", FIXTURES / place)
    ]


CASES = [(file, by_role) for file in stored()]
CASES += [(file, by_options) for file in stored() if file.program != "audiogen-mlx"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As when the files were made: torch adds in another order with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("file", "moved"), CASES, ids=[f"{file.name} {moved.__name__}" for file, moved in CASES]
)
@pytest.mark.filterwarnings("ignore::audiogen_core.audio.ClippingWarning")
def test_a_stored_file_is_made_again(
    file: Stored, moved: Callable[[Stored], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where none of the recipe's paths is
    again = tmp_path / "again.flac"
    done = call(program(file.program), "replay", file.path, "-o", again, "-q", *moved(file))
    assert done.exit_code == 0, done.stderr
    before, after = samples(file.path), samples(again)
    assert before.shape == after.shape
    gap = int(np.abs(before.astype(np.int32) - after).max())
    assert gap <= 1, f"{gap} steps of 16 bits apart"
    if recorded_here():
        assert digest(again) == file.sha256
