"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiogen_core.errors import OptionError
from audiogen_core.files import TEMPORARY, atomic_folder, remove_folder, require_new_folder


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
        with pytest.raises(OptionError, match="exists and is not an empty folder"):
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
