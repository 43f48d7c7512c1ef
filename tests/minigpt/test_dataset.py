"""Windows are a pure function of seed and step; every one is seen once in each pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiogen_core.dataset.shards import Meta, Track, checksum, write_shard
from audiogen_core.errors import CodesError, OptionError
from audiogen_minigpt import measures
from audiogen_minigpt.dataset import Dataset
from audiogen_minigpt.measures import baselines

SIZE, BOOKS = 50, 3


def make_data(folder: Path, lengths: list[int], split: str = "train", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Meta("test", "00000000", 24000, 320, BOOKS, SIZE).save(folder)
    rng = np.random.default_rng(seed)
    parts = []
    for index, length in enumerate(lengths):
        codes = rng.integers(0, SIZE, (length, BOOKS)).astype(np.uint16)
        parts.append((Track(f"{index}.wav", length, None, split, 0.0, "", checksum(codes)), codes))
    number = len(list(folder.glob("shard-*.jsonl")))
    write_shard(folder, number, parts)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    return make_data(tmp_path / "data", [40, 1, 77, 30])


def test_the_stream_is_all_tracks_each_behind_a_bos_frame(data):
    dataset = Dataset.open(data)
    assert (dataset.frames, dataset.length) == (148, 152)
    stream = dataset.read(0, dataset.length)
    assert set(np.flatnonzero((stream == SIZE).all(axis=1))) == {0, 41, 43, 121}
    np.testing.assert_array_equal(stream[122:], dataset.track(3))


@settings(max_examples=40)
@given(start=st.integers(0, 400), count=st.integers(1, 500))
def test_reading_goes_round(tmp_path_factory, start, count):
    dataset = Dataset.open(make_data(tmp_path_factory.mktemp("d"), [40, 1, 77, 30]))
    once = dataset.read(0, dataset.length)
    expected = np.take(once, np.arange(start, start + count), axis=0, mode="wrap")
    np.testing.assert_array_equal(dataset.read(start, count), expected)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    context=st.integers(2, 40),
    batch=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_each_pass_sees_every_window_once(tmp_path_factory, lengths, context, batch, seed):
    dataset = Dataset.open(make_data(tmp_path_factory.mktemp("d"), lengths))
    windows = dataset.windows(context)
    seen = []
    original = dataset.read

    def read(start, count):
        seen.append(start)
        return original(start, count)

    object.__setattr__(dataset, "read", read)
    steps = -(-2 * windows // batch)
    for step in range(steps):
        dataset.batch(step, batch_size=batch, context=context, seed=seed)
    for epoch in range(2):
        places = sorted(seen[epoch * windows : (epoch + 1) * windows])
        assert len(places) == windows
        assert set(np.diff(places)) <= {context}


@pytest.mark.parametrize("world", [2, 3, 6])
def test_the_whole_batch_is_the_same_for_any_number_of_processes(data, world):
    dataset = Dataset.open(data)
    for step in (0, 5, 1000):
        whole = dataset.batch(step, batch_size=6, context=16, seed=4)
        parts = [
            dataset.batch(step, batch_size=6, context=16, seed=4, rank=rank, world=world)
            for rank in range(world)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_another_seed_gives_another_order(data):
    dataset = Dataset.open(data)
    one, other = (dataset.batch(0, batch_size=4, context=8, seed=seed) for seed in (0, 1))
    assert (one != other).any()
    np.testing.assert_array_equal(one, dataset.batch(0, batch_size=4, context=8, seed=0))


def test_the_order_is_the_same_with_every_numpy(tmp_path):
    dataset = Dataset.open(make_data(tmp_path / "d", [799]))
    found = [dataset.batch(step, batch_size=8, context=100, seed=5) for step in (2, 3)]
    places = [
        [50 + 100 * turn for turn in (4, 7, 6, 0, 1, 5, 2, 3)],
        [15 + 100 * turn for turn in (4, 1, 5, 3)],
    ]
    np.testing.assert_array_equal(found[0], np.stack([dataset.read(place, 100) for place in places[0]]))
    np.testing.assert_array_equal(found[1][:4], np.stack([dataset.read(place, 100) for place in places[1]]))


def test_a_window_longer_than_the_stream_goes_round(tmp_path):
    dataset = Dataset.open(make_data(tmp_path / "d", [5]))
    assert dataset.batch(0, batch_size=2, context=30, seed=0).shape == (2, 30, BOOKS)


def test_fewer_codebooks_are_the_first_columns(data):
    all_of_them, two = Dataset.open(data), Dataset.open(data, codebooks=2)
    np.testing.assert_array_equal(two.read(0, 100), all_of_them.read(0, 100)[:, :2])
    with pytest.raises(OptionError, match="holds 3 codebooks, asked for 4"):
        Dataset.open(data, codebooks=4)


def test_fixed_windows_are_always_the_same(data):
    dataset = Dataset.open(data)
    np.testing.assert_array_equal(dataset.fixed(20, 4), dataset.fixed(20, 4))
    assert dataset.fixed(20, 4).shape == (4, 20, BOOKS)
    assert dataset.fixed(20, 999).shape == (7, 20, BOOKS)


def test_an_empty_split_says_so(data):
    held = Dataset.open(data, split="val")
    assert (held.frames, held.tracks) == (0, ())
    with pytest.raises(CodesError, match="no val tracks"):
        held.read(0, 1)


def test_a_batch_that_cannot_be_shared_is_refused(data):
    with pytest.raises(OptionError, match="shared"):
        Dataset.open(data).batch(0, batch_size=5, context=8, seed=0, world=2)


def test_baselines_of_noise_and_of_a_pattern(tmp_path):
    folder = make_data(tmp_path / "noise", [4000])
    make_data(folder, [1000], split="val", seed=1)
    noise = baselines(folder)
    assert noise.unigram == pytest.approx([np.log(SIZE)] * BOOKS, abs=0.03)
    assert all(pair >= single for single, pair in zip(noise.unigram, noise.bigram, strict=True))
    assert noise.unigram_bits == pytest.approx(75 * BOOKS * np.log2(SIZE), rel=0.01)

    folder = tmp_path / "pattern"
    folder.mkdir()
    Meta("test", "00000000", 24000, 320, 1, SIZE).save(folder)
    for number, split in enumerate(("train", "val")):
        codes = (np.arange(2000) % SIZE).astype(np.uint16)[:, None]
        write_shard(folder, number, [(Track("a", 2000, None, split, 0.0, "", checksum(codes)), codes)])
    pattern = baselines(folder)
    assert pattern.unigram[0] == pytest.approx(np.log(SIZE), abs=0.01)
    assert pattern.bigram[0] < 0.15


@pytest.mark.parametrize("piece", [1, 7, 40, 41])
def test_baselines_do_not_depend_on_how_much_is_counted_at_a_time(data, monkeypatch, piece):
    make_data(data, [50, 1, 33], split="val", seed=1)
    whole = baselines(data)
    monkeypatch.setattr(measures, "_PIECE", piece)
    pieces = baselines(data)
    assert pieces.unigram == pytest.approx(whole.unigram)
    assert pieces.bigram == pytest.approx(whole.bigram)


def test_baselines_are_those_of_the_formula(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    Meta("test", "00000000", 24000, 320, 1, 3).save(folder)
    for number, (split, codes) in enumerate((("train", [0, 1, 0, 1, 2]), ("val", [0, 1, 1]))):
        values = np.array(codes, np.uint16)[:, None]
        write_shard(
            folder, number, [(Track(split, len(codes), None, split, 0.0, "", checksum(values)), values)]
        )
    single = np.array([3, 3, 2]) / 8  # one more than they occur
    after_0 = (2 + 1 * single[1]) / (2 + 1)  # 0 is followed twice, always by 1
    after_1 = (0 + 2 * single[1]) / (2 + 2)  # 1 is followed twice, by two codes, never by 1
    found = baselines(folder)
    assert found.unigram[0] == pytest.approx(-np.log([single[0], single[1], single[1]]).mean())
    assert found.bigram[0] == pytest.approx(-np.log([single[0], after_0, after_1]).mean())


def test_a_damaged_shard_is_named_when_a_folder_is_opened_or_its_codes_are_read(data):
    path = data / "shard-00000.u16"
    whole = path.read_bytes()
    path.write_bytes(b"\xff\xff" + whole[2:])
    with pytest.raises(CodesError, match="beyond the codebook"):
        Dataset.open(data).read(0, 50)
    path.write_bytes(whole[:-1])
    with pytest.raises(CodesError, match=r"shard-00000\.u16: 1 byte\(s\) short"):
        Dataset.open(data)
    path.unlink()
    with pytest.raises(CodesError, match=r"shard-00000\.u16: the shard's codes are missing"):
        Dataset.open(data)
    path.write_bytes(whole)
    index = path.with_suffix(".jsonl")
    index.write_text(index.read_text()[:-20])
    with pytest.raises(CodesError, match=r"shard-00000\.jsonl: the index is damaged"):
        Dataset.open(data)


def test_the_same_sound_stands_in_one_split_alone(tmp_path):
    Meta("test", "00000000", 24000, 320, 2, 50).save(tmp_path)

    def part(path: str, sha1: str, split: str) -> tuple[Track, np.ndarray]:
        codes = np.full((10, 2), len(path), np.uint16)
        return Track(path, 10, None, split, 0.0, sha1, checksum(codes)), codes

    write_shard(tmp_path, 0, [part("a", "x", "train"), part("bb", "y", "train"), part("bb", "y", "val")])
    write_shard(tmp_path, 1, [part("ccc", "x", "val"), part("dddd", "z", "val")])
    train, val = (Dataset.open(tmp_path, split=split) for split in ("train", "val"))
    assert [track.path for track in train.tracks] == ["a", "bb"]
    assert [track.path for track in val.tracks] == ["bb", "dddd"]
    assert (val.track(0) == 2).all() and (val.track(1) == 4).all()
