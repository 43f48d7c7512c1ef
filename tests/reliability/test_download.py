"""Downloads that are killed, run in parallel, or meet a full or read-only disk.

The rule in every case: a model is never returned half there. Real processes, real signals; the
mounts need `unshare` with user namespaces, which CI machines and most Linux desktops have.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import hub
from audiogen_core.errors import DownloadError
from audiogen_core.models import FileSpec, ModelSpec
from support.figures import tell
from support.loopback_hub import ALLOWED, OFFLINE, LoopbackHub, point_at

REPO = "someone/tiny"
WEIGHTS = np.random.default_rng(11).bytes(3_000_000)
CONFIG = b'{"model_type": "encodec"}'
SPEC = ModelSpec(
    "tiny",
    "encodec",
    REPO,
    LoopbackHub.revision,
    (FileSpec("config.json"), FileSpec("model.safetensors")),
    "MIT",
)

CHILD = f"""
import sys
from audiogen_core import hub
from audiogen_core.errors import DownloadError
from audiogen_core.models import FileSpec, ModelSpec
hub.DISK_MARGIN = -(1 << 60)
spec = ModelSpec("tiny", "encodec", {REPO!r}, {LoopbackHub.revision!r},
                 (FileSpec("config.json"), FileSpec("model.safetensors")), "MIT")
try:
    print(hub.asking(notify=lambda text: None)(spec))
except DownloadError as error:
    print("refused:", error)
    sys.exit(3)
"""

unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")
namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode
    != 0,
    reason="needs Linux user namespaces to mount in",
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub({REPO: {"config.json": CONFIG, "model.safetensors": WEIGHTS}}) as server:
        point_at(server.endpoint, tmp_path / "home" / "hub", monkeypatch)
        yield server
        server.released.set()


def child(server: LoopbackHub, home: Path, *before: str) -> subprocess.Popen[str]:
    """A process that fetches the model through the environment's settings, as a user's would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": server.endpoint, "NO_PROXY": "127.0.0.1"}
    command = [*before, sys.executable, "-c", CHILD]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def assert_whole(folder: Path) -> None:
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def offsets(count: int) -> list[int]:
    return [int(at) for at in np.linspace(0, len(WEIGHTS) - 1, count)]


def kill_and_recover(server: LoopbackHub, home: Path, offset: int) -> None:
    server.faults.stall_at = offset
    server.stalled.clear()
    server.released.clear()
    process = child(server, home)
    assert server.stalled.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    server.released.set()
    with pytest.raises(DownloadError, match=r"model\.safetensors is missing"):
        hub.fetch(SPEC, OFFLINE)
    server.faults.stall_at = None
    assert_whole(hub.fetch(SPEC, ALLOWED))
    assert_whole(hub.fetch(SPEC, OFFLINE))


@unix
@pytest.mark.parametrize("offset", offsets(8))
def test_killed_while_a_file_comes_in(server: LoopbackHub, tmp_path: Path, offset: int) -> None:
    kill_and_recover(server, tmp_path / "home", offset)


@unix
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_fifty_places(server: LoopbackHub, tmp_path: Path) -> None:
    for offset in offsets(50):
        kill_and_recover(server, tmp_path / "home", offset)
        shutil.rmtree(tmp_path / "home")
    tell(
        "downloads",
        "kill -9 while a file comes in, at places spread over it",
        50,
        "not taken for whole offline; whole after the next fetch",
        promised="never half a model",
    )


def test_eight_processes_at_once(server: LoopbackHub, tmp_path: Path) -> None:
    processes = [child(server, tmp_path / "home") for _ in range(8)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, answers
    folders = {out.strip() for out, _ in answers}
    assert len(folders) == 1
    assert_whole(Path(folders.pop()))
    assert list((tmp_path / "home").rglob("*.incomplete")) == []
    tell(
        "downloads",
        "processes that fetch at once",
        8,
        "all have the whole model",
        promised="never half a model",
    )


def test_several_processes_meet_a_damaged_cache(server: LoopbackHub, tmp_path: Path) -> None:
    folder = hub.fetch(SPEC, ALLOWED)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    processes = [child(server, tmp_path / "home") for _ in range(3)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, answers
    assert_whole(folder)


def test_two_hundred_flips_and_fifty_cuts_are_all_found(server: LoopbackHub) -> None:
    blob = (hub.fetch(SPEC, ALLOWED) / "model.safetensors").resolve()
    rng = np.random.default_rng(4)
    damages = []
    for at in (0, len(WEIGHTS) - 1, *(int(at) for at in rng.integers(0, len(WEIGHTS), 198))):
        damages.append(WEIGHTS[:at] + bytes([WEIGHTS[at] ^ (1 << int(rng.integers(8)))]) + WEIGHTS[at + 1 :])
    damages += [WEIGHTS[:at] for at in offsets(50)]
    for damaged in damages:
        blob.write_bytes(damaged)
        with pytest.raises(DownloadError, match=r"model\.safetensors does not have the hash"):
            hub.fetch(SPEC, OFFLINE)
    blob.write_bytes(WEIGHTS)
    assert_whole(hub.fetch(SPEC, OFFLINE))
    tell(
        "corrupted weights",
        "one bit flipped in 200 places, cut at 50",
        len(damages),
        "all found, and named",
        promised="all found where a hash is known",
    )


def test_settings_of_the_environment_are_followed(server: LoopbackHub, tmp_path: Path) -> None:
    out, err = child(server, tmp_path / "other").communicate(timeout=60)
    assert out.startswith(str(tmp_path / "other" / "hub")), err
    assert err == ""
    assert not (tmp_path / "home").exists()


@unix
def test_a_limit_on_file_size_is_a_full_disk(server: LoopbackHub, tmp_path: Path) -> None:
    process = child(server, tmp_path / "home", "sh", "-c", 'ulimit -f 1000; exec "$@"', "sh")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (3, "")
    assert "the disk is full; make room" in out
    assert_whole(hub.fetch(SPEC, ALLOWED))


@unix
@namespaces
def test_a_full_disk(server: LoopbackHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = (
        'mount -t tmpfs -o size=1m none "$0"; "$@"; code=$?; find "$0" -name model.safetensors; exit $code'
    )
    process = child(server, home, "unshare", "-rm", "sh", "-c", script, str(home))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert out.splitlines() == [
        "refused: tiny: the disk is full; make room, or set HF_HOME to a folder on another disk"
    ]


@unix
@namespaces
def test_a_read_only_cache_serves_what_it_has(server: LoopbackHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    hub.fetch(SPEC, ALLOWED)
    requests = len(server.log)
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    for remembered in (True, False):
        if not remembered:
            (home / "hub" / f"models--{REPO.replace('/', '--')}" / ".audiogen.json").unlink()
        process = child(server, home, "unshare", "-rm", "sh", "-c", script, str(home))
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert_whole(Path(out.strip()))
    assert len(server.log) == requests


@unix
@namespaces
def test_a_read_only_cache_that_lacks_the_model(server: LoopbackHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "hub").mkdir(parents=True)
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    process = child(server, home, "unshare", "-rm", "sh", "-c", script, str(home))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (3, "")
    assert "cannot be written; set HF_HOME" in out
