"""Output files when a process is killed or interrupted, or the disk is full: the old or the new, whole."""

from __future__ import annotations

import io
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs
from audiogen_core.audio import Audio, AudioWriter
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, CodesError
from support.figures import tell
from support.sounds import tone

CODEC = str(Path(__file__).parents[1] / "fixtures" / "encodec" / "24k")
OUTPUTS = ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.codes", "a.png")

WRITER = """
import sys
import numpy as np
from audiogen_core import plot
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes

def save(path, which):
    rng = np.random.default_rng(which)
    audio = Audio(rng.uniform(-0.5, 0.5, (2, 48_000 * (4 + which))), 48_000)
    if path.endswith(".codes"):
        Codes(rng.integers(0, 1024, (8, 40_000 + which)), 1024, 75.0, "demo").save(path, force=True)
    elif path.endswith(".png"):
        plot.waveform(audio, path)
    else:
        audio.save(path, force=True)

if __name__ == "__main__":
    save(sys.argv[1], 0)
    print("ready", flush=True)
    while True:
        save(sys.argv[1], 1)
        save(sys.argv[1], 0)
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


def mount_allowed() -> bool:
    line = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(line, capture_output=True).returncode == 0


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that writes one of two contents over and over; returned when the first is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def expected(folder: Path, name: str) -> set[bytes]:
    """The two contents, whole."""
    space: dict[str, object] = {"__name__": "writer"}
    exec(WRITER, space)
    folder.mkdir()
    contents = set()
    for which in (0, 1):
        space["save"](str(folder / name), which)
        contents.add((folder / name).read_bytes())
    assert len(contents) == 2
    return contents


def strike(tmp_path: Path, name: str, number: int, kills: int) -> int:
    """Stop the writer at random moments; returns how many temporary files are left."""
    contents = expected(tmp_path / "expected", name)
    folder = tmp_path / "out"
    folder.mkdir()
    rng = random.Random(name)
    for _ in range(kills):
        with writer(folder / name) as process:
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(number)
            process.communicate(timeout=60)
        assert (folder / name).read_bytes() in contents
    return len(list(folder.iterdir())) - 1


@posix
@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_killed_while_saving(tmp_path, name):
    strike(tmp_path, name, signal.SIGKILL, 5)


@posix
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", OUTPUTS)
def test_killed_at_100_moments(tmp_path, name):
    left = strike(tmp_path, name, signal.SIGKILL, 100)
    tell(
        "output files",
        f"kill -9 at random moments while saving {Path(name).suffix}",
        100,
        f"the old file or the new one, whole, each time; {left} came while a temporary file was there",
        promised="the old file intact or the new one whole",
    )


@posix
@pytest.mark.parametrize("name", ["a.flac", "a.codes"])
def test_interrupted_while_saving_nothing_is_left(tmp_path, name):
    assert strike(tmp_path, name, signal.SIGINT, 3) == 0


LIMITED = """
import resource, sys
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudiogenError
source, target, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
audio = Audio.load(source)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    audio.save(target, subtype=None, force=True)
except AudiogenError as error:
    print(error)
    sys.exit(3)
"""


def check_refused(done: subprocess.CompletedProcess[str], folder: Path, name: str, old: bytes | None) -> None:
    assert done.returncode == 3, done.stderr
    assert f"{name}: could not be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir()] == ([name] if old is not None else [])
    if old is not None:
        assert (folder / name).read_bytes() == old


@posix
@pytest.mark.parametrize("limit", [1, 100_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff"])
def test_a_file_that_may_not_grow(tmp_path, name, limit):
    source = Audio(np.random.default_rng(0).uniform(-1, 1, (2, 48_000 * 8)), 48_000).save(tmp_path / "in.wav")
    folder = tmp_path / "out"
    folder.mkdir()
    tone(0.1).save(folder / name)
    old = (folder / name).read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(source), str(folder / name), str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    check_refused(done, folder, name, old)


@pytest.mark.skipif(not mount_allowed(), reason="needs Linux user namespaces to mount in")
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_full_disk(tmp_path, name):
    source = Audio(np.random.default_rng(0).uniform(-1, 1, (2, 48_000 * 8)), 48_000).save(tmp_path / "in.wav")
    disk = tmp_path / "disk"
    disk.mkdir()
    program = tmp_path / "limited.py"
    program.write_text(LIMITED)
    line = (
        f"mount -t tmpfs -o size=64k none {disk} && {sys.executable} {program} {source} {disk}/{name} 0; "
        f"code=$?; ls -A {disk} >&2; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    check_refused(done, disk, name, None)
    assert "MB are free there" in done.stdout


@posix
def test_the_command_on_a_full_disk(tmp_path):
    codes = codecs.load(CODEC).encode(tone(20, sample_rate=24_000)).save(tmp_path / "a.codes")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from audiogen_core.main import main; main()"
    )
    for line in (
        ["decode", str(codes), "-o", str(tmp_path / "b.wav"), "--codec", CODEC],
        ["compose", "-o", str(tmp_path / "music"), "--minutes", "0.2", "--seed", "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "b.wav").exists()


def test_a_folder_that_goes_away(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        pytest.raises(AudioError, match=r"could not be written .*the folder is gone"),
        AudioWriter(folder / "a.wav", 48_000, 1) as made,
    ):
        made.write(np.zeros((1, 1_000), np.float32))
        shutil.rmtree(folder)


def test_codes_survive_a_failed_save(tmp_path, monkeypatch):
    path = tmp_path / "a.codes"
    Codes(np.zeros((2, 5), np.int64), 8, 75.0, "demo").save(path)
    old = path.read_bytes()

    class Full(io.FileIO):
        """A file on a disk without room: it is made, and nothing can be written to it."""

        def write(self, data):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(CodesError, match="No space"):
        patched.setattr(Path, "open", lambda self, mode: Full(self, mode))
        Codes(np.ones((2, 5), np.int64), 8, 75.0, "demo").save(path, force=True)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
