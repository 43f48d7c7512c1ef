"""What can be known before the work is checked before it: nothing is opened, fetched or left behind."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from audiogen_core import codecs, jobs
from audiogen_core.audio import Audio
from audiogen_core.codes import Codes
from audiogen_core.errors import AudioError, AudiogenError, OptionError
from audiogen_core.files import SPARE, require_room
from audiogen_core.sound_writer import check_sound
from support.commands import call
from support.sounds import tone

PROGRAMS = {
    "core": "audiogen_core.main:commands",
    "onnx": "audiogen_onnx.cli:cli",
    "minigpt": "audiogen_minigpt.cli:commands",
    "mlx": "audiogen_mlx.cli:cli",
}
MAKING = {
    "musicgen": ("mlx", "musicgen", "x", "-m", "demo", "--seconds", 3),
    "musicgen by name": ("mlx", "musicgen", "x", "-m", "musicgen-small", "--seconds", 3),
    "musicgen in stereo": ("mlx", "musicgen", "x", "-m", "musicgen-stereo-small", "--seconds", 3),
    "stable-audio": ("mlx", "stable-audio", "x", "-m", "demo", "--seconds", 3),
    "stable-audio by name": ("mlx", "stable-audio", "x", "--seconds", 3),
    "stable-audio-3": ("mlx", "stable-audio-3", "x", "--seconds", 3),
    "musicgen in onnx": ("onnx", "musicgen", "x", "-m", "demo", "--seconds", 3),
    "magnet": ("onnx", "magnet", "x", "-m", "magnet-small-10secs", "--seconds", 3),
    "vamp": ("onnx", "vamp", "a.wav", "-m", "demo"),
    "generate": ("minigpt", "generate", "demo", "--seconds", 3),
    "decode": ("core", "decode", "a.codes"),
}


@pytest.fixture(scope="module")
def codes() -> Codes:
    return codecs.load("demo").encode(tone(1.0, sample_rate=24_000))


@pytest.fixture(autouse=True)
def place(codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of a rate that MP3 does not have, some codes; and whoever opens a model has failed."""
    monkeypatch.chdir(tmp_path)
    tone(1.0, sample_rate=50_000).save("a.wav", force=True)
    codes.save("a.codes")

    def opened(*_: object, **__: object) -> None:
        pytest.fail("a model was opened first")

    for each in jobs.installed():
        monkeypatch.setattr(jobs.imported(each.conductor), "load", opened)
    monkeypatch.setattr(codecs, "load", opened)
    monkeypatch.setattr(codecs, "load_codec", opened)
    monkeypatch.setattr("audiogen_core.hub.fetch", opened)


def refused(*arguments: object) -> str:
    """The sentence that a command ends with."""
    module, _, name = PROGRAMS[str(arguments[0])].partition(":")
    before = sorted(Path().rglob("*"))
    done = call(getattr(import_module(module), name), *arguments[1:])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1, (done.exception, done.output)
    assert done.stderr.count("error: ") == 1 and sorted(Path().rglob("*")) == before
    return done.stderr


@pytest.mark.parametrize("making", MAKING)
def test_a_suffix_that_is_not_known(making: str) -> None:
    assert "cannot write .tiff" in refused(*MAKING[making], "-o", "o.tiff")


@pytest.mark.parametrize(
    ("making", "suffix", "rate"),
    [
        ("musicgen by name", ".opus", 32_000),
        ("musicgen in stereo", ".opus", 32_000),
        ("stable-audio by name", ".opus", 44_100),
        ("vamp", ".mp3", 50_000),
        ("vamp", ".opus", 50_000),
    ],
)
def test_a_rate_that_the_format_does_not_hold(making: str, suffix: str, rate: int) -> None:
    """One that is asked for, that is: a model's own is changed."""
    assert f"not {rate}" in refused(*MAKING[making], "-o", f"o{suffix}", "--sample-rate", rate)


def test_a_format_that_is_not_known() -> None:
    assert "cannot write" in refused(*MAKING["musicgen"], "-o", "o.aac")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--subtype", "float", "-o", "o.flac"), ".flac is not stored as float"),
        (("--subtype", "8", "-o", "o.wav"), "subtype must be one of 16, 24, float"),
        (("--gain", 3, "--loudness", -14, "-o", "o.wav"), "--gain or --loudness, not both"),
        (("--fade", "soft", "-o", "o.wav"), "fade must be"),
        (("--channels", 3, "-o", "o.mp3"), "1 to 2 channels, not 3"),
        (("--sample-rate", 10, "-o", "o.wav"), "sample rates are whole numbers from"),
    ],
)
@pytest.mark.parametrize(
    "making", ["musicgen", "stable-audio", "musicgen in onnx", "vamp", "generate", "decode"]
)
def test_what_is_to_be_done_to_a_clip(making: str, more: tuple[object, ...], why: str) -> None:
    assert why in refused(*MAKING[making], *more)


def test_channels_that_the_format_does_not_hold() -> None:
    Audio(np.zeros((3, 48_000), np.float32), 48_000).save("a.wav", force=True)
    assert "1 to 2 channels, not 3" in refused(*MAKING["vamp"], "-o", "o.mp3")


@pytest.mark.parametrize("making", MAKING)
def test_a_disk_that_is_too_full(making: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=SPARE + 30_000)  # the shortest clip has 48,000 bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert "make room" in refused(*MAKING[making], "-o", "o.wav")


@pytest.mark.parametrize(
    ("encoding", "size"),
    [
        (("core", "encode", "a.wav", "-o", "b.codes"), 75 * 8 * 4),  # frames, codebooks, bytes
        (("core", "encode", "a.wav", "-o", "b.codes", "--codebooks", 3), 75 * 3 * 4),
        (("core", "encode", "a.wav", "-o", "b.codes", "--codec", "dac-44khz"), 44_100 / 512 * 9 * 4),
        (("minigpt", "encode", ".", "-o", "new/folder"), 75 * 8 * 2),
        (("minigpt", "encode", ".", "-o", "new/folder", "--stereo", "split"), 2 * 75 * 8 * 2),
        (("minigpt", "run", ".", "-o", "new/folder", "--steps", 1), 75 * 8 * 2),
    ],
)
def test_codes_are_counted_before_a_codec_is_opened(
    encoding: tuple[object, ...], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = 2 if "split" in encoding else 1
    Audio(np.zeros((channels, 50_000), np.float32), 50_000).save("a.wav", force=True)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=SPARE + int(size) - 1))
    assert "make room" in refused(*encoding)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=SPARE + int(size) + 1))
    with pytest.raises(pytest.fail.Exception, match="opened first"):
        refused(*encoding)


@pytest.mark.parametrize("making", MAKING)
def test_a_folder_that_cannot_be_written_to(making: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    assert "cannot be written to" in refused(*MAKING[making], "-o", "locked/o.wav")


def test_all_variations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=SPARE + 500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert "make room" in refused(*MAKING["generate"], "-o", "o.wav", "--variations", 9)


@pytest.mark.parametrize(
    "writing",
    [
        ("minigpt", "encode", ".", "-o"),
        ("minigpt", "run", ".", "-o"),
        ("minigpt", "export", "demo", "-o"),
        ("mlx", "convert", "musicgen-small", "-o"),
        ("onnx", "export", "vampnet", "-o"),
        ("core", "compose", "--minutes", 1, "-o"),
    ],
    ids=lambda writing: writing[1],
)
def test_folders(writing: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert "make room" in refused(*writing, "new/folder")


def test_masks() -> None:
    assert ".npy or .png" in refused(*MAKING["vamp"], "-o", "o.wav", "--save-mask", "m.txt")
    assert "written as .png" in refused(*MAKING["vamp"], "-o", "o.wav", "--preview", "m.npy")


def test_from_python() -> None:
    vamp = jobs.find("vamp")
    asked = vamp.options.of({"audio": "a.wav"})
    with pytest.raises(AudioError, match="not 50000"):
        vamp.check(vamp.load(model="demo"), asked, [Path("o.mp3")])
    vamp.check(vamp.load(model="demo"), asked, [Path("o.wav")])
    with pytest.raises(AudioError, match=r"gone\.wav"):
        vamp.check(vamp.load(model="demo"), vamp.options.of({"audio": "gone.wav"}), [])


@pytest.mark.parametrize(
    ("path", "rate", "channels", "seconds"),
    [
        ("o.ogg", 200_001, 1, 1.0),  # libsndfile ends the process there
        ("o.flac", 655_360, 1, 1.0),
        ("o.flac", 96_001, 1, 1.0),
        ("o.mp3", 48_000, 3, 1.0),
        ("o.opus", 44_100, 2, 1.0),
        ("o.flac", 48_000, 9, 1.0),
        ("o.wav", 768_000, 32, 100.0),
    ],
)
def test_what_formats_hold(path: str, rate: int, channels: int, seconds: float) -> None:
    with pytest.raises(AudioError, match="holds"):
        check_sound(Path(path), rate, channels, seconds)
    if seconds == 1.0:
        with pytest.raises(AudioError, match="holds"):
            Audio(np.zeros((channels, 100), np.float32), rate).save(path)
        assert not Path(path).exists()


@pytest.mark.parametrize("rate", [8_000, 65_535, 96_000, 192_000])
@pytest.mark.parametrize("path", ["o.ogg", "o.flac", "o.wav", "o.aiff"])
def test_what_is_said_to_fit_is_written(path: str, rate: int) -> None:
    check_sound(Path(path), rate, 1, 0.1)
    assert Audio(np.zeros((1, rate // 10), np.float32), rate).save(path).stat().st_size > 0


def test_room_is_looked_for_where_it_will_be_needed() -> None:
    require_room("new/folder/of/a/run", 1000)
    with pytest.raises(OptionError, match="make room"):
        require_room("new/folder/of/a/run", 1e18)
    Path("file").touch()
    with pytest.raises(AudiogenError, match="cannot be written to"):
        require_room("file/o.wav")
