"""The MAGNeTs of the fixtures, exported once for all tests of a run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from audiogen_core.musicgen.files import Files, Places
from audiogen_onnx.exporter.magnet import export_magnet
from audiogen_onnx.magnet.generate import Magnet

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "magnet"
TOKENIZER = FIXTURES / "musicgen" / "tokenizer"
NAMES = ("magnet", "audio-magnet")


def files(name: str) -> Files:
    """A checkpoint of the fixtures, with what lies outside its folder."""
    codec = FOLDER / name / "encodec-32k" if name == "magnet" else None
    return Files(FOLDER / name, Places(t5=FOLDER / name / "t5", tokenizer=TOKENIZER, codec=codec))


@cache
def exported(name: str, dtype: str = "float32") -> Path:
    """An exported folder; not to be changed (copy it)."""
    place = Path(tempfile.mkdtemp(prefix="audiogen-magnet-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    export_magnet(files(name), place / name, dtype=dtype)
    return place / name


@cache
def model(name: str = "magnet") -> Magnet:
    """A model of the fixtures, exported and opened."""
    return Magnet.load(exported(name), threads=1)
