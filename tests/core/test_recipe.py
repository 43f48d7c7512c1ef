"""Recipes, and their way through the tags of every format."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiogen_core import recipe as recipes
from audiogen_core.audio import Audio, AudioWriter
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.recipe import Recipe
from support.sounds import tone, write_reference

SUFFIXES = [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"]


def example(**settings) -> Recipe:
    return Recipe(
        package="audiogen-core",
        version="0.1.0",
        model="demo",
        revision="abc123",
        seed=7,
        settings=settings,
        inputs={"codes": "f" * 64},
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_json_and_back(values):
    made = example(**{"values": values})
    text = made.to_json()
    assert text.isascii()
    assert text.isprintable()
    assert Recipe.from_json(text) == made
    assert json.loads(text)["synthetic"] is True


def test_paths_and_numpy_numbers_become_json():
    made = example(path=Path("a/b.wav"), count=np.int64(3), level=np.float32(0.5), pair=(1, 2))
    assert Recipe.from_json(made.to_json()).settings == {
        "path": str(Path("a/b.wav")),
        "count": 3,
        "level": 0.5,
        "pair": [1, 2],
    }


@pytest.mark.parametrize("bad", [object(), {1, 2}, float("nan"), float("inf"), b"bytes"])
def test_what_json_has_not_is_refused(bad):
    with pytest.raises(OptionError, match="cannot be written as JSON"):
        example(bad=bad).to_json()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("length", [0, 1_900, 2_100, 7_000])
def test_every_format_carries_a_recipe(tmp_path, suffix, length):
    made = example(prompt='ä ☃ 音楽 \U0001f3b5 "quoted" \\ \n' + "x" * length)
    path = tone(0.3).save(tmp_path / f"a{suffix}", recipe=made)
    assert Recipe.read(path) == made
    assert Audio.load(path).samples.shape == (1, 14_400)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_largest_recipe(tmp_path, suffix):
    most = 8_000 if suffix == ".aiff" else 50_000
    room = most - len(example(text="").to_json())
    path = tone(0.3).save(tmp_path / f"a{suffix}", recipe=example(text="x" * room))
    assert len(Recipe.read(path).settings["text"]) == room
    assert Audio.load(path).samples.shape == (1, 14_400)
    with pytest.raises(AudioError, match=f"carries {most} at most"):
        tone(0.3).save(tmp_path / f"b{suffix}", recipe=example(text="x" * (room + 1)))
    assert list(tmp_path.iterdir()) == [path]


def test_the_streaming_writer_carries_a_recipe(tmp_path):
    with AudioWriter(tmp_path / "a.flac", 48_000, 1, recipe=example()) as writer:
        writer.write(np.zeros((1, 1_000), np.float32))
    assert Recipe.read(tmp_path / "a.flac") == example()


def test_other_files_carry_none(tmp_path):
    plain = tone(0.1).save(tmp_path / "plain.wav")
    spoken = write_reference(tmp_path / "spoken.flac", tone(0.1), "PCM_16", comment="a note of mine")
    for path in (plain, spoken):
        assert recipes.find(path) is None
        with pytest.raises(AudioError, match="carries no recipe"):
            Recipe.read(path)
    with pytest.raises(AudioError, match="No such file"):
        Recipe.read(tmp_path / "none.wav")


def test_a_wav_comment_may_stand_behind_the_sound(tmp_path):
    path = tone(0.1).save(tmp_path / "a.wav")
    text = example(prompt="x" * 5_000).to_json().encode()
    body = (
        b"INFO" + b"ISFT" + struct.pack("<I", 3) + b"ab\0\0" + b"ICMT" + struct.pack("<I", len(text)) + text
    )
    body += b"\0" * (len(text) % 2)
    data = path.read_bytes() + b"LIST" + struct.pack("<I", len(body)) + body
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert Recipe.read(path) == example(prompt="x" * 5_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"format": "audiogen recipe 1"}',
        '{"format": "audiogen recipe 2"}',
        "[" * 100_000,
        '"audiogen recipe 1"',
    ],
)
def test_damaged_recipes_are_refused(text):
    with pytest.raises(AudioError, match="recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize("field", ["package", "settings", "inputs", "seed"])
def test_fields_of_the_wrong_kind_are_named(field):
    facts = json.loads(example().to_json())
    facts[field] = 1.5
    with pytest.raises(AudioError, match=field):
        Recipe.from_json(json.dumps(facts))


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"hello")
    assert recipes.hash_file(tmp_path / "a") == hashlib.sha256(b"hello").hexdigest()
    with pytest.raises(AudioError, match="cannot be read"):
        recipes.hash_file(tmp_path / "none")
