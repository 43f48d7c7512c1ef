"""encode, killed at random moments: what is finished is what an undisturbed run makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio
from audiogen_minigpt.encode import encode
from audiogen_minigpt.shards import verify
from support.kills import contents, run_with_kills

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"

PROGRAM = """
import sys
from audiogen_minigpt import encode as module, plan
plan._SHARD_FILES = 2
if __name__ == "__main__":
    module.encode(sys.argv[1], sys.argv[2], codec=sys.argv[3], workers=1)
"""


def check(tmp_path: Path, monkeypatch, kills: int, files: int) -> int:
    monkeypatch.setattr("audiogen_minigpt.plan._SHARD_FILES", 2)
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(files):
        rng = np.random.default_rng(index)
        Audio(rng.uniform(-0.3, 0.3, (1, 24000 * 4)).astype(np.float32), 24000).save(folder / f"{index}.wav")
    encode(folder, tmp_path / "undisturbed", codec=CODEC, workers=1)
    struck = run_with_kills(
        PROGRAM, str(folder), str(tmp_path / "killed"), str(CODEC), kills=kills, longest=1.2
    )
    finished = contents(tmp_path / "undisturbed", "*.*")
    assert len(finished) == files + 3
    assert contents(tmp_path / "killed", "[!.]*.*") == finished
    assert verify(tmp_path / "killed") == files * 300
    return struck


@pytest.mark.timeout(300)
def test_three_kills(tmp_path, monkeypatch):
    assert check(tmp_path, monkeypatch, kills=3, files=24) >= 1


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path, monkeypatch):
    assert check(tmp_path, monkeypatch, kills=20, files=160) >= 20
