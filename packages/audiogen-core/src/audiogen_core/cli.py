"""What the commands of all audiogen packages share: options, exit codes, progress, results.

A command is `options -> load -> verb -> save`. Results go to stdout, everything else to stderr.

```
cli = app("audiogen-thing", "audiogen-thing", "One line about it.")

@cli.command()
def make(output: OutputOption, seed: SeedOption = None, quiet: QuietOption = False) -> None: ...

def main() -> None:
    run(cli)
```

Exit codes: 0 done; 1 our error, in one line (`--debug` shows the traceback), or the `exit_code` that an
error carries; 2 wrong usage; 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import errno
import inspect
import os
import secrets
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import typer
from typer.core import TyperGroup

from audiogen_core import jobs, present
from audiogen_core.errors import AudiogenError, OptionError
from audiogen_core.options import Described, Field, described
from audiogen_core.progress import OnStep, bar, peak_memory

Kind = TypeVar("Kind", bound=Described)

INTERRUPTED = 130
TERMINATED = 143
PICTURED = 600.0
"""Seconds of audio that a picture is shown of, at most."""


@dataclass
class State:
    """What the options of the running command said about output."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    play: bool = False

    def clear(self) -> None:
        """As before any option."""
        self.quiet = self.verbose = self.debug = self.play = False


state = State()


# Options: from their description to what typer reads


def command(
    app: typer.Typer, name: str, *classes: type[Described]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command whose options are the fields of these dataclasses; the function takes a value of each.

    Arguments come first in the help, then what must be given, then the model, then the rest in order.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shown = [field for cls in classes for field in described(cls) if field.option.role != "hidden"]

        def called(**given: Any) -> None:
            function(*(gathered(cls, given) for cls in classes))

        add(app, name, called, shown, function.__doc__)
        return function

    return decorate


def add(
    app: typer.Typer, name: str, function: Callable[..., None], shown: Sequence[Field], about: str | None
) -> None:
    """Add a command that takes these fields as keywords."""
    ranked = sorted(
        shown, key=lambda each: (not each.option.argument, not each.required, each.name != "model")
    )
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.required else _default(field),
            annotation=Annotated[_typer_type(field), typer_option(field)],
        )
        for field in ranked
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    function.__doc__ = about
    app.command(name)(function)


def gathered(cls: type[Kind], given: Mapping[str, Any]) -> Kind:
    """A dataclass of what a command was given; None leaves a field at its default. Raises OptionError."""
    values: dict[str, Any] = {}
    for field in described(cls):
        value = given.get(field.name)
        if value is None or field.option.role == "hidden":
            continue
        values[field.name] = parsed(field, value)
    return cls.of(values)


def parsed(field: Field, value: Any) -> Any:
    """What a command was given for a field, as Python is given it."""
    if isinstance(value, list):
        values = tuple(field.parse(each) if isinstance(each, str) else each for each in value)
        return values[0] if field.repeated is None and len(values) == 1 else values
    if field.option.role != "value" and field.option.role != "hidden":
        return str(value)
    return field.parse(value) if isinstance(value, str) else value


def typer_option(field: Field) -> Any:
    """What typer is told of a field."""
    told = field.option
    metavar = told.metavar or "|".join(field.texts if _typer_type(field) is str else ()) or _metavar(field)
    more: dict[str, Any] = {"help": told.help, "metavar": metavar or None}
    if told.group:
        more["rich_help_panel"] = told.group
    if told.argument:
        return typer.Argument(show_default=False, **more)
    flag = f"{field.flag}/{told.no}" if told.no else field.flag
    names = [name for name in told.names if name != field.flag]
    if field.name in ("quiet", "verbose", "debug", "play"):
        more["callback"] = _play if field.name == "play" else _remember(field.name)
    if field.kind is bool:
        del more["metavar"]
    return typer.Option(flag, *names, hidden=told.concealed, **more)


_WORDS = {"s": "SECONDS", "Hz": "HZ", "dB": "DB"}


def _metavar(field: Field) -> str:
    """What stands for a value where its description names no word of its own."""
    kind = field.repeated or field.kind
    if get_origin(kind) is tuple:
        return "START:END"
    members = get_args(kind) if get_origin(kind) in (types.UnionType, Union) else (kind,)
    if int in members or float in members:
        return _WORDS.get(field.option.unit, "NUMBER")
    return "TEXT" if kind is str else ""


def _default(field: Field) -> Any:
    """The default that help shows: of plain values; what is left out of others is the dataclass's own."""
    return field.default if isinstance(field.default, bool | int | float | str | Path) else None


def _typer_type(field: Field) -> Any:
    """The type that typer reads a field as; what it cannot read comes as text."""
    kind = field.repeated or field.kind
    several = field.repeated is not None
    if field.option.role in ("audio", "file"):
        kind = Path
    elif field.option.parse is not None or get_origin(kind) is tuple or get_origin(kind) is Literal:
        kind = str
    elif get_origin(kind) in (types.UnionType, Union):
        members = get_args(kind)
        several = several or any(get_origin(member) is tuple for member in members)
        kind = str if int in members or str in members else float
    read = list[kind] if several else kind  # type: ignore[valid-type]
    return read if field.required or _default(field) is not None else read | None


def _remember(name: str) -> Callable[[bool], bool]:
    def callback(value: bool) -> bool:
        if value:
            setattr(state, name, True)
        return value

    return callback


def _play(value: bool) -> bool:
    if value:
        from audiogen_core import playback

        playback.library()  # before any long work
    return _remember("play")(value)


def option(name: str, help: str, *others: str, **more: Any) -> Any:
    """An option `--name` of typer's, for `Annotated`; `others` are further names of it."""
    return typer.Option(f"--{name}", *others, help=help, **more)


def _of_run(name: str) -> Any:
    """The option that every command has under this name, for commands written out as functions."""
    return typer_option(next(field for field in described(jobs.Run) if field.name == name))


ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|PATH", help="Catalogue name, hub id or path.")
]
OutputOption = Annotated[Path, _of_run("output")]
SeedOption = Annotated[
    int | None, typer_option(next(field for field in described(jobs.JobOptions) if field.name == "seed"))
]
JsonOption = Annotated[bool, _of_run("json")]
QuietOption = Annotated[bool, _of_run("quiet")]
VerboseOption = Annotated[bool, _of_run("verbose")]
DryRunOption = Annotated[bool, _of_run("dry_run")]
OfflineOption = Annotated[bool, _of_run("offline")]
ForceOption = Annotated[bool, _of_run("force")]
DebugOption = Annotated[bool, _of_run("debug")]
PlayOption = Annotated[bool, _of_run("play")]


# The program


@dataclass(frozen=True)
class _Program:
    """The name of a command and the distribution it belongs to."""

    name: str
    package: str


def _show_version(ctx: typer.Context, value: bool) -> None:
    if value:
        from audiogen_core.version import version

        print(ctx.obj.name, version(ctx.obj.package))
        raise typer.Exit


_VersionOption = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
]


class _Group(TyperGroup):
    """A group of commands that turns our errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (AudiogenError, OSError, MemoryError, KeyboardInterrupt) as error:
            _leave(error)


def app(name: str, package: str, about: str) -> typer.Typer:
    """An empty command line called `name`, of the distribution `package`; add commands to it."""
    commands = typer.Typer(
        name=name,
        cls=_Group,
        help=about,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "obj": _Program(name, package)},
    )

    @commands.callback()
    def start(version: _VersionOption = False) -> None:
        state.clear()

    return commands


def run(commands: typer.Typer) -> None:
    """Run a command line: the entry point of a program. Leaves with the exit code."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    warnings.showwarning = _show_warning
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)
    try:
        commands()
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
        text = f"warning: {message}\n"
    else:
        return
    sys.stderr.write(text)


def _leave(error: BaseException) -> NoReturn:
    """Say what went wrong and exit."""
    if state.debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    if isinstance(error, BrokenPipeError):
        with suppress(OSError):  # nobody reads any more: let the last flush go nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    print(f"error: {_sentence(error)}", file=sys.stderr, flush=True)
    raise SystemExit(getattr(error, "exit_code", 1)) from None


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
        print(text, file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """A line for the curious on stderr: only with --verbose."""
    if state.verbose:
        print(text, file=sys.stderr, flush=True)


def choose_seed(seed: int | None) -> int:
    """The seed given, or one that is drawn and shown."""
    if seed is not None:
        return seed
    drawn = secrets.randbits(32)
    note(f"seed: {drawn}")
    return drawn


def emit(result: present.Result, *, json: bool = False) -> None:
    """Print a result on stdout: as JSON, or a mapping as lines and a list of mappings as a table."""
    print(present.as_json(result) if json else present.as_text(result))


def require_new(path: str | Path, force: bool = False) -> Path:
    """The path of an output file, checked before any long work.

    Raises OptionError when it is a folder, exists already (unless `force`), or its folder is missing or
    cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise OptionError(f"{path}: a folder; name a file to write")
    if path.exists() and not force:
        raise OptionError(f"{path}: exists already; use --force to write over it, or another name")
    if not path.parent.is_dir():
        raise OptionError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OptionError(f"{path}: the folder {path.parent} cannot be written to; choose another")
    return path


def require_new_each(path: str | Path, count: int, force: bool = False) -> list[Path]:
    """Paths for so many output files, each checked by `require_new`: the path itself for one, and name-1.wav,
    name-2.wav and so on for more.
    """
    path, width = Path(path), len(str(count))
    names = [path.with_stem(f"{path.stem}-{index + 1:0{width}}") for index in range(count)]
    return [require_new(each, force) for each in (names if count > 1 else [path])]


def progress(label: str, *, unit: str = "steps", quiet: bool = False) -> AbstractContextManager[OnStep]:
    """A bar on stderr with rate and time left: a context that gives `on_step(done, total)`.

    Nothing is shown when stderr is no terminal, or with --quiet. A total of 0 means it is not known.
    """
    return bar(label, unit=unit, shown=not (quiet or state.quiet) and sys.stderr.isatty())


def finished(
    path: str | Path,
    *,
    seconds: float,
    took: float,
    seed: int | None = None,
    replay: str | None = None,
    picture: bool = False,
    json: bool = False,
) -> None:
    """The end of a command that made sound: the path on stdout, the figures on stderr; or all as JSON. With
    --play the file is then heard.

    seconds  of audio made
    took     seconds of work
    replay   the command line that makes the file again
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
            },
            json=True,
        )
    else:
        _tell(path, seconds, took, seed, replay, picture)
    if state.play:
        from audiogen_core import playback

        playback.play(path)


def _tell(
    path: str | Path, seconds: float, took: float, seed: int | None, replay: str | None, picture: bool
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
    note(", ".join(parts))
    if replay:
        note(f"again: {replay}")
    print(path)
