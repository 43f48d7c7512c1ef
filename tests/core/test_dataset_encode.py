"""A folder of audio becomes the same shards whatever the engine; every file is used or reported."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiogen_core import Audio, codecs, values
from audiogen_core.dataset import captions, engines, plan
from audiogen_core.dataset.encode import NoUsableAudio, encode, verify
from audiogen_core.dataset.options import Preparation as Options
from audiogen_core.dataset.prepare import encode_track
from audiogen_core.dataset.shards import Part, Track, read_report, read_shards, tracks_of
from audiogen_core.errors import CodesError, MissingDependency, OptionError
from audiogen_core.files import SPARE
from audiogen_core.training.errors import DiskFull
from support.foreign import write_foreign
from support.kills import contents
from support.noise_files import CODEC, noise, noise_files, shard_files

posix = pytest.mark.skipif(sys.platform == "win32", reason="names, signals and pipes of POSIX")


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "audio"
    (root / "album").mkdir(parents=True)
    for index in range(5):
        noise(1.0 + index / 10, index).save(root / f"{index}.wav")
    noise(1.5, 10, rate=44100, channels=2).save(root / "album" / "stereo é\n.flac")
    return root


def test_every_engine_and_number_of_workers_gives_the_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("audiogen_core.dataset.plan._SHARD_FILES", 2)
    inline = encode(folder, tmp_path / "a", codec=codecs.load(CODEC))
    assert (inline.tracks, inline.encoded) == (6, 3)
    encode(folder, tmp_path / "b", codec=CODEC, workers=2)
    assert shard_files(tmp_path / "a") == shard_files(tmp_path / "b")
    assert verify(tmp_path / "a") == sum(shard.frames for shard in read_shards(tmp_path / "a"))


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_errors_as_they_are(folder, tmp_path, monkeypatch):
    """Run by `uv run`, this waited for ever: Ray sent its workers into an environment without Ray."""
    monkeypatch.setattr("audiogen_core.dataset.plan._SHARD_FILES", 3)
    encode(folder, tmp_path / "a", codec=CODEC, workers=1)
    try:
        encode(folder, tmp_path / "b", codec=CODEC, engine="ray", workers=1)
        entries = tuple(plan.read_plan(tmp_path / "b")[0])
        job = engines.Job(folder, tmp_path / "b", 0, entries, str(CODEC), "00000000", "numpy", Options())
        with pytest.raises(CodesError, match="is another codec on"):
            list(engines.run_jobs([job], codecs.load(CODEC), "ray", 1, by_value=False))
        noise(1.0, 99).save(folder / "0.wav", force=True)
        for out, engine in (("a", "local"), ("b", "ray")):
            report = encode(folder, tmp_path / out, codec=CODEC, engine=engine, workers=1)
            assert report.changes.changed == ("0.wav",)
    finally:
        import ray  # not before the engine does

        ray.shutdown()
    assert shard_files(tmp_path / "a") == shard_files(tmp_path / "b")


def test_the_codes_are_those_of_the_codec(folder, tmp_path):
    codec = codecs.load(CODEC)
    encode(folder, tmp_path / "data", codec=codec, val_permille=0)
    found = [found for shard in read_shards(tmp_path / "data") for found in shard.by_path(8).values()]
    assert len(found) == 6
    for ((track, codes),) in found:
        audio = Audio.load(folder / track.path, sample_rate=24000, channels=1)
        expected = codec.encode(audio, 8).values.T
        assert (codes.read(0, track.frames) == expected).mean() > 0.999
        assert track.frames == len(expected)


def test_a_rerun_does_nothing_and_new_files_go_into_new_shards(folder, tmp_path):
    first = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    before = shard_files(tmp_path / "data")
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).encoded == 0
    noise(1.0, 77).save(folder / "0-new.wav")
    after = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert (after.encoded, after.tracks) == (1, first.tracks + 1)
    assert before.items() <= shard_files(tmp_path / "data").items()


def tracks_in(data: Path, split: str) -> list[Track]:
    """The tracks of one split."""
    return [track for _, _, track in tracks_of(read_shards(data)) if track.split == split]


def tracks_by_path(data: Path) -> dict[str, tuple[str, int]]:
    return {track.path: (track.sha1, track.crc32) for shard in read_shards(data) for track in shard.tracks}


def test_files_that_were_replaced_or_deleted_are_taken_out(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("audiogen_core.dataset.plan._SHARD_FILES", 2)
    data = tmp_path / "data"
    encode(folder, data, codec=CODEC, workers=1)
    untouched = {name: content for name, content in shard_files(data).items() if "00002" in name}
    size = (folder / "0.wav").stat().st_size
    noise(1.0, 99).save(folder / "0.wav", force=True)  # as long as before, and as old
    os.utime(folder / "0.wav", ns=(0, 0))
    assert (folder / "0.wav").stat().st_size == size
    (folder / "1.wav").unlink()
    (folder / "2.wav").rename(folder / "two.wav")
    with caplog.at_level("WARNING", "audiogen_core"):
        report = encode(folder, data, codec=CODEC, workers=1)
    assert vars(report.changes) == {
        "new": ("two.wav",),
        "changed": ("0.wav",),
        "gone": ("1.wav", "2.wav"),
    }
    assert "1 files came (two.wav), 1 files changed (0.wav), 2 files went (1.wav, 2.wav)" in caplog.text
    encode(folder, tmp_path / "anew", codec=CODEC, workers=1)
    assert tracks_by_path(data) == tracks_by_path(tmp_path / "anew")
    assert report.tracks == 5 and verify(data) == verify(tmp_path / "anew")
    assert untouched and untouched.items() <= shard_files(data).items()
    assert encode(folder, data, codec=CODEC, workers=1).encoded == 0


def encoded_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of files as they go through the codec."""
    seen: list[str] = []

    def noted(folder: Path, entry: plan.Entry, *more: object) -> list[Part]:
        seen.append(entry.path)
        return encode_track(folder, entry, *more)

    monkeypatch.setattr(engines, "encode_track", noted)
    return seen


def test_the_neighbours_of_a_file_that_changed_are_not_encoded_again(folder, tmp_path, monkeypatch):
    (folder / "text.wav").write_text("not audio at all")
    data, codec = tmp_path / "data", codecs.load(CODEC)
    encode(folder, data, codec=codec)
    noise(1.2, 99).save(folder / "2.wav", force=True)
    (folder / "3.wav").unlink()
    seen = encoded_by(monkeypatch)
    assert encode(folder, data, codec=codec).encoded == 1
    assert seen == ["2.wav", "text.wav"]  # what could not be used is tried again
    encode(folder, tmp_path / "anew", codec=codec)
    assert shard_files(data) == shard_files(tmp_path / "anew")


def test_codes_that_have_changed_are_not_taken_over(folder, tmp_path, monkeypatch):
    data, codec = tmp_path / "data", codecs.load(CODEC)
    encode(folder, data, codec=codec)
    shard = bytearray((data / "shard-00000.u16").read_bytes())
    shard[0] ^= 1
    (data / "shard-00000.u16").write_bytes(shard)
    noise(1.2, 99).save(folder / "2.wav", force=True)
    seen = encoded_by(monkeypatch)
    encode(folder, data, codec=codec)
    assert seen == ["0.wav", "2.wav"]
    noise(1.3, 98).save(folder / "2.wav", force=True)
    (data / "shard-00000.u16").write_bytes(b"cut")
    encode(folder, data, codec=codec)
    assert len(seen) == 2 + 6
    encode(folder, tmp_path / "anew", codec=codec)
    assert shard_files(data) == shard_files(tmp_path / "anew")


def test_a_folder_that_may_not_be_looked_into_ends_nothing(folder, tmp_path, monkeypatch):
    """As /proc is full of; it ended in PermissionError, whoever asked."""
    is_file = Path.is_file

    def denied(path):
        if path.parent.name == "album" and path.suffix == ".json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", denied)
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).tracks == 6


def test_room_is_needed_for_what_is_not_encoded_yet(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    encode(folder, data, codec=CODEC, workers=1)
    usage = shutil.disk_usage(tmp_path)._replace(free=SPARE + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert encode(folder, data, codec=CODEC, workers=1).encoded == 0
    before = contents(data)
    noise(1.0, 77).save(folder / "new.wav")
    with pytest.raises(CodesError, match="make room"):
        encode(folder, data, codec=CODEC, workers=1)
    assert contents(data) == before


def test_a_folder_that_is_empty_takes_nothing_out(folder, tmp_path):
    encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    before = contents(tmp_path / "data")
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir()
    with pytest.raises(NoUsableAudio, match="no audio files"):
        encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert contents(tmp_path / "data") == before


def test_when_the_file_that_was_held_out_goes_another_is_held_out(tmp_path):
    folder = noise_files(tmp_path / "audio", 4, 1.0)
    encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    (held,) = tracks_in(tmp_path / "data", "val")
    (folder / held.path).unlink()
    report = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert report.tracks == 3 and report.val_seconds > 0


def test_a_plan_without_hashes_is_taken_for_what_lies_there(folder, tmp_path):
    """Release 0.1.0 hashed files of equal size only."""
    encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    plan_of_now = (tmp_path / "data" / "plan.json").read_text()
    table = [[{**entry, "digest": ""} for entry in group] for group in json.loads(plan_of_now)]
    (tmp_path / "data" / "plan.json").write_text(json.dumps(table))
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).encoded == 0
    assert (tmp_path / "data" / "plan.json").read_text() == plan_of_now


def test_bad_files_are_reported_with_a_reason(folder, tmp_path):
    content = (folder / "0.wav").read_bytes()
    (folder / "text.wav").write_text("not audio at all")
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "header.wav").write_bytes(content[:44])
    (folder / "cut.wav").write_bytes(content[:-1000])
    (folder / "again.wav").write_bytes(content)
    (folder / "song.dsf").write_bytes(content)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere")
    noise(0.1, 5).save(folder / "short.wav")
    Audio(np.zeros((1, 99_000), np.float32), 24000).save(folder / "silent.wav")
    damaged = bytearray((folder / "album" / "stereo é\n.flac").read_bytes())
    damaged[3000:3400] = bytes(400)
    (folder / "damaged.flac").write_bytes(damaged)
    soundfile.write(folder / "nan.wav", np.full(24000, np.nan), 24000, subtype="FLOAT")
    soundfile.write(folder / "nothing.wav", np.zeros(0), 24000)
    report = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert report.tracks == 6
    assert {skip.path: skip.reason for skip in report.skips} == {
        "again.wav": "duplicate",
        "cut.wav": "damaged",
        "damaged.flac": "damaged",
        "empty.mp3": "empty",
        "gone.wav": "unreadable",
        "header.wav": "damaged",
        "nan.wav": "non_finite",
        "nothing.wav": "empty",
        "short.wav": "too_short",
        "silent.wav": "silent",
        "song.dsf": "format",
        "text.wav": "not_audio",
    }
    assert read_report(tmp_path / "data") == list(report.skips)
    assert all(skip.message and str(folder) not in skip.message for skip in report.skips)


def test_what_ffmpeg_reads_is_read_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / "songs").mkdir()
    noise(2.0, 1).save(tmp_path / "songs" / "a.wav")
    write_foreign(tmp_path / "songs" / "memo.m4a", noise(2.0, 2), "alac")
    whole = encode(tmp_path / "songs", tmp_path / "data", codec=CODEC, workers=1)
    assert whole.skips == ()
    monkeypatch.setattr("audiogen_core.ffmpeg_reader.find_spec", lambda what: None)
    report = encode(tmp_path / "songs", tmp_path / "without", codec=CODEC, workers=1)
    assert report.tracks == whole.tracks / 2
    assert [(skip.path, skip.reason) for skip in report.skips] == [("memo.m4a", "format")]
    assert 'pip install "audiogen-core[ffmpeg]"' in report.skips[0].message


def test_the_same_sound_in_another_format_is_left_out(folder, tmp_path):
    Audio.load(folder / "0.wav").save(folder / "z.flac")
    report = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert report.tracks == 6
    assert [(skip.path, skip.reason, skip.message) for skip in report.skips] == [
        ("z.flac", "duplicate", "the same sound as 0.wav")
    ]


def test_a_folder_without_usable_audio_is_an_error_of_its_own(tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(NoUsableAudio, match="no audio files"):
        encode(tmp_path / "audio", tmp_path / "data", codec=CODEC)
    assert not (tmp_path / "data").exists()
    (tmp_path / "audio" / "x.wav").write_text("nothing")
    with pytest.raises(NoUsableAudio, match=r"1 were left out, the first of them x\.wav"):
        encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)


def test_the_last_tenth_of_a_single_file_is_held_out(tmp_path):
    (tmp_path / "audio").mkdir()
    noise(4.0, 1).save(tmp_path / "audio" / "one.wav")
    report = encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)
    assert (report.tails, report.seconds, report.val_seconds) == (1, 4.0, 0.4)
    (train,), (held,) = (tracks_in(tmp_path / "data", split) for split in ("train", "val"))
    assert (train.frames, held.frames) == (270, 30)


def test_other_settings_for_the_same_folder_are_refused(folder, tmp_path):
    encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    before = contents(tmp_path / "data")
    for settings, message in (
        ({"options": Options(codebooks=4)}, "codebooks 8, asked for 4"),
        ({"options": Options(level="peak")}, "level none, asked for peak"),
        ({"val_permille": 100}, "val_permille 50, asked for 100"),
        ({"split_by": "parent"}, "split_by file, asked for parent"),
    ):
        with pytest.raises(OptionError, match=message):
            encode(folder, tmp_path / "data", codec=CODEC, workers=1, **settings)
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "spark"}, "engine"),
        ({"engine": "ray", "codec": "loaded"}, "name or path"),
        ({"workers": 0}, "workers"),
        ({"val_permille": 1000}, "val_permille"),
        ({"split_by": "album"}, "split_by"),
        ({"options": Options(codebooks=99)}, "99"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(folder, tmp_path, settings, message):
    codec = codecs.load(CODEC) if settings.pop("codec", "") else CODEC
    with pytest.raises(OptionError, match=message):
        encode(folder, tmp_path / "data", codec=codec, **settings)
    assert not (tmp_path / "data").exists()


def test_ray_that_is_not_installed_is_named_with_the_install_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"audiogen-core\[ray\]"):
        encode(folder, tmp_path / "data", codec=CODEC, engine="ray")


def test_an_output_that_is_a_file_is_refused(folder, tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(OptionError, match="a file"):
        encode(folder, tmp_path / "data", codec=CODEC)
    assert (tmp_path / "data").read_text() == "mine"


def test_the_folder_of_audio_is_no_output(folder):
    with pytest.raises(OptionError, match="the folder of audio itself"):
        encode(folder, folder / "album" / "..", codec=CODEC)


def test_shards_without_a_description_are_not_touched(folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shard-00000.jsonl").write_text("")
    with pytest.raises(CodesError, match=r"no meta\.json"):
        encode(folder, tmp_path / "data", codec=CODEC)


def test_two_runs_never_write_one_folder(folder, tmp_path):
    refused = []

    def on_step(done: int, total: int) -> None:
        with pytest.raises(OptionError, match="in use by process") as caught:
            encode(folder, tmp_path / "data", codec=CODEC, workers=1)
        refused.append(caught.value)

    encode(folder, tmp_path / "data", codec=CODEC, workers=1, on_step=on_step)
    assert refused
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).encoded == 0


def test_a_full_disk_keeps_what_is_done(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_SHARD_FILES", 2)
    left = [3]
    write = engines.write_shard

    def full(*args) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    monkeypatch.setattr(engines, "write_shard", full)
    with pytest.raises(DiskFull, match="what is done stays"):
        encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).encoded == 1


def test_an_output_that_cannot_be_made_is_an_error_of_ours(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CodesError, match="choose an output that can be written"):
        encode(folder, tmp_path / "file" / "data", codec=CODEC)


@posix
def test_a_worker_that_dies_is_told_and_what_is_done_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_SHARD_FILES", 1)
    noise_files(tmp_path / "audio", 12, 6.0)

    def on_step(done: int, total: int) -> None:
        if done == 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(engines.WorkerDied, match="fewer workers"):
        encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=2, on_step=on_step)
    assert 2 <= len(read_shards(tmp_path / "data")) < 12
    report = encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)
    assert report.tracks == 12


@posix
def test_names_of_any_bytes_and_pipes(tmp_path):
    names = ["é ü.wav", "new\nline.wav", os.fsdecode(b"\xff\xfe.wav")]
    (tmp_path / "audio").mkdir()
    for index, name in enumerate(names):
        noise(0.6, index).save(tmp_path / "audio" / "x.wav")
        (tmp_path / "audio" / "x.wav").rename(tmp_path / "audio" / name)
    os.mkfifo(tmp_path / "audio" / "pipe.wav")
    report = encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)
    assert [(skip.path, skip.reason) for skip in report.skips] == [("pipe.wav", "unreadable")]
    tracks = {track.path for shard in read_shards(tmp_path / "data") for track in shard.tracks}
    assert tracks == set(names)
    assert encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1).encoded == 0


def test_where_the_folder_lies_leaves_no_trace(folder, tmp_path, monkeypatch):
    (folder / "text.wav").write_text("not audio at all")
    encode(folder, tmp_path / "a", codec=CODEC, workers=1)
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    encode("moved", "b", codec=CODEC, workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "elsewhere" / "b")


def test_captions_are_kept_beside_the_codes(folder, tmp_path, caplog):
    data, name = tmp_path / "data", "album/stereo é\n.flac"
    (folder / "0.txt").write_text("a hiss")
    (folder / "album" / "metadata.jsonl").write_text(
        json.dumps({"file_name": Path(name).name, "text": "wide"}) + "\n"
    )
    (folder / "9.wav").write_text("no sound")
    report = encode(folder, data, codec=CODEC, workers=1)
    assert report.captions == "1 from a text file, 1 from a metadata.jsonl, 4 from a file name"
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    assert {"file_name": "0.wav", "text": "a hiss", "source": "text file"} in rows
    paths = [row["file_name"] for row in rows]
    assert sorted(paths) == sorted(tracks_by_path(data))
    read = {path: caption.text for path, caption in captions(data, paths).items()}
    assert (read["0.wav"], read[name]) == ("a hiss", "wide")

    (folder / "0.txt").write_text("a roar")
    encode(folder, data, codec=CODEC, workers=1)
    assert captions(data, ["0.wav"])["0.wav"].text == "a roar"
    (folder / "0.txt").write_bytes(b"\xff\xfe")
    broken = encode(folder, data, codec=CODEC, workers=1)
    assert (broken.captions, broken.tracks, broken.encoded) == ("", report.tracks, 0)
    assert "no captions are kept" in caplog.text and "0.txt" in caplog.text
    assert not (data / "captions.jsonl").exists()


def test_captions_are_of_any_number_of_files_and_written_when_they_change(folder, tmp_path, monkeypatch):
    """More than a list in a call of Python may have."""
    monkeypatch.setattr(values, "_MOST", 3)
    data = tmp_path / "data"
    report = encode(folder, data, codec=CODEC)
    assert report.captions == f"{report.tracks} from a file name" and report.tracks > 3
    kept = data / "captions.jsonl"
    before = kept.stat()
    encode(folder, data, codec=CODEC)
    assert kept.stat().st_mtime_ns == before.st_mtime_ns and kept.stat().st_ino == before.st_ino
    (folder / "0.txt").write_text("a roar")
    assert encode(folder, data, codec=CODEC).captions.startswith("1 from a text file")
    assert "a roar" in kept.read_text()
    assert not list(data.glob(".*tmp*"))
