"""The MusicGens of the fixtures, exported once for all tests of a run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from audiogen_core.musicgen.files import Files, Places
from audiogen_onnx.exporter.musicgen.export import export_musicgen
from audiogen_onnx.musicgen.generate import MusicGen

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"


def files(name: str) -> Files:
    """A checkpoint of the fixtures, with what lies outside its folder."""
    places = Places(tokenizer=FOLDER / "tokenizer")
    if name.startswith("audiocraft"):
        codec = FOLDER.parent / "encodec" / "32k"
        places = Places(t5=FOLDER / "t5", tokenizer=FOLDER / "tokenizer", codec=codec)
    return Files(FOLDER / name, places)


def exported(name: str, dtype: str = "float32") -> Path:
    """An exported folder; not to be changed (copy it)."""
    return _exported(name, dtype)


@cache
def _exported(name: str, dtype: str) -> Path:
    place = Path(tempfile.mkdtemp(prefix="audiogen-musicgen-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    export_musicgen(files(name), place / name, dtype=dtype)
    return place / name


@cache
def model(name: str, dtype: str = "float32") -> MusicGen:
    """A model of the fixtures, exported and opened."""
    return MusicGen.load(exported(name, dtype), threads=1)
