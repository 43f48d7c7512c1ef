"""The catalogue of MusicGen: all that are published, pinned, with what the loader needs."""

from __future__ import annotations

import pytest

from audiogen_core.models import ModelSpec, find
from audiogen_core.musicgen.catalog import TEXT_ENCODERS
from audiogen_mlx.catalog import MUSICGEN

PUBLISHED = [
    "musicgen-small",
    "musicgen-medium",
    "musicgen-large",
    "musicgen-stereo-small",
    "musicgen-stereo-medium",
    "musicgen-stereo-large",
    "musicgen-melody",
    "musicgen-melody-large",
    "musicgen-stereo-melody",
    "musicgen-stereo-melody-large",
    "musicgen-style",
]
FETCHED = {name: spec for name, spec in MUSICGEN.items() if isinstance(spec, ModelSpec)}


def test_every_published_model_is_there():
    assert list(FETCHED) == [*PUBLISHED, "audiogen-medium"]
    assert len({spec.revision for spec in FETCHED.values()}) == len(FETCHED)


@pytest.mark.parametrize("name", FETCHED)
def test_entries(name):
    spec = FETCHED[name]
    names = [file.name for file in spec.files]
    assert spec.pinned
    assert spec.license == "CC-BY-NC-4.0"
    assert find(MUSICGEN, f"facebook/{name}") is spec
    assert len(set(names)) == len(names)
    if "state_dict.bin" in names:
        assert "compression_state_dict.bin" in names
    else:
        assert {"config.json", "tokenizer.json"} <= set(names)
        assert ("preprocessor_config.json" in names) == ("melody" in name)


@pytest.mark.parametrize("name", FETCHED)
def test_shards_are_complete_and_have_their_index(name):
    names = [file.name for file in FETCHED[name].files]
    shards = [one for one in names if "-of-" in one]
    for number, shard in enumerate(shards, start=1):
        assert f"-{number:05}-of-{len(shards):05}." in shard
    assert any(one.endswith(".index.json") for one in names) == bool(shards)


def test_text_encoders_that_no_checkpoint_holds():
    assert {"t5-base", "t5-large"} <= set(TEXT_ENCODERS)
    assert all(spec.pinned and spec.license == "Apache-2.0" for spec in TEXT_ENCODERS.values())
