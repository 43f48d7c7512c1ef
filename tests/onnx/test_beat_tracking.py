"""The beat tracker as part of an exported folder and of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from audiogen_core.audio import Audio
from audiogen_core.compose import compose
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_core.recipe import Recipe
from audiogen_onnx.cli import cli
from audiogen_onnx.exporter import export as exporter
from audiogen_onnx.manifest import Graph, Manifest
from audiogen_onnx.vampnet.beats import Beats
from audiogen_onnx.vampnet.generate import Vampnet
from audiogen_onnx.vampnet.wavebeat import BeatTracker
from support.commands import call
from support.exported import exported
from support.vampnet_numpy import FIXTURES
from support.wavebeat import SMALL, Reference, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model of the fixtures, exported with a beat tracker of random weights.

    Its other graphs are those that the tests of a run share: writing them again takes long.
    """
    place = tmp_path_factory.mktemp("tracked")
    shutil.copytree(FIXTURES / "small", place / "checkpoints")
    save_checkpoint(place / "checkpoints" / "wavebeat.pth", SMALL, Reference(SMALL).state())
    graphs = Manifest.load(exported()).graphs

    def copied(target: Path, *names: str) -> dict[str, Graph]:
        for file in {stored.file for name in names for stored in graphs[name].files}:
            shutil.copy(exported() / file, target)
        return {name: graphs[name] for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "_codec_graphs", lambda _, to, check: copied(to, "encoder", "decoder"))
        step = "{}_step".format
        patch.setattr(exporter, "_network_graphs", lambda _, name, to, check: copied(to, name, step(name)))
        exporter.export(place / "checkpoints", place / "model", check=False)
    return place / "model"


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audio:
    music = compose(3, seconds=1.0).audio.resample(16_000).mix(1)
    music.save(tmp_path / "in.wav")
    monkeypatch.chdir(tmp_path)
    return music


def test_the_folder_names_and_hashes_it(folder: Path) -> None:
    manifest = Manifest.load(folder, verify=True)
    assert manifest.graphs["beats"].graph.file == "beats.onnx"
    assert "wavebeat.pth" in manifest.created_from


def test_it_can_be_left_out(folder: Path) -> None:
    checkpoints = folder.parent / "checkpoints"
    assert "wavebeat.pth" in exporter.Sources.of(checkpoints).hashes()
    assert "wavebeat.pth" not in exporter.Sources.of(checkpoints, beats=False).hashes()


def test_a_wrong_checkpoint_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder.parent / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(FIXTURES / "small" / "codec.pth", tmp_path / "checkpoints" / "wavebeat.pth")
    with pytest.raises(ModelError, match=r"not a checkpoint of WaveBeat.*--no-beats"):
        exporter.export(tmp_path / "checkpoints", tmp_path / "model", check=False)
    assert not (tmp_path / "model").exists()


def test_the_command_leaves_it_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the error advises is an option there is."""
    asked: list[bool] = []

    def export(*_: object, beats: bool, **__: object) -> Manifest:
        asked.append(beats)
        return Manifest.load(folder)

    monkeypatch.setattr(exporter, "export", export)
    for more in ((), ("--beats",), ("--no-beats",)):
        done = call(cli, "export", folder.parent / "checkpoints", "-o", tmp_path / "model", *more)
        assert done.exit_code == 0, done.stderr
    assert asked == [True, True, False]


def test_beats_are_printed_as_they_are_read(folder: Path, clip: Audio) -> None:
    tracked = BeatTracker.of(folder).track(Audio.load("in.wav"))
    assert len(tracked) > 2 and tracked.downbeats.any()
    done = call(cli, "beats", "in.wav", "-m", folder)
    assert done.exit_code == 0, done.stderr
    printed = Beats.parse(done.stdout)
    np.testing.assert_allclose(printed.times, tracked.times, atol=1e-6)
    np.testing.assert_array_equal(printed.downbeats, tracked.downbeats)
    assert call(cli, "beats", "in.wav", "-m", folder, "-o", "beats.txt").exit_code == 0
    assert Path("beats.txt").read_text() == done.stdout
    as_json = json.loads(call(cli, "beats", "in.wav", "-m", folder, "--json").stdout)
    assert as_json["beats"] == tracked.times.tolist()


def test_a_vamp_around_tracked_beats_replays(folder: Path, clip: Audio) -> None:
    asked = ("--track-beats", "--period", 0, "--steps", 1, "--seed", 1, "--threads", 1)
    done = call(cli, "vamp", "in.wav", "-m", folder, "-o", "out.wav", *asked)
    assert done.exit_code == 0, done.stderr
    options = Recipe.read("out.wav").settings["options"]
    assert options["beats"] == BeatTracker.of(folder).track(Audio.load("in.wav")).times.tolist()
    again = call(cli, "replay", "out.wav", "-o", "again.wav", "--threads", 1)
    assert again.exit_code == 0, again.stderr
    assert Path("again.wav").read_bytes() == Path("out.wav").read_bytes()


def test_a_folder_without_one_is_named(clip: Audio) -> None:
    with pytest.raises(ManifestError, match="holds no graph of beats"):
        BeatTracker.of(exported())
    done = call(cli, "vamp", "in.wav", "-m", exported(), "-o", "out.wav", "--track-beats")
    assert done.exit_code == 1 and "bpm or a list" in done.stderr and not Path("out.wav").exists()


def test_downbeats_only_needs_downbeats(clip: Audio) -> None:
    vampnet = Vampnet.load(exported())
    with pytest.raises(OptionError, match="none of the beats is marked"):
        vampnet.vamp(clip, beats=(0.1, 0.2), upbeats=False, seed=1)
