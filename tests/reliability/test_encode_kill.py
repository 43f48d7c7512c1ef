"""encode, killed: what is there at the end is what an undisturbed run makes, to the byte."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from audiogen_core.dataset.encode import encode, verify
from audiogen_core.dataset.shards import read_shards
from support.figures import tell
from support.kills import KILLED, contents, encode_killed_after, encode_killed_at_sync, wait_until_gone
from support.noise_files import CODEC, noise, noise_files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def few_files_per_shard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: int, seconds: float) -> Path:
    """A folder of audio whose files go into shards two by two; a killed run goes on by the plan it finds."""
    monkeypatch.setattr("audiogen_core.dataset.plan._SHARD_FILES", 2)
    return noise_files(tmp_path / "audio", files, seconds)


def planned(folder: Path, data: Path) -> Path:
    """A folder of codes with a plan and nothing done."""
    encode(folder, data, codec=CODEC, workers=1)
    for path in [*data.glob("shard-*"), data / "report.jsonl"]:
        path.unlink()
    return data


def check_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    folder = few_files_per_shard(monkeypatch, tmp_path, 16 * kills, 2.0)
    encode(folder, tmp_path / "undisturbed", codec=CODEC, workers=1)
    data = planned(folder, tmp_path / "killed")
    rng = random.Random(0)
    for _ in range(kills):
        before = len(read_shards(data))
        assert encode_killed_after(folder, data, rng.randrange(2), rng.uniform(0, 0.03)) == KILLED
        assert before <= len(read_shards(data))
    report = encode(folder, data, codec=CODEC, workers=1)
    assert report.encoded > 0
    assert contents(data) == contents(tmp_path / "undisturbed")
    assert verify(data) > 0
    tell(
        "encoding",
        "kill -9 at random moments of the run or of its workers",
        kills,
        "finished afterwards with the same bytes each time",
        promised="the bytes of an undisturbed run",
    )


def test_three_kills(tmp_path, monkeypatch):
    check_kills(tmp_path, monkeypatch, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path, monkeypatch):
    check_kills(tmp_path, monkeypatch, 20)


def test_a_kill_at_every_write(tmp_path, monkeypatch):
    folder = noise_files(tmp_path / "audio", 2)
    encode(folder, tmp_path / "undisturbed", codec=CODEC, workers=1)
    expected = contents(tmp_path / "undisturbed")
    for count in range(100):
        data = tmp_path / f"killed-{count}"
        if encode_killed_at_sync(folder, data, count) != KILLED:
            break
        for shard in read_shards(data):
            assert shard.open(8).shape == (shard.frames, 8)
        encode(folder, data, codec=CODEC, workers=1)
        assert contents(data) == expected
    assert count == 2 * len(expected)  # each file is flushed, and then its folder
    tell("encoding", "kill -9 at every write to the disk", count, "the same bytes", promised="the same bytes")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_workers_end_with_their_parent(tmp_path, monkeypatch):
    folder = few_files_per_shard(monkeypatch, tmp_path, 24, 4.0)
    encode(folder, tmp_path / "undisturbed", codec=CODEC, workers=1)
    data = planned(folder, tmp_path / "killed")
    pids = tmp_path / "pids"
    assert encode_killed_after(folder, data, 1, 0.0, workers=2, pids=pids) == KILLED
    workers = [int(pid) for pid in pids.read_text().split()]
    assert len(workers) == 2
    wait_until_gone(workers)
    encode(folder, data, codec=CODEC, workers=1)
    assert contents(data) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_kill_at_every_write_of_what_changed(tmp_path, monkeypatch):
    folder = few_files_per_shard(monkeypatch, tmp_path, 3, 1.0)
    before = tmp_path / "before"
    encode(folder, before, codec=CODEC, workers=1)
    (folder / "001.wav").unlink()
    noise(1.0, 99).save(folder / "002.wav", force=True)
    noise(1.0, 98).save(folder / "new.wav")
    encode(folder, shutil.copytree(before, tmp_path / "undisturbed"), codec=CODEC, workers=1)
    expected = contents(tmp_path / "undisturbed")
    for count in range(100):
        data = shutil.copytree(before, tmp_path / f"killed-{count}")
        if encode_killed_at_sync(folder, data, count) != KILLED:
            break
        encode(folder, data, codec=CODEC, workers=1)
        assert contents(data) == expected
    assert count > 8
