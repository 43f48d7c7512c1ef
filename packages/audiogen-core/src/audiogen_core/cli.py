"""What the programs of all audiogen packages share: exit codes, progress, results.

Results go to stdout, everything else to stderr.

Exit codes: 0 done; 1 our error, in one line (`--debug` shows the traceback), or the `exit_code` that an
error carries; 2 wrong usage; 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from audiogen_core import present
from audiogen_core.errors import AudiogenError, OptionError
from audiogen_core.files import atomic_path, require_new_file, require_plain, require_room
from audiogen_core.progress import OnStep, bar, peak_memory

INTERRUPTED = 130
TERMINATED = 143
PICTURED = 600.0
"""Seconds of audio that a picture is shown of, at most."""

_LINES = "\n\t"
"""Control characters that notes of our own have."""


@dataclass
class State:
    """What the options of the running command said about output, and what is said of them at its end."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    play: bool = False
    json: bool = False
    hints: dict[str, str] = field(default_factory=dict)

    def clear(self) -> None:
        """As before any option."""
        self.quiet = self.verbose = self.debug = self.play = False
        self.hints.clear()


state = State()


class Program(click.Group):
    """The command line called `name`, of the distribution `package`; commands are added to it.

    Our errors end it with one line and an exit code.
    """

    def __init__(self, name: str, package: str, about: str) -> None:
        def show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
            if value:
                from audiogen_core.version import version

                print(name, version(package))
                context.exit()

        super().__init__(
            name,
            help=about,
            no_args_is_help=True,
            callback=state.clear,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
            params=[
                _only("--version", show_version, "Show the version.", is_flag=True),
                _only("--show-completion", _show_completion, _SHOW, type=click.Choice(_SHELLS)),
                _only("--install-completion", _install_completion, _INSTALL, type=click.Choice(_SHELLS)),
            ],
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        state.json = "--json" in args  # before anything can be wrong
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            _refuse(error)
        except KeyboardInterrupt as error:
            _leave(error)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            for hint in state.hints.values():
                note(hint)
            sys.stdout.flush()
            return result
        except click.UsageError as error:
            _refuse(error)
        except (AudiogenError, OSError, MemoryError, KeyboardInterrupt) as error:
            _leave(error)


_SHELLS = ("bash", "zsh", "fish")
_SHOW = "Print what makes a shell complete commands, options and choices."
_INSTALL = "Write that where the shell looks for it."


def _only(name: str, callback: Callable[..., None], about: str, **more: Any) -> click.Option:
    """An option that does its work alone, before any command."""
    return click.Option(
        [name], callback=callback, help=about, default=None, is_eager=True, expose_value=False, **more
    )


def _completion(program: click.Command, shell: str) -> str:
    from click.shell_completion import get_completion_class

    name = str(program.name)
    kind = get_completion_class(shell)
    assert kind is not None  # one of _SHELLS
    return kind(program, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE").source()


def _show_completion(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
    if shell:
        print(_completion(context.command, shell))
        context.exit()


def _install_completion(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
    if not shell:
        return
    name = str(context.command.name)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    path = {
        "bash": data / "bash-completion" / "completions" / name,
        "zsh": data / "zsh" / "site-functions" / f"_{name}",
        "fish": data / "fish" / "vendor_completions.d" / f"{name}.fish",
    }[shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(_completion(context.command, shell) + "\n", encoding="utf-8")
    print(path)
    if shell == "zsh":
        note(f"put `fpath+=({path.parent})` before `compinit` in ~/.zshrc")
    context.exit()


def run(program: click.Group) -> None:
    """Run a command line: the entry point of a program. Leaves with the exit code."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    warnings.showwarning = _show_warning
    _escape_log()
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)
    try:
        program()
    except KeyboardInterrupt as error:
        _leave(error)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    if state.debug:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    elif issubclass(category, UserWarning):
        text = f"warning: {present.printable(str(message), keep=_LINES)}\n"
    else:
        return
    sys.stderr.write(text)


def _escape_log() -> None:
    """What is logged names files, and quotes them: control characters are written out there, too."""
    import logging

    class Escaped(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return present.printable(super().format(record), keep=_LINES)

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Escaped())


def _refuse(error: click.UsageError) -> NoReturn:
    """Say what is wrong with a command line, and exit; without a command, show the help."""
    sentence = error.format_message()
    _tell_error(error, sentence)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    told = f"{sentence[:1].lower()}{sentence[1:].rstrip('.')}{where}"
    print(f"error: {present.printable(' '.join(told.split()))}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code) from None


def _leave(error: BaseException) -> NoReturn:
    """Say what went wrong and exit."""
    if state.debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _tell_error(error, "interrupted")
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    if isinstance(error, BrokenPipeError):
        with suppress(OSError):  # nobody reads any more: let the last flush go nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    _tell_error(error, _sentence(error))
    print(f"error: {present.printable(_sentence(error))}", file=sys.stderr, flush=True)
    raise SystemExit(getattr(error, "exit_code", 1)) from None


def _tell_error(error: BaseException, sentence: str) -> None:
    """With --json an error is a result, too."""
    if state.json:
        with suppress(OSError):
            print(
                present.as_json({"error": sentence, "kind": type(error).__name__}, one_line=True), flush=True
            )


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    if not isinstance(error, OSError) or isinstance(error, AudiogenError):
        return " ".join(str(error).split())
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or str(error) or type(error).__name__
    hint = "; make room there or choose another disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{where}{what}{hint}"


def note(text: str) -> None:
    """A line for the user on stderr, unless --quiet."""
    if not state.quiet:
        print(present.printable(text, keep=_LINES), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line of result on stdout."""
    print(present.printable(text), flush=True)


def detail(text: str) -> None:
    """A line for the curious on stderr: only with --verbose."""
    if state.verbose:
        print(present.printable(text, keep=_LINES), file=sys.stderr, flush=True)


def draw_seed() -> int:
    """A seed for a run."""
    return secrets.randbits(32)


def show_seed(seed: int) -> None:
    """Tell the seed that was drawn."""
    note(f"seed: {seed}")


def emit(result: present.Result, *, json: bool = False, one_line: bool = False) -> None:
    """Print a result on stdout: as JSON, or a mapping as lines and a list of mappings as a table.

    one_line  of several results, which are JSON Lines together
    """
    print(present.as_json(result, one_line=one_line) if json else present.as_text(result), flush=one_line)


def require_new(path: str | Path, force: bool = False) -> Path:
    """The path of an output file, checked before any long work.

    Raises OptionError when it is a folder, a link, a device or a pipe, exists already (unless `force`), or
    its folder is missing, full, or cannot be written to.
    """
    path = Path(path)
    require_plain(path)
    if path.is_dir():
        raise OptionError(f"{path}: a folder; name a file to write")
    require_new_file(path, force, "use --force")
    if not path.parent.is_dir():
        raise OptionError(f"{path}: the folder {path.parent} does not exist; make it first")
    require_room(path)
    return path


def require_new_each(path: str | Path, count: int, force: bool = False) -> list[Path]:
    """Paths for so many output files, each checked by `require_new`: the path itself for one, and name-1.wav,
    name-2.wav and so on for more.
    """
    return [require_new(each, force) for each in numbered(Path(path), count)]


def free_name(stem: str, suffix: str, count: int = 1) -> Path:
    """A name here that no file has, nor, of several, any that follows from it: stem.wav, or stem-2.wav ..."""
    for number in itertools.count(1):
        path = Path(f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        if not any(os.path.lexists(each) for each in numbered(path, count)):
            return path
    raise AssertionError  # there is always a further number


def numbered(path: Path, count: int) -> list[Path]:
    """The path itself for one file, and name-1.wav, name-2.wav and so on for more."""
    width = len(str(count))
    return (
        [path.with_stem(f"{path.stem}-{index + 1:0{width}}") for index in range(count)]
        if count > 1
        else [path]
    )


def progress(label: str, *, unit: str = "steps", quiet: bool = False) -> AbstractContextManager[OnStep]:
    """A bar on stderr with rate and time left: a context that gives `on_step(done, total)`.

    Nothing is shown when stderr is no terminal, or with --quiet. A total of 0 means it is not known.
    """
    return bar(present.printable(label), unit=unit, shown=not (quiet or state.quiet) and sys.stderr.isatty())


def finished(
    path: str | Path,
    *,
    seconds: float,
    took: float,
    seed: int | None = None,
    replay: str | None = None,
    faults: Sequence[str] = (),
    picture: bool = False,
    json: bool = False,
    one_of: int = 1,
) -> None:
    """The end of a command that made sound: the path on stdout, the figures on stderr; or all as JSON. With
    --play the file is then heard.

    seconds  of audio made
    took     seconds of work
    replay   the command line that makes the file again
    faults   what is wrong with the clip
    one_of   so many results are told as JSON, a line each
    picture  whether to show the spectrogram of the audio file on stderr; not of more than ten minutes
    """
    speed, memory = seconds / max(took, 1e-9), peak_memory()
    if json:
        emit(
            {
                "path": str(path),
                "seconds": seconds,
                "took": took,
                "times_real_time": speed,
                "peak_memory": memory,
                "seed": seed,
                "replay": replay,
                "faults": list(faults),
            },
            json=True,
            one_line=one_of > 1,
        )
    else:
        _tell(path, seconds, took, seed, replay, faults, picture)
    if state.play:
        from audiogen_core import playback
        from audiogen_core.audio import Audio

        playback.play(Audio.load(path), path)


def _tell(
    path: str | Path,
    seconds: float,
    took: float,
    seed: int | None,
    replay: str | None,
    faults: Sequence[str],
    picture: bool,
) -> None:
    """The picture and the figures on stderr, the path on stdout."""
    speed, memory = seconds / max(took, 1e-9), peak_memory()
    if picture and not state.quiet and seconds <= PICTURED:
        from audiogen_core import terminal_picture
        from audiogen_core.audio import Audio

        terminal_picture.show(Audio.load(path), sys.stderr)
    parts = [f"{seconds:.2f} s of audio in {took:.2f} s ({speed:.1f}x real time)"]
    if memory is not None:
        parts.append(f"peak memory {memory / 1e6:.0f} MB")
    if seed is not None:
        parts.append(f"seed {seed}")
    note(", ".join(parts) + (f"; CHECK: {'; '.join(faults)}" if faults else ""))
    if replay:
        note(f"again: {replay}")
    print(path)
