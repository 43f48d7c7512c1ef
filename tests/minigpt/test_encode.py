"""A folder of audio becomes the same shards whatever the engine; every file is used or reported."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import Audio, codecs
from audiogen_core.errors import AudioError, CodesError, OptionError
from audiogen_minigpt.dataset import Dataset
from audiogen_minigpt.encode import NoUsableAudio, encode
from audiogen_minigpt.prepare import Options, shorten_silence
from audiogen_minigpt.shards import Meta, read_shards, verify

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"


def noise(seconds: float, seed: int, rate: int = 24000, channels: int = 1) -> Audio:
    rng = np.random.default_rng(seed)
    return Audio(rng.uniform(-0.3, 0.3, (channels, int(seconds * rate))).astype(np.float32), rate)


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "audio"
    (root / "album").mkdir(parents=True)
    for index in range(5):
        noise(1.0 + index / 10, index).save(root / f"{index}.wav")
    noise(1.5, 10, rate=44100, channels=2).save(root / "album" / "stereo é\n.flac")
    return root


def files(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data.glob("shard-*"))}


def test_every_engine_and_number_of_workers_gives_the_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("audiogen_minigpt.plan._SHARD_FILES", 2)
    inline = encode(folder, tmp_path / "a", codec=codecs.load(CODEC))
    assert (inline.tracks, inline.encoded) == (6, 3)
    encode(folder, tmp_path / "b", codec=CODEC, workers=2)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert verify(tmp_path / "a") == sum(shard.frames for shard in read_shards(tmp_path / "a"))


def test_ray_gives_the_same_bytes(folder, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr("audiogen_minigpt.plan._SHARD_FILES", 3)
    encode(folder, tmp_path / "a", codec=CODEC, workers=1)
    try:
        encode(folder, tmp_path / "b", codec=CODEC, engine="ray", workers=1)
    finally:
        ray.shutdown()
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_codes_are_those_of_the_codec(folder, tmp_path):
    codec = codecs.load(CODEC)
    encode(folder, tmp_path / "data", codec=codec, val_permille=0)
    data = Dataset.open(tmp_path / "data")
    for index, track in enumerate(data.tracks):
        audio = Audio.load(folder / track.path, sample_rate=24000, channels=1)
        expected = codec.encode(audio, 8).values.T
        assert (data.track(index) == expected).mean() > 0.999
        assert track.frames == len(expected)


def test_a_rerun_does_nothing_and_new_files_go_into_new_shards(folder, tmp_path):
    first = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    before = files(tmp_path / "data")
    assert encode(folder, tmp_path / "data", codec=CODEC, workers=1).encoded == 0
    noise(1.0, 77).save(folder / "0-new.wav")
    after = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    assert (after.encoded, after.tracks) == (1, first.tracks + 1)
    assert before.items() <= files(tmp_path / "data").items()


def test_bad_files_are_reported_with_a_reason(folder, tmp_path):
    (folder / "text.wav").write_text("not audio at all")
    (folder / "empty.mp3").write_bytes(b"")
    header = (folder / "0.wav").read_bytes()
    (folder / "header.wav").write_bytes(header[:44])
    (folder / "again.wav").write_bytes(header)
    noise(0.1, 5).save(folder / "short.wav")
    report = encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    reasons = {skip.path: skip.reason for skip in report.skips}
    assert reasons == {
        "again.wav": "duplicate",
        "text.wav": "unreadable",
        "empty.mp3": "unreadable",
        "header.wav": "unreadable",
        "short.wav": "too_short",
    }
    lines = (tmp_path / "data" / "report.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == set(reasons)
    assert all(skip.message for skip in report.skips)


def test_a_folder_without_usable_audio_is_an_error_of_its_own(tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(AudioError, match="no audio files"):
        encode(tmp_path / "audio", tmp_path / "data", codec=CODEC)
    (tmp_path / "audio" / "x.wav").write_text("nothing")
    with pytest.raises(NoUsableAudio, match="none of its 1"):
        encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)


def test_the_last_tenth_of_a_single_file_is_held_out(tmp_path):
    (tmp_path / "audio").mkdir()
    noise(4.0, 1).save(tmp_path / "audio" / "one.wav")
    encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1)
    train, held = (Dataset.open(tmp_path / "data", split=split) for split in ("train", "val"))
    assert (train.frames, held.frames) == (270, 30)


def test_something_is_held_out_of_a_small_folder(folder, tmp_path):
    encode(folder, tmp_path / "data", codec=CODEC, workers=1, val_permille=1)
    assert len(Dataset.open(tmp_path / "data", split="val").tracks) == 1


def test_files_of_one_parent_stay_together(tmp_path):
    for index in range(12):
        parent = tmp_path / "audio" / f"album{index % 4}"
        parent.mkdir(parents=True, exist_ok=True)
        noise(0.6, index).save(parent / f"{index}.wav")
    encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1, split_by="parent", val_permille=300)
    splits: dict[str, set[str]] = {}
    for shard in read_shards(tmp_path / "data"):
        for track in shard.tracks:
            splits.setdefault(str(Path(track.path).parent), set()).add(track.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "val"} == set().union(*splits.values())


def test_channels_can_be_tracks_of_their_own(folder, tmp_path):
    encode(folder, tmp_path / "data", codec=CODEC, workers=1, options=Options(stereo="split"))
    tracks = [track for shard in read_shards(tmp_path / "data") for track in shard.tracks]
    stereo = [track for track in tracks if "stereo" in track.path]
    assert [track.channel for track in stereo] == [0, 1]
    assert stereo[0].crc32 != stereo[1].crc32
    assert stereo[0].split == stereo[1].split


@pytest.mark.parametrize(("level", "expected"), [("peak", -1.0), ("rms", -20.0)])
def test_levels_are_brought_to_the_same(tmp_path, level, expected):
    (tmp_path / "audio").mkdir()
    noise(1.0, 1).save(tmp_path / "audio" / "one.wav")
    encode(tmp_path / "audio", tmp_path / "data", codec=CODEC, workers=1, options=Options(level=level))
    audio = Audio.load(tmp_path / "audio" / "one.wav")
    measure = audio.peak if level == "peak" else audio.rms
    track = read_shards(tmp_path / "data")[0].tracks[0]
    assert 20 * np.log10(measure) + track.gain_db == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("sizes", [[1000], [7, 1300], [1, 2, 3]])
def test_long_silence_is_cut_on_the_grid(sizes):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.5, (1, 4000)).astype(np.float32)
    x[:, 500:2500] = 0.0
    bounds = [0]
    while bounds[-1] < x.shape[1]:
        bounds.append(bounds[-1] + sizes[len(bounds) % len(sizes)])
    blocks = [x[:, a:b] for a, b in pairwise(bounds)]
    made = np.concatenate(list(shorten_silence(blocks, 100, 5)), axis=1)
    np.testing.assert_array_equal(made, np.concatenate([x[:, :1000], x[:, 2500:]], axis=1))
    kept = np.concatenate(list(shorten_silence(blocks, 100, None)), axis=1)
    np.testing.assert_array_equal(kept, x)


def test_other_settings_for_the_same_folder_are_refused(folder, tmp_path):
    encode(folder, tmp_path / "data", codec=CODEC, workers=1)
    with pytest.raises(OptionError, match="codebooks 8, asked for 4"):
        encode(folder, tmp_path / "data", codec=CODEC, workers=1, options=Options(codebooks=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "spark"}, "engine"),
        ({"workers": 0}, "workers"),
        ({"val_permille": 1000}, "val_permille"),
        ({"split_by": "album"}, "split_by"),
        ({"options": Options(codebooks=99)}, "99"),
    ],
)
def test_impossible_options_are_refused(folder, tmp_path, settings, message):
    with pytest.raises(OptionError, match=message):
        encode(folder, tmp_path / "data", codec=CODEC, **settings)


def test_an_output_that_is_a_file_is_refused(folder, tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(OptionError, match="a file"):
        encode(folder, tmp_path / "data", codec=CODEC)
    assert (tmp_path / "data").read_text() == "mine"


class TestDamage:
    @pytest.fixture
    def data(self, folder, tmp_path) -> Path:
        encode(folder, tmp_path / "data", codec=CODEC, workers=1)
        return tmp_path / "data"

    def test_a_shard_one_byte_short_is_named(self, data):
        path = data / "shard-00000.u16"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CodesError, match=r"shard-00000\.u16: 1 byte\(s\) short"):
            Dataset.open(data)

    def test_a_missing_shard_is_named(self, data):
        (data / "shard-00000.u16").unlink()
        with pytest.raises(CodesError, match=r"shard-00000\.u16: the shard's codes are missing"):
            Dataset.open(data)

    def test_codes_beyond_the_codebook_are_named(self, data):
        path = data / "shard-00000.u16"
        path.write_bytes(b"\xff\xff" + path.read_bytes()[2:])
        with pytest.raises(CodesError, match="beyond the codebook"):
            verify(data)
        opened = Dataset.open(data, split=read_shards(data)[0].tracks[0].split)
        with pytest.raises(CodesError, match="beyond the codebook"):
            opened.read(0, 50)

    def test_a_changed_byte_is_found(self, data):
        path = data / "shard-00000.u16"
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
        with pytest.raises(CodesError, match="have changed"):
            verify(data)

    def test_a_truncated_index_is_named(self, data):
        path = data / "shard-00000.jsonl"
        path.write_text(path.read_text()[:-20])
        with pytest.raises(CodesError, match=r"shard-00000\.jsonl: the index is damaged"):
            Dataset.open(data)

    def test_meta_of_a_newer_version_is_refused(self, data):
        table = json.loads((data / "meta.json").read_text()) | {"format_version": 99}
        (data / "meta.json").write_text(json.dumps(table))
        with pytest.raises(CodesError, match="99"):
            Meta.load(data)

    def test_a_folder_that_is_none_says_how_to_make_one(self, tmp_path):
        with pytest.raises(CodesError, match="audiogen-minigpt encode"):
            Meta.load(tmp_path)
