"""Files and folders that appear whole or not at all, and what is never replaced."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import cli, plot
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_core.files import TEMPORARY, atomic_folder, atomic_path, remove_folder, require_new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "made" / "model"
    with atomic_folder(target) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a.txt").write_text("a")
        assert not target.exists() and folder.parent == target.parent
        assert folder.name.startswith(f"{TEMPORARY}model-")
    assert names(tmp_path) == ["made", "made/model", "made/model/below", "made/model/below/a.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "a.txt").write_text("a")
    assert names(tmp_path) == ["model", "model/a.txt"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_fails_leaves_nothing_behind(tmp_path: Path, replace: bool) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model", replace=replace) as folder:
        (folder / "a.txt").write_text("a")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "b.txt").write_text("b")
    for name in ("file", "full"):
        with pytest.raises(OptionError, match="exists already and is not an empty folder"):
            require_new_folder(tmp_path / name)
        with pytest.raises(OptionError, match="exists already"), atomic_folder(tmp_path / name):
            raise AssertionError("begun all the same")
    require_new_folder(tmp_path / "new")
    assert names(tmp_path) == ["file", "full", "full/b.txt"]


def test_a_folder_gives_way_to_a_new_one(tmp_path: Path) -> None:
    for number in range(2):
        with atomic_folder(tmp_path / "model", replace=True) as folder:
            (folder / f"{number}.txt").write_text("a")
    assert names(tmp_path) == ["model", "model/1.txt"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").write_text("a")
    plain = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target).name == "model" and "old-" not in self.name:
            raise OSError("no")
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "model", replace=True):
        pass
    assert names(tmp_path) == ["model", "model/old.txt"]


def test_a_folder_is_removed_under_its_name_at_once(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("a")
    remove_folder(tmp_path / "model")
    assert names(tmp_path) == []


posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and modes of POSIX")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name may have 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def _link(path: Path) -> None:
    (path.parent / "real.wav").write_bytes(b"old")
    path.symlink_to("real.wav")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "link": _link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to a device": lambda path: path.symlink_to("/dev/null"),
}


@posix
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", SPECIAL)
def test_devices_pipes_and_links_are_never_replaced(tmp_path: Path, kind: str, force: bool) -> None:
    target = tmp_path / "out.wav"
    SPECIAL[kind](target)
    before = target.lstat()
    with pytest.raises(OptionError, match="not replaced; name"):
        cli.require_new(target, force)
    with pytest.raises(OptionError, match="not replaced; name"), atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
    for replace in (False, True):
        with pytest.raises(OptionError, match="not replaced; name"), atomic_folder(target, replace=replace):
            pass
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert set(names(tmp_path)) <= {"out.wav", "real.wav"}
    if kind == "link":
        assert (tmp_path / "real.wav").read_bytes() == b"old"


@posix
def test_standard_output_by_its_name_is_not_replaced() -> None:
    for name in ("/dev/stdout", "/dev/null", "/dev/fd/1"):
        with pytest.raises(OptionError, match="not replaced; name"):
            cli.require_new(name, force=True)


@posix
def test_a_link_that_appears_while_the_file_is_written(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    with pytest.raises(OptionError, match="not replaced"), atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        _link(target)
    assert names(tmp_path) == ["a.wav", "real.wav"]
    assert target.is_symlink()


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_a_file_that_is_replaced_hands_on_its_mode(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    target.chmod(mode)
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_a_file_that_is_replaced_hands_on_its_owner(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    os.chown(target, 1234, 2345)
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 2345)


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    with atomic_path(tmp_path / "a.wav") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda path: Codes(np.zeros((1, 2), int), 4, 50.0, "x").save(path), CodesError),
        (lambda path: plot.codes(Codes(np.zeros((1, 2), int), 4, 50.0, "x"), path), OptionError),
        (lambda path: Audio(np.zeros((1, 9), np.float32), 8000).save(f"{path}.wav"), AudioError),
    ],
)
@pytest.mark.parametrize("place", ["file/below", "no/such/folder/a"])
def test_what_cannot_be_written_is_an_error_of_ours(write, error, place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(error, match="written"):
        write(tmp_path / place)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("name", [".", "/"])
def test_a_target_without_a_name_is_refused(name):
    with pytest.raises(OptionError, match="name a file"), atomic_path(name):
        pass


def test_only_a_folder_of_its_kind_is_written_over(tmp_path):
    """With --force what was exported before gives way, and no home of anybody's."""
    home, export = tmp_path / "home", tmp_path / "export"
    for folder, name in ((home, "letters.txt"), (export, "manifest.json")):
        folder.mkdir()
        (folder / name).write_text("old")
    with (
        pytest.raises(OptionError, match=r"no manifest\.json in it"),
        atomic_folder(home, over=["manifest.json"]),
    ):
        pass
    assert (home / "letters.txt").read_text() == "old"
    with atomic_folder(export, over=["manifest.json"]) as new:
        (new / "weights").write_text("new")
    assert [path.name for path in export.iterdir()] == ["weights"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "home"]
