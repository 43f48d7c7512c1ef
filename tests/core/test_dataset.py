"""What is said of the clips of a folder, and where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import write_folder
from audiogen_core.dataset import captions, scan, sources
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.recipe import Recipe


def clip(path: Path, prompt: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = Recipe("p", "1", "m", settings={"prompt": prompt}) if prompt else None
    Audio(np.zeros((1, 800), np.float32), 8000).save(path, recipe=recipe)


def told(folder: Path) -> dict[str, tuple[str, str]]:
    return {name: (each.text, each.source) for name, each in captions(folder, scan(folder)[0]).items()}


def test_captions_in_their_order(tmp_path: Path):
    for name in ("a", "b", "c", "sub/d", "01 - big_drum-02"):
        clip(tmp_path / f"{name}.wav", None if name[0] == "0" else "said by a recipe")
    (tmp_path / "a.txt").write_text(" two\n lines ")
    (tmp_path / "b.txt").write_text("  ")
    rows = [{"file_name": "a.wav", "text": "not this"}, {"file_name": "b.wav", "text": "of a table"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sub" / "metadata.jsonl").write_text('{"file_name": "d.wav", "caption": "below"}\n\n')
    found = told(tmp_path)
    assert found == {
        "a.wav": ("two lines", "text file"),
        "b.wav": ("of a table", "metadata.jsonl"),
        "c.wav": ("said by a recipe", "tag"),
        "sub/d.wav": ("below", "metadata.jsonl"),
        "01 - big_drum-02.wav": ("big drum", "file name"),
    }
    assert sources(captions(tmp_path, list(found)).values()) == (
        "1 from a text file, 2 from a metadata.jsonl, 1 from a tag, 1 from a file name"
    )


def test_what_compose_writes(tmp_path: Path):
    write_folder(tmp_path, minutes=0.05, piece_seconds=3.0, seed=1)
    (found,) = told(tmp_path).values()
    assert found[1] == "captions.jsonl" and len(found[0]) > 10
    assert sources(captions(tmp_path, list(told(tmp_path))).values()) == "1 from a captions.jsonl"


def test_a_table_that_is_none(tmp_path: Path):
    clip(tmp_path / "a.wav")
    (tmp_path / "metadata.jsonl").write_text("[]\n")
    with pytest.raises(AudioError, match=r"metadata\.jsonl, line 1: expected a JSON object"):
        told(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(AudioError, match="line 1"):
        told(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are of Linux's file systems")
def test_names_that_are_no_text_have_captions_too(tmp_path: Path):
    name = "loud \udcff.wav"
    clip(tmp_path / "plain.wav")
    (tmp_path / "plain.wav").rename(tmp_path / name)
    assert told(tmp_path) == {name: ("loud", "file name")}
    with pytest.raises(OptionError, match="files must be"):
        captions(tmp_path, [3])
