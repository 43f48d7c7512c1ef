"""What all command lines share: exit codes, results, progress, checks of outputs."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pytest

from audiogen_core import cli, present
from audiogen_core.commands import command
from audiogen_core.errors import AudiogenError, DownloadError, OptionError
from audiogen_core.jobs import JobLoad, JobOptions, Shown, Written
from audiogen_core.options import argument, option, place
from support.commands import call
from support.programs import PROGRAMS
from support.programs import program as program_of

PROGRAM = """
import os, sys, time, warnings
from dataclasses import dataclass
from typing import Annotated
from audiogen_core import cli
from audiogen_core.commands import command
from audiogen_core.errors import OptionError
from audiogen_core.jobs import Shown
from audiogen_core.options import argument

commands = cli.Program("thing", "audiogen-core", "A thing.")

@dataclass(frozen=True, kw_only=True)
class How(Shown):
    how: Annotated[str, argument("How.")]

@command(commands, "make", How)
def make(asked: How) -> None:
    how = asked.how
    if how == "wait":
        print("ready", flush=True)
        time.sleep(60)
    if how == "lines":
        while True:
            print("x" * 100)
    if how == "warn":
        warnings.warn("too loud")
        warnings.warn("for programmers", DeprecationWarning)
        cli.note("a note")
    if how == "bytes":
        print(os.fsdecode(b"caf\\xe9"))
        raise OptionError(os.fsdecode(b"bad caf\\xe9"))

@commands.command()
def other() -> None: ...

cli.run(commands)
"""


@dataclass(frozen=True, kw_only=True)
class How(Shown):
    how: Annotated[str, argument("How.")]


@dataclass(frozen=True, kw_only=True)
class Load(JobLoad):
    model: Annotated[str, place("Which.", "-m")] = "demo"


@dataclass(frozen=True, kw_only=True)
class Seeded(JobOptions):
    dry_run: Annotated[bool, option("Nothing.")] = False


class Broken(AudiogenError):
    exit_code = 7


ERRORS = {
    "ours": OptionError("a\n  b"),
    "code": Broken("odd"),
    "missing": FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "memory": MemoryError(),
    "download": DownloadError("not there"),
    "interrupt": KeyboardInterrupt(),
    "bug": ZeroDivisionError("1 / 0"),
}


@pytest.fixture
def commands():
    made = cli.Program("thing", "audiogen-core", "A thing.")

    @command(made, "fail", How)
    def fail(asked: How) -> None:
        """Fail as it is told."""
        cli.note("a note")
        cli.detail("a detail")
        if asked.how in ERRORS:
            raise ERRORS[asked.how]

    @command(made, "options", Seeded, Written, Load)
    def options(seeded: Seeded, written: Written, load: Load) -> None:
        """Tell what was asked."""
        seed = cli.draw_seed() if seeded.seed is None else seeded.seed
        if seeded.seed is None:
            cli.show_seed(seed)
        told = {"output": written.output, "model": load.model, "seed": seed}
        cli.emit(told | {"force": written.force}, json=written.json)

    return made


def program(tmp_path: Path, *arguments: str, **options) -> subprocess.Popen:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


# -- exit codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("ours", 1, "error: a b"),
        ("code", 7, "error: odd"),
        ("missing", 1, "error: /a/b: No such file or directory"),
        ("full", 1, "error: No space left on device; make room there or choose another disk"),
        ("memory", 1, "error: not enough memory"),
        ("interrupt", 130, "interrupted"),
        ("none", 0, "a note"),
    ],
)
def test_exit_codes_and_the_one_line(commands, how, code, line):
    result = call(commands, "fail", how)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == line
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback_for_this_call_only(commands):
    assert "Traceback" in call(commands, "fail", "ours", "--debug").stderr
    assert "Traceback" not in call(commands, "fail", "ours").stderr


def test_bugs_are_not_hidden(commands):
    assert isinstance(call(commands, "fail", "bug").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "arguments", [["fail"], ["nope"], ["fail", "x", "--nope"], ["options", "--seed", "a"]]
)
def test_wrong_usage_is_2(commands, arguments):
    result = call(commands, *arguments)
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    assert len(told) == 1 and told[0].startswith("error: ") and told[0].endswith(" --help")


def test_version_and_help(commands):
    assert call(commands, "--version").stdout.startswith("thing ")
    for flag in ("-h", "--help"):
        result = call(commands, "options", flag)
        assert result.exit_code == 0
        assert "--output" in result.stdout
    assert "--install-completion" in call(commands, "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(commands, tmp_path, monkeypatch, shell):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shown = call(commands, "--show-completion", shell).stdout
    assert "_THING_COMPLETE" in shown
    done = call(commands, "--install-completion", shell)
    assert done.exit_code == 0
    assert Path(done.stdout.strip()).read_text() == shown


def test_choices_are_completed():
    from click.shell_completion import ShellComplete

    def offered(*words):
        *before, begun = words
        completed = ShellComplete(program_of("audiogen-mlx"), {}, "audiogen-mlx", "X").get_completions(
            before, begun
        )
        return [each.value for each in completed]

    assert offered("musicgen", "a prompt", "--channel", "m") == ["mid"]
    assert "--melody" in offered("musicgen", "--mel")
    assert offered("stable-a") == ["stable-audio", "stable-audio-3"]


def test_quiet_and_verbose(commands):
    assert call(commands, "fail", "none").stderr == "a note\n"
    assert call(commands, "fail", "none", "-q").stderr == ""
    assert call(commands, "fail", "none", "-v").stderr == "a note\na detail\n"


def test_shared_options(commands, tmp_path):
    result = call(commands, "options", "-o", "x", "-m", "other", "--seed", "5", "--json", "--force")
    assert json.loads(result.stdout) == {"output": "x", "model": "other", "seed": 5, "force": True}
    drawn = call(commands, "options", "-o", "x", "--json")
    assert drawn.stderr == f"seed: {json.loads(drawn.stdout)['seed']}\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path, number, code):
    with program(tmp_path, "make", "wait") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("asked", [[], ["--json"]])
def test_an_interrupt_while_a_program_is_imported_ends_it_in_one_line(name, asked):
    code = f"""
import builtins, signal, sys
imported = builtins.__import__
def interrupted(wanted, *rest):
    if wanted == "click":
        signal.raise_signal(signal.SIGINT)
    return imported(wanted, *rest)
builtins.__import__ = interrupted
from {name.replace("-", "_")}.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert [json.loads(line)["error"] for line in done.stdout.splitlines()] == ["interrupted"] * len(asked)


def test_programs_start_where_an_interrupt_is_caught():
    for name in PROGRAMS:
        scripts = [each.value for each in metadata.distribution(name).entry_points if each.name == name]
        assert scripts == [f"{name.replace('-', '_')}.__main__:main"]


def test_a_reader_that_leaves_is_no_error(tmp_path):
    with program(tmp_path, "make", "lines") as process:
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
        process.wait(timeout=30)
    assert stderr == b""
    assert process.returncode == 1


def test_warnings_are_one_line_and_only_for_users(tmp_path):
    with program(tmp_path, "make", "warn") as process:
        _, stderr = process.communicate(timeout=30)
    assert stderr.decode().splitlines() == ["warning: too loud", "a note"]


def test_names_that_are_no_text_are_printed(tmp_path):
    with program(tmp_path, "make", "bytes", env=os.environ | {"PYTHONUTF8": "1"}) as process:
        stdout, stderr = process.communicate(timeout=30)
    assert stdout.strip() == b"caf\\udce9"
    assert stderr.strip() == b"error: bad caf\\udce9"


# -- results -----------------------------------------------------------------------------------------


def test_results_as_json():
    import numpy as np

    result = {
        "path": Path("a"),
        "level": np.float32(0.5),
        "bad": float("nan"),
        "many": (1, None),
        "in": {"x": True},
    }
    assert json.loads(present.as_json(result)) == {
        "path": "a",
        "level": 0.5,
        "bad": None,
        "many": [1, None],
        "in": {"x": True},
    }


def test_results_as_text():
    result = {"name": "a", "rate": 12.5, "ok": True, "none": None, "in": {"x": [1, 2]}, "rows": [{"a_b": 1}]}
    assert present.as_text(result).splitlines() == [
        "name  a",
        "rate  12.5",
        "ok    yes",
        "none  -",
        "in",
        "  x  1, 2",
        "rows",
        "  a b",
        "  1",
    ]
    assert present.as_text([{"name": "long one", "b": 1}, {"name": "x", "b": 22}]).splitlines() == [
        "name      b",
        "long one  1",
        "x         22",
    ]
    assert present.as_text([]) == "(none)"
    assert present.as_text({}) == ""


def test_the_end_of_a_command(capsys):
    cli.finished("a.wav", seconds=10, took=2, seed=3, replay="thing replay a.wav -o b.wav")
    shown = capsys.readouterr()
    assert shown.out == "a.wav\n"
    assert shown.err.startswith("10.00 s of audio in 2.00 s (5.0x real time)")
    assert "seed 3" in shown.err
    assert shown.err.endswith("again: thing replay a.wav -o b.wav\n")
    cli.finished("a.wav", seconds=10, took=2, json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["times_real_time"] == 5
    assert shown.err == ""


def test_peak_memory_is_this_process_alone():
    held = b"x" * (300 << 20)
    code = "from audiogen_core.cli import peak_memory; print(peak_memory())"
    if sys.platform != "win32":
        assert cli.peak_memory() > len(held)
        assert int(subprocess.check_output([sys.executable, "-c", code])) < 200 << 20


# -- checks of outputs -------------------------------------------------------------------------------


def test_outputs_are_checked_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    assert cli.require_new(path) == path
    path.write_text("old")
    with pytest.raises(OptionError, match="--force"):
        cli.require_new(path)
    assert cli.require_new(path, force=True) == path
    with pytest.raises(OptionError, match="a folder"):
        cli.require_new(tmp_path, force=True)
    with pytest.raises(OptionError, match="does not exist"):
        cli.require_new(tmp_path / "none" / "a.wav")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OptionError, match="cannot be written to"):
        cli.require_new(tmp_path / "b.wav")


def test_several_files_are_numbered_alike(tmp_path):
    assert cli.require_new_each(tmp_path / "a.wav", 1) == [tmp_path / "a.wav"]
    assert [path.name for path in cli.require_new_each(tmp_path / "a.b.wav", 2)] == ["a.b-1.wav", "a.b-2.wav"]
    assert [path.name for path in cli.require_new_each(tmp_path / "a.wav", 10)][::9] == [
        "a-01.wav",
        "a-10.wav",
    ]
    (tmp_path / "a-2.wav").touch()
    with pytest.raises(OptionError, match=r"a-2\.wav: exists already"):
        cli.require_new_each(tmp_path / "a.wav", 3)
    assert len(cli.require_new_each(tmp_path / "a.wav", 3, force=True)) == 3


# -- progress ----------------------------------------------------------------------------------------


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def wait_for(self, text: str) -> None:
        """Until the thread that draws has written it."""
        for _ in range(2_000):
            if text in self.getvalue():
                return
            time.sleep(0.01)
        raise AssertionError(f"{text!r} was never shown")


def test_progress_is_silent_without_a_terminal(capsys):
    with cli.progress("working") as on_step:
        on_step(1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_shows_amounts_and_rate(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with cli.progress("working", unit="s") as on_step:
        on_step(1, 4)
        on_step(3, 4)
        screen.wait_for("working")
        screen.wait_for("3/4 s, ")
        on_step(3.5, 0)
        screen.wait_for("3.5 s, ")


def test_progress_is_off_when_quiet(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with cli.progress("working", quiet=True) as on_step:
        on_step(1, 4)
    assert screen.getvalue() == ""


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with cli.progress("working") as on_step:
        on_step(1, 4)
        screen.wait_for("working")
    assert "\x1b[3" not in screen.getvalue()
