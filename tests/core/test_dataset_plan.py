"""What is found in a folder, and which split and shard it goes into."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from audiogen_core.dataset import plan, scan
from audiogen_core.dataset.plan import Entry, make_plan, read_plan
from audiogen_core.errors import AudioError, CodesError
from support.noise_files import noise, noise_files

posix = pytest.mark.skipif(sys.platform == "win32", reason="names, links and pipes of POSIX")


def planned(folder: Path, data: Path, val_permille: int = 50, split_by: str = "file") -> list[Entry]:
    data.mkdir(exist_ok=True)
    groups = make_plan(folder, data, scan(folder)[0], val_permille=val_permille, split_by=split_by)
    assert read_plan(data) == groups
    return [entry for group in groups for entry in group]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


class TestScan:
    def test_files_are_found_at_any_depth_in_order(self, tmp_path):
        touch(tmp_path, "b.WAV", "a/z.mp3", "a/b/c.flac", "notes.txt", ".hidden.wav", ".git/x.wav")
        assert scan(tmp_path) == (["a/b/c.flac", "a/z.mp3", "b.WAV"], [])

    def test_kinds_of_audio_that_are_not_read_are_told(self, tmp_path):
        touch(tmp_path, "song.dsf", "song.wav", "memo.m4a")
        files, passed = scan(tmp_path)
        assert files == ["memo.m4a", "song.wav"]
        assert [(skip.path, skip.reason) for skip in passed] == [("song.dsf", "format")]

    @posix
    def test_any_name_will_do(self, tmp_path):
        names = ["é.wav", "new\nline.wav", "quote\"'.wav", os.fsdecode(b"\xff\xfe.wav")]
        touch(tmp_path, *names)
        assert set(scan(tmp_path)[0]) == set(names)

    @posix
    def test_linked_folders_are_told_and_not_followed(self, tmp_path):
        touch(tmp_path / "music", "a.wav")
        (tmp_path / "music" / "loop").symlink_to(tmp_path / "music")
        (tmp_path / "music" / "b.wav").symlink_to(tmp_path / "music" / "a.wav")
        files, passed = scan(tmp_path / "music")
        assert files == ["a.wav", "b.wav"]
        assert [(skip.path, skip.reason) for skip in passed] == [("loop", "link")]
        (tmp_path / "linked").symlink_to(tmp_path / "music")
        assert scan(tmp_path / "linked")[0] == files

    def test_own_output_is_no_source(self, tmp_path):
        touch(tmp_path, "a.wav", "tokens/meta.json", "tokens/plan.json", "tokens/x.wav")
        touch(tmp_path, "run/data/meta.json", "run/data/plan.json", "run/samples/0.wav")
        files, passed = scan(tmp_path)
        assert files == ["a.wav"]
        assert [(skip.path, skip.reason) for skip in passed] == [("run", "output"), ("tokens", "output")]

    def test_an_unreadable_folder_is_told(self, tmp_path, monkeypatch):
        touch(tmp_path, "a.wav", "locked/b.wav")
        scandir = os.scandir

        def refusing(path):
            if Path(path).name in closed:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        closed = {"locked"}
        files, passed = scan(tmp_path)
        assert files == ["a.wav"]
        assert [(skip.path, skip.reason) for skip in passed] == [("locked", "unreadable")]
        closed = {tmp_path.name}
        with pytest.raises(AudioError, match="cannot be read"):
            scan(tmp_path)

    def test_a_folder_that_is_none_is_refused(self, tmp_path):
        with pytest.raises(AudioError, match="no such folder"):
            scan(tmp_path / "nothing")


class TestSplits:
    def test_a_file_keeps_its_split_and_shard_when_others_come(self, tmp_path):
        noise_files(tmp_path / "audio", 30, 0.01)
        before = planned(tmp_path / "audio", tmp_path / "data", val_permille=300)
        assert {entry.split for entry in before} == {"train", "val"}
        touch(tmp_path / "audio", "000-new.wav", "zzz.wav")
        after = planned(tmp_path / "audio", tmp_path / "data", val_permille=300)
        assert after[:30] == before
        assert [entry.path for entry in after[30:]] == ["000-new.wav", "zzz.wav"]

    def test_the_split_follows_from_the_path_alone(self, tmp_path):
        touch(tmp_path / "one", *(f"{index}.wav" for index in range(40)))
        touch(tmp_path / "two", *(f"{index}.wav" for index in range(20, 60)))
        one, two = (
            {entry.path: entry.split for entry in planned(tmp_path / name, tmp_path / f"{name}-data", 200)}
            for name in ("one", "two")
        )
        assert {"train", "val"} == set(one.values())
        assert all(one[path] == two[path] for path in one.keys() & two.keys())

    def test_files_of_one_parent_stay_together(self, tmp_path):
        touch(tmp_path / "audio", *(f"album{index % 8}/{index}.wav" for index in range(40)))
        entries = planned(tmp_path / "audio", tmp_path / "data", 300, "parent")
        albums = {entry.path.split("/")[0]: set() for entry in entries}
        for entry in entries:
            albums[entry.path.split("/")[0]].add(entry.split)
        assert all(len(splits) == 1 for splits in albums.values())
        assert {"train", "val"} == set().union(*albums.values())

    def test_a_small_folder_holds_out_one_readable_file(self, tmp_path):
        noise_files(tmp_path / "audio", 3, 0.6)
        touch(tmp_path / "audio", *(f"broken{index}.wav" for index in range(30)))
        entries = planned(tmp_path / "audio", tmp_path / "data", val_permille=1)
        held = [entry.path for entry in entries if entry.split == "val"]
        assert len(held) == 1
        assert held[0].startswith("00")

    def test_of_a_single_file_the_tail_is_held_out(self, tmp_path):
        noise_files(tmp_path / "audio", 1, 0.6)
        assert [entry.split for entry in planned(tmp_path / "audio", tmp_path / "data")] == ["tail"]
        assert [entry.split for entry in planned(tmp_path / "audio", tmp_path / "none", 0)] == ["train"]

    def test_of_two_files_no_whole_one_is_held_out(self, tmp_path):
        noise_files(tmp_path / "audio", 2, 0.6)
        assert [entry.split for entry in planned(tmp_path / "audio", tmp_path / "data", 1)] == [
            "tail",
            "tail",
        ]


class TestDuplicates:
    def test_the_first_of_equal_files_stays(self, tmp_path):
        audio = noise_files(tmp_path / "audio", 2, 0.01)
        (audio / "copy.wav").write_bytes((audio / "000.wav").read_bytes())
        entries = {entry.path: entry for entry in planned(audio, tmp_path / "data")}
        assert [entry.duplicate for entry in entries.values()] == [None, None, "000.wav"]
        (audio / "000-again.wav").write_bytes((audio / "001.wav").read_bytes())
        again = {entry.path: entry for entry in planned(audio, tmp_path / "data")}
        assert again["000-again.wav"].duplicate == "001.wav"
        assert entries.items() <= again.items()

    def test_a_copy_is_the_file_itself_when_the_first_is_gone(self, tmp_path):
        audio = noise_files(tmp_path / "audio", 3, 0.01)
        (audio / "copy.wav").write_bytes((audio / "000.wav").read_bytes())
        planned(audio, tmp_path / "data")
        (audio / "000.wav").unlink()
        assert [(entry.path, entry.duplicate) for entry in planned(audio, tmp_path / "data")] == [
            ("001.wav", None),
            ("002.wav", None),
            ("copy.wav", None),
        ]

    @posix
    def test_what_is_no_file_is_planned_without_reading_it(self, tmp_path):
        touch(tmp_path / "audio", "a.wav")
        os.mkfifo(tmp_path / "audio" / "pipe.wav")
        (tmp_path / "audio" / "gone.wav").symlink_to(tmp_path / "nowhere")
        sizes = {entry.path: entry.size for entry in planned(tmp_path / "audio", tmp_path / "data")}
        assert sizes == {"a.wav": 5, "pipe.wav": -1, "gone.wav": -1}


class TestShards:
    def test_small_folders_go_into_small_shards(self, tmp_path, monkeypatch):
        monkeypatch.setattr(plan, "_SHARD_BYTES", (100_000, 1_000_000))
        for index in range(10):
            (tmp_path / "audio").mkdir(exist_ok=True)
            noise(1.0, index).save(tmp_path / "audio" / f"{index}.wav")  # 48 kB
        planned(tmp_path / "audio", tmp_path / "data")
        assert [len(group) for group in read_plan(tmp_path / "data")] == [2] * 5

    def test_large_folders_are_cut_into_sixty_four(self):
        entries = [Entry(str(index), "train", 30 << 20) for index in range(64 * 2)]
        assert {len(group) for group in plan._grouped(entries)} == {2}
        small = [Entry(str(index), "train", 1000) for index in range(1000)]
        assert max(len(group) for group in plan._grouped(small)) == 64

    @posix
    def test_a_pipe_is_no_plan(self, tmp_path):
        os.mkfifo(tmp_path / "plan.json")
        with pytest.raises(CodesError, match=r"plan\.json: the plan is damaged .*no regular file"):
            read_plan(tmp_path)

    def test_a_damaged_plan_is_named(self, tmp_path):
        touch(tmp_path / "audio", "a.wav")
        planned(tmp_path / "audio", tmp_path / "data")
        text = (tmp_path / "data" / "plan.json").read_text()
        for damaged in (text[:-9], "7", '[["a"]]', '[[{"path": "a", "split": 5}]]'):
            (tmp_path / "data" / "plan.json").write_text(damaged)
            with pytest.raises(CodesError, match=r"plan\.json: the plan is damaged"):
                read_plan(tmp_path / "data")
