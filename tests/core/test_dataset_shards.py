"""Damaged folders of codes are refused by the name of the file; sound that occurs twice counts once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs
from audiogen_core.dataset import Skip
from audiogen_core.dataset.encode import encode, verify
from audiogen_core.dataset.shards import (
    Meta,
    Track,
    checksum,
    read_report,
    read_shards,
    repeats,
    tracks_of,
    write_report,
    write_shard,
)
from audiogen_core.errors import CodesError, OptionError
from support.noise_files import CODEC, noise_files


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    encode(noise_files(root / "audio", 3), root / "data", codec=codecs.load(CODEC))
    return root / "data"


@pytest.fixture
def data(encoded, tmp_path) -> Path:
    copy = tmp_path / "data"
    copy.mkdir()
    for path in encoded.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_sizes_are_exact_and_numbers_little_endian(data):
    meta, shard = Meta.load(data), read_shards(data)[0]
    content = shard.path.read_bytes()
    assert len(content) == shard.frames * meta.codebooks * 2
    codes = shard.open(meta.codebooks)
    assert int(codes[0, 1]) == content[2] + 256 * content[3]
    assert not isinstance(codes, np.memmap)  # a file that is mapped and cut short ends the process
    assert verify(data) == shard.frames


@pytest.mark.parametrize(("change", "message"), [(-1, "1 byte\\(s\\) short"), (2, "2 byte\\(s\\) too long")])
def test_a_shard_of_another_size_is_named(data, change, message):
    path = data / "shard-00000.u16"
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(CodesError, match=rf"shard-00000\.u16: {message}.*run encode again"):
        verify(data)


def test_a_missing_file_of_codes_is_named(data):
    (data / "shard-00000.u16").unlink()
    with pytest.raises(CodesError, match=r"shard-00000\.u16: the shard's codes are missing"):
        verify(data)


def test_a_shard_that_was_never_made_is_named(data):
    for path in data.glob("shard-*"):
        path.unlink()
    with pytest.raises(CodesError, match=r"shard-00000\.u16: not there yet"):
        verify(data)


def test_codes_beyond_the_codebook_are_named(data):
    path = data / "shard-00000.u16"
    path.write_bytes(b"\xff\xff" + path.read_bytes()[2:])
    with pytest.raises(CodesError, match=r"shard-00000\.u16.*beyond the codebook"):
        verify(data)


def test_a_changed_byte_is_found(data):
    path = data / "shard-00000.u16"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CodesError, match="have changed"):
        verify(data)


@pytest.mark.parametrize("cut", [20, 1000])
def test_a_truncated_index_is_named(data, cut):
    path = data / "shard-00000.jsonl"
    text = path.read_text()
    path.write_text(text[:-20] if cut == 20 else text[: text.index("\n") + 1])
    with pytest.raises(CodesError, match=r"shard-00000\.(jsonl: the index is damaged|u16: .* too long)"):
        verify(data)


@pytest.mark.parametrize("line", ["[]", "7", "null", '{"path": 1}', '{"path": "a", "frames": 3}', "\xff"])
def test_an_index_of_something_else_is_refused(data, line):
    (data / "shard-00000.jsonl").write_text(line + "\n", encoding="latin-1")
    with pytest.raises(CodesError, match=r"shard-00000\.jsonl: the index is damaged"):
        read_shards(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "99"),
        ({"format_version": "1"}, "format version '1'"),
        ({"codebooks": 0}, "damaged"),
        ({"hop_length": -320}, "damaged"),
        ({"codebook_size": 1 << 17}, "damaged"),
        ({"sample_rate": "fast"}, "sample_rate must be int"),
        ({"options": [1]}, "damaged"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_description_that_cannot_be_is_refused(data, changes, message):
    table = json.loads((data / "meta.json").read_text()) | changes
    (data / "meta.json").write_text(json.dumps(table))
    with pytest.raises(CodesError, match=message):
        Meta.load(data)


def test_a_description_with_other_codebooks_does_not_fit_the_shards(data):
    table = json.loads((data / "meta.json").read_text()) | {"codebooks": 4}
    (data / "meta.json").write_text(json.dumps(table))
    with pytest.raises(CodesError, match=r"shard-00000\.u16: \d+ byte\(s\) too long"):
        verify(data)


def test_a_folder_of_another_codec_is_not_added_to(data, tmp_path):
    table = json.loads((data / "meta.json").read_text())
    (data / "meta.json").write_text(json.dumps(table | {"codec": "other"}))
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    with pytest.raises(OptionError, match=r"was made with codec other, asked for encodec"):
        encode(noise_files(tmp_path / "more", 1), data, codec=CODEC)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path):
    with pytest.raises(CodesError, match="audiogen-core encode FOLDER"):
        Meta.load(tmp_path)


def test_the_same_sound_counts_once(tmp_path):
    Meta("test", "00000000", 24000, 320, 2, 50).save(tmp_path)

    def part(path: str, sha1: str, split: str, channel: int | None = None) -> tuple[Track, np.ndarray]:
        codes = np.full((10, 2), len(path), np.uint16)
        return Track(path, 10, channel, split, 0.0, sha1, checksum(codes)), codes

    write_shard(tmp_path, 0, [part("a", "x", "train"), part("bb", "y", "train"), part("bb", "y", "val")])
    write_shard(tmp_path, 1, [part("ccc", "x", "val"), part("d", "z", "val", 0), part("d", "z", "val", 1)])
    assert [(track.path, track.channel, first.path) for track, first in repeats(read_shards(tmp_path))] == [
        ("ccc", None, "a"),
        ("d", 1, "d"),
    ]
    assert [(track.path, track.channel, start) for _, start, track in tracks_of(read_shards(tmp_path))] == [
        ("a", None, 0),
        ("bb", None, 10),
        ("bb", None, 20),
        ("d", 0, 10),
    ]


def test_shards_are_in_the_order_of_their_numbers(tmp_path):
    for number in (100_000, 2, 99_999):
        write_shard(tmp_path, number, [Skip(str(number), "empty", "")])
    assert [shard.skips[0].path for shard in read_shards(tmp_path)] == ["2", "99999", "100000"]


def test_a_report_is_read_as_it_was_written(tmp_path):
    skips = [Skip("a\n\udcff.wav", "not_audio", "no"), Skip("b", "link", "not followed")]
    write_report(tmp_path, skips)
    assert read_report(tmp_path) == skips
    assert read_report(tmp_path / "elsewhere") == []
