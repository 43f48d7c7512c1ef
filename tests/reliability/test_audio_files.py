"""Damaged audio files of twelve formats: only AudioError, no crash, no hang, little memory.

Files are loaded in a process of their own, so that a fault inside the decoder is seen and counted.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from audiogen_core.recipe import Recipe
from support import audio_worker
from support.audio_mutations import damage
from support.figures import tell
from support.foreign import write_foreign
from support.sounds import FILES, tone, write_reference

CPU_SECONDS = 2.0
"""More than this on one file counts as a hang."""

MEMORY = 512 << 20
WATCHDOG = 60.0  # seconds of the clock; the machine may be busy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="memory is measured the POSIX way")


class Worker:
    """The loading process; started again when it dies."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, audio_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def load(self, path: Path) -> dict[str, object]:
        self._process.stdin.write(json.dumps(str(path)) + "\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=WATCHDOG)
        except queue.Empty:
            self.close()
            self._start()
            return {"result": "hang", "seconds": WATCHDOG, "memory": 0}
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._start()
        return {"result": f"crash ({code})", "seconds": 0, "memory": 0}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    comment = Recipe("audiogen-core", "0.1.0", "demo", seed=1).to_json()
    made = {}
    for name, subtype in FILES.items():
        audio = tone(0.3, channels=2)
        made[name] = write_reference(folder / name, audio, subtype, comment=comment).read_bytes()
    for form in ("W64", "RF64"):
        made[f"{form}.wav"] = write_reference(folder / "long.wav", audio, "PCM_16", form=form).read_bytes()
    return made


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> dict[str, bytes]:
    """What FFmpeg reads."""
    folder = tmp_path_factory.mktemp("foreign")
    kinds = {
        "a.m4a": "aac",
        "b.m4a": "alac",
        "c.wma": "wmav2",
        "d.webm": "libopus",
        "e.mka": "flac",
        "f.wv": "wavpack",
        "g.caf": "pcm_s16be",
        "h.au": "pcm_s16be",
    }
    clip = tone(0.3, channels=2)
    return {name: write_foreign(folder / name, clip, codec).read_bytes() for name, codec in kinds.items()}


def run(
    worker: Worker, originals: dict[str, bytes], folder: Path, count: int, what: str = "of twelve formats"
) -> None:
    results: Counter[str] = Counter()
    wrong: list[str] = []
    slowest, memory = 0.0, 0
    for seed in range(count):
        name = list(originals)[seed % len(originals)]
        path = folder / name
        done = damage(originals[name], path, seed)
        answer = worker.load(path)
        results[str(answer["result"])] += 1
        slowest = max(slowest, float(answer["seconds"]))
        memory = max(memory, int(answer["memory"]))
        if answer["result"] not in ("loaded", "refused") or answer["seconds"] > CPU_SECONDS:
            wrong.append(f"seed {seed}, {name}, {done}: {answer}")
    assert wrong == []
    assert memory < MEMORY
    assert results["refused"] > count / 3
    assert results["loaded"] > 0
    tell(
        "audio files",
        f"files {what} damaged, loaded in a process of their own",
        count,
        f"0 crashes, 0 hangs; {results['refused']:,} refused, {results['loaded']:,} readable; slowest "
        f"{slowest:.2f} s of CPU; largest process {memory / 1e6:.0f} MB",
        promised=f"no crash, no hang over {CPU_SECONDS:g} s, below {MEMORY >> 20} MiB, only AudioError",
    )


def test_the_originals_load(worker, originals, tmp_path):
    for name, data in originals.items():
        (tmp_path / name).write_bytes(data)
        assert worker.load(tmp_path / name)["result"] == "loaded"


def test_damaged_files(worker, originals, tmp_path):
    run(worker, originals, tmp_path, 400)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_20_000_damaged_files(worker, originals, tmp_path):
    run(worker, originals, tmp_path, 20_000)


@pytest.mark.parametrize(
    "count",
    [30, pytest.param(2_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_damaged_files_that_ffmpeg_reads(worker, foreign, tmp_path, count):
    run(worker, foreign, tmp_path, count, "that FFmpeg reads")


def test_a_crash_would_be_seen(worker, tmp_path, monkeypatch):
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(BrokenPipeError):
        worker.load(tmp_path / "none.wav")
    worker._start()
    assert worker.load(tmp_path / "none.wav")["result"] == "refused"
