"""Playing what was made, with a stand-in for sounddevice: there is no loudspeaker here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from audiogen_core import cli
from audiogen_core.audio import Audio
from audiogen_core.commands import command
from audiogen_core.jobs import Play, Shown


class PortAudioError(Exception):
    """As sounddevice has it."""


@pytest.fixture
def heard(monkeypatch):
    """What was played: (samples, rate, whether it was waited for)."""
    clips = []
    monkeypatch.setattr(cli.state, "play", False)  # and so again afterwards
    device = SimpleNamespace(
        PortAudioError=PortAudioError,
        play=lambda samples, rate, blocking: clips.append((samples, rate, blocking)),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    return clips


@pytest.fixture
def call(tmp_path):
    """A command that makes a file; with what the rest of its command line says."""
    path = tmp_path / "clip.wav"
    commands = cli.Program("thing", "audiogen-core", "A thing.")
    made = []

    @dataclass(frozen=True, kw_only=True)
    class Played(Shown):
        play: Play = False

    @command(commands, "make", Played)
    def make(asked: Played) -> None:
        """Make it."""
        made.append(path)
        Audio(np.full((2, 800), 0.25, np.float32), 8000).save(path, force=True)
        cli.finished(path, seconds=0.1, took=0.1, json=asked.json)

    @commands.command()
    def other() -> None:
        """So that commands have names."""

    return SimpleNamespace(run=lambda *words: CliRunner().invoke(commands, ["make", *words]), made=made)


@pytest.mark.parametrize("words", [["--play"], ["--play", "--json"]])
def test_what_was_made_is_played_after_it_was_told(heard, call, words):
    result = call.run(*words)
    assert result.exit_code == 0 and "clip.wav" in result.stdout
    ((samples, rate, waited),) = heard
    assert samples.shape == (800, 2) and rate == 8000 and waited
    np.testing.assert_allclose(samples, 0.25, atol=1e-4)


def test_nothing_is_played_unasked(heard, call):
    call.run("--play")
    assert call.run().exit_code == 0
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("no"),
            "sounddevice is not installed; install it with: pip install",
        ),
        (OSError("PortAudio library not found"), "PortAudio, which sounddevice plays by, is not installed"),
    ],
)
def test_what_is_missing_is_said_before_any_work(monkeypatch, call, error, message):
    def fail(name):
        raise error

    monkeypatch.setattr("audiogen_core.playback.import_module", fail)
    result = call.run("--play")
    assert result.exit_code == 1 and message in result.stderr and not call.made


def test_no_device_leaves_the_file(heard, call, monkeypatch):
    def fail(samples, rate, blocking):
        raise PortAudioError("Error querying device -1")

    monkeypatch.setattr(sys.modules["sounddevice"], "play", fail)
    result = call.run("--play")
    assert result.exit_code == 1 and "cannot be played (Error querying device -1)" in result.stderr
    assert Audio.load(call.made[0]).duration == 0.1
