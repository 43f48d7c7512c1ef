"""Spectrograms as text."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest

from audiogen_core import cli
from audiogen_core.audio import Audio
from audiogen_core.terminal_picture import COLUMNS, ROWS, Style, picture, show, style_for

MARGIN = 6
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def sine(hertz: float, *, seconds: float = 4.0, level: float = 0.5, rate: int = 24_000) -> Audio:
    time = np.arange(round(seconds * rate)) / rate
    return Audio((level * np.sin(2 * np.pi * hertz * time))[None].astype(np.float32), rate)


def body(text: str) -> list[str]:
    return [line[MARGIN:] for line in text.splitlines()[:ROWS]]


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


# -- what is drawn -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("hertz", "label"), [(97, "100"), (1020, "1k"), (3100, "3k")])
def test_a_sine_is_a_bright_line_at_its_frequency(hertz, label):
    lines = picture(sine(hertz)).splitlines()
    full = [line for line in lines[:ROWS] if line.count("█") > COLUMNS * 0.9]
    assert len(full) == 1
    assert full[0].split()[0] == label


def test_time_runs_to_the_right():
    high, low = sine(2000, seconds=2, level=0.16).samples, sine(200, seconds=2).samples
    lines = body(picture(Audio(np.concatenate([high, low], axis=1), 24_000), style=Style.ascii))
    half = COLUMNS // 2
    top = next(line for line in lines if "@" in line)
    bottom = next(line for line in reversed(lines) if "@" in line)
    assert "@" in top[: half - 1] and not top[half + 1 :].strip(" .:")
    assert "@" in bottom[half + 1 :] and not bottom[: half - 1].strip(" .:")


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("seconds", [0.001, 0.2, 7.0, 90.0])
def test_every_line_has_the_width_asked_for(style, seconds):
    lines = ESCAPES.sub("", picture(sine(440, seconds=seconds), style=style, columns=40, rows=9)).splitlines()
    assert len(lines) == 12
    assert {len(line) for line in lines[:10]} == {MARGIN + 40}
    assert len(lines[10]) <= MARGIN + 40


def test_levels_are_said_below():
    assert picture(sine(440, level=0.5)).endswith("peak -6.02 dB, RMS -9.03 dB")


def test_times_are_said_below():
    marks = picture(sine(440, seconds=20)).splitlines()[ROWS + 1]
    assert marks.split() == ["0", "s", "5", "10", "15"]
    assert marks.index("10") - MARGIN == COLUMNS // 2


def test_silence_is_empty():
    text = picture(Audio(np.zeros((2, 24_000), np.float32), 24_000))
    assert not "".join(body(text)).strip()
    assert text.endswith("peak silent, RMS silent")


def test_what_a_clip_cannot_hold_is_left_empty():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8000)).astype(np.float32)
    lines = body(picture(Audio(noise, 4000)))
    assert not lines[0].strip() and not lines[2].strip()
    assert lines[-1].strip()


def test_colours_say_both_halves_of_a_line():
    lines = picture(sine(440), style=Style.colours).splitlines()
    assert all("\x1b[38;2;" in line and line.endswith("\x1b[0m") for line in lines[:ROWS])
    assert "2;252;253;191" in picture(sine(440), style=Style.colours)  # the brightest
    assert re.search(r"\x1b\[38;5;\d+;48;5;\d+m▀", picture(sine(440), style=Style.few_colours))


# -- where it is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "environment", "style"),
    [
        (Terminal(), {"COLORTERM": "truecolor"}, Style.colours),
        (Terminal(), {"TERM": "xterm-256color"}, Style.few_colours),
        (Terminal(), {"COLORTERM": "truecolor", "NO_COLOR": "1"}, Style.shades),
        (Terminal(), {"COLORTERM": "truecolor", "NO_COLOR": ""}, Style.colours),
        (Terminal(), {"COLORTERM": "truecolor", "TERM": "dumb"}, Style.shades),
        (Terminal("ascii"), {"COLORTERM": "truecolor"}, Style.ascii),
        (Terminal("latin-1"), {}, Style.ascii),
        (io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), {"COLORTERM": "truecolor"}, Style.shades),
        (io.StringIO(), {}, Style.ascii),  # says no encoding
    ],
)
def test_the_style_suits_the_stream(stream, environment, style):
    assert style_for(stream, environment) is style


def test_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    show(sine(440), terminal)
    lines = terminal.buffer.getvalue().decode().splitlines()
    assert max(map(len, lines)) == 39


def test_the_end_of_a_command_shows_it_unless_told_not_to(tmp_path, capsys):
    path = sine(440).save(tmp_path / "a.wav")
    facts = {"seconds": 4.0, "took": 1.0}
    cli.finished(path, **facts, picture=True)
    shown = capsys.readouterr()
    assert "RMS -9.03 dB" in shown.err
    assert shown.out == f"{path}\n"
    cli.finished(path, **facts)
    cli.finished(path, **facts, picture=True, json=True)
    cli.finished(path, seconds=601, took=1.0, picture=True)
    assert "RMS" not in capsys.readouterr().err


def test_the_command_draws_in_the_terminal(tmp_path):
    path = sine(440).save(tmp_path / "a.wav")
    line = [sys.executable, "-m", "audiogen_core", "plot", str(path)]
    text = subprocess.run(line, capture_output=True, env={"PYTHONIOENCODING": "utf-8"}, check=True).stdout
    assert text.decode().splitlines()[-1].strip() == "peak -6.02 dB, RMS -9.03 dB"
