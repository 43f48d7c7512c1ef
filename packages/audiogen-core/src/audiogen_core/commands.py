"""Commands made of descriptions: of any dataclass of options, of a job, and `replay` of all jobs.

```
program = cli.Program("audiogen-thing", "audiogen-thing", "One line about it.")

@commands.command(program, "make", Options, Shown)
def make(options: Options, shown: Shown) -> None: ...  # its docstring is what help says

commands.add_job(program, THING)
commands.add_replay(program, THING)
```
"""

from __future__ import annotations

import inspect
import re
import shlex
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from audiogen_core import cli, jobs
from audiogen_core.errors import AudioError, DownloadError, MissingDependency, OptionError
from audiogen_core.jobs import Job, JobLoad, JobOptions, Run, Shown, Sounding
from audiogen_core.options import Described, Field, Option, argument, described, option, plain

if TYPE_CHECKING:
    from audiogen_core.finish import Saved
    from audiogen_core.models import Fetch, ModelSpec
    from audiogen_core.recipe import Recipe

Kind = TypeVar("Kind", bound=Described)

_LONGEST_NAME = 48  # characters of a prompt in the name of a file


def command(
    app: click.Group, name: str, *classes: type[Described]
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
    app: click.Group, name: str, function: Callable[..., None], shown: Sequence[Field], about: str | None
) -> None:
    """Add a command that takes these fields as keywords."""
    ranked = sorted(shown, key=lambda each: (not each.place, not each.required, each.name != "model"))
    app.add_command(Command(name, ranked, function, inspect.cleandoc(about or "")))


_BY_PLACE = " by place"  # added to the name of a field: that of its argument, beside its option


class Command(click.Command):
    """A command made of described `fields`, whose help shows them by group."""

    def __init__(self, name: str, shown: Sequence[Field], function: Callable[..., None], about: str) -> None:
        params = [parameter for each in shown for parameter in _parameters(each)]
        super().__init__(name, params=params, callback=function, help=about)
        self.fields = {field.name: field for field in shown}
        self.old = {
            old: new or field.flag
            for field in shown
            for old, _, new in (each.partition("=") for each in field.option.old if each.startswith("-"))
        }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As ever, with old names of options in the place of which the new ones are read."""
        try:
            return super().parse_args(ctx, [self._renewed(each) for each in args])
        except click.UsageError as error:
            if type(error) is not click.UsageError or "prompt" not in self.fields:
                raise
            told = f"{error.message}: a prompt of several words stands in quotes"
            raise click.UsageError(told, ctx) from error  # more arguments than it takes

    def _renewed(self, text: str) -> str:
        name, equals, value = text.partition("=")
        if name not in self.old:
            return text
        cli.state.hints[name] = f"hint: {name} is called {self.old[name]} now"
        return f"{self.old[name]}{equals}{value}"

    def invoke(self, ctx: click.Context) -> Any:
        """As ever; errors lead with the options they are about, as the command calls them."""
        self._place(ctx)
        try:
            return super().invoke(ctx)
        except OptionError as error:
            error.args = (self._named(str(error), error.names),)
            raise

    def _named(self, sentence: str, names: Sequence[str]) -> str:
        """A sentence about options as the command calls them, led by those that it does not name."""
        flags = {name: self._called(name) for name in names if name in self.fields}
        first = next(iter(flags.values()), "")
        if first.startswith("--") and sentence.startswith(f"{first[2:]} "):
            sentence = f"--{sentence}"
        # a word with an underscore is a name of Python wherever it stands
        python = flags | {name: self._called(name) for name in self.fields if "_" in name}
        python = {name: flag for name, flag in python.items() if flag.startswith("--")}
        words = "|".join(map(re.escape, python)) or "$^"
        sentence = re.sub(
            rf"(?<![\w./'\"-])({words})(?![\w'\"-]|\.\w)", lambda word: python[word[0]], sentence
        )
        about = ", ".join(flag for flag in flags.values() if flag.lower() not in sentence.lower())
        return f"{about}: {sentence}" if about else sentence

    def _called(self, name: str) -> str:
        field = self.fields[name]
        return field.place if field.option.argument else field.flag

    def _place(self, ctx: click.Context) -> None:
        """What was given by its place goes where options go that can be given by name.

        Where such a one is given by its name, the values that stand by their place are those of the next.
        """
        given = ctx.params
        for name, field in self.fields.items():
            if not (field.place and (name + _BY_PLACE) in given):
                continue
            placed = given.pop(name + _BY_PLACE)
            if placed is None or placed == ():
                if given[name] is None and field.required:
                    names = " / ".join(map(repr, dict.fromkeys((field.flag, *field.option.names))))
                    raise click.UsageError(f"Missing option {names}: {field.option.help}", ctx)
            elif given[name] is None or given[name] == ():
                given[name] = placed
                if not field.option.argument:
                    cli.state.hints[name] = f"hint: {field.place} is given by {field.flag} now"
            else:
                self._shift(given, field, placed)

    def _shift(self, given: dict[str, Any], behind: Field, placed: Any) -> None:
        """Hand a value that stands by its place on to the next argument."""
        names = [name for name, field in self.fields.items() if field.place]
        for name in names[names.index(behind.name) + 1 :]:
            given[name], placed = placed, given.get(name)
        if placed is not None:
            raise click.UsageError(f"Got unexpected extra argument ({placed})")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            field = self.fields.get(str(parameter.name).removesuffix(_BY_PLACE))  # none of --help
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Argument):
                if field and field.option.argument:
                    shown = (parameter.make_metavar(ctx), field.option.help)
                    groups.setdefault("Arguments", []).append(shown)
            elif record:  # else it is not shown
                groups.setdefault((field and field.option.group) or "Options", []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """As ever, without arguments that are options now."""
        hidden = {field.place for field in self.fields.values() if field.place and not field.option.argument}
        return [piece for piece in super().collect_usage_pieces(ctx) if piece.strip("[].") not in hidden]


def gathered(cls: type[Kind], given: Mapping[str, Any]) -> Kind:
    """A dataclass of what a command was given; None leaves a field at its default. Raises OptionError."""
    values: dict[str, Any] = {}
    for field in described(cls):
        value = given.get(field.name)
        if value is None or value == () or field.option.role == "hidden":
            continue
        values[field.name] = parsed(field, value)
    return cls.of(values)


def parsed(field: Field, value: Any) -> Any:
    """What a command was given for a field, as Python is given it."""
    if isinstance(value, tuple):
        values = tuple(field.parse(each) if isinstance(each, str) else each for each in value)
        return values[0] if field.repeated is None and len(values) == 1 else values
    if field.option.role != "value" and field.option.role != "hidden":
        return str(value)
    return field.parse(value) if isinstance(value, str) else value


def _parameters(field: Field) -> list[click.Parameter]:
    """What click is told of a field: an argument, an option, or both."""
    named = not field.option.argument or bool(field.option.names)
    if not field.place:
        return [_option(field)]
    if not named:
        return [_argument(field, field.name, field.required)]
    return [_argument(field, field.name + _BY_PLACE, False), _option(field)]


def _facts(field: Field) -> tuple[dict[str, Any], bool]:
    """What is said of a field whichever way it is given, and whether it takes several values."""
    kind, several = _click_type(field)
    texts = field.words if kind is click.STRING else ()
    facts: dict[str, Any] = {
        "type": kind,
        "metavar": field.option.metavar or "|".join(texts) or _metavar(field) or None,
    }
    if texts:
        facts["shell_complete"] = lambda context, parameter, begun: [
            each for each in texts if each.startswith(begun)
        ]
    return facts, several


def _argument(field: Field, name: str, required: bool) -> click.Argument:
    facts, several = _facts(field)
    facts["metavar"] = field.place
    if name == field.name and not required:
        facts["default"] = _default(field)
    return click.Argument([name], nargs=-1 if several else 1, required=required, **facts)


def _option(field: Field) -> click.Option:
    told = field.option
    facts, several = _facts(field)
    facts["required"] = field.required and not field.place
    if not field.required:
        facts["default"] = None if field.place else _default(field)
    flag = f"{field.flag}/{told.no}" if told.no else field.flag
    names = [name for name in told.names if name != field.flag]
    if field.name in ("quiet", "verbose", "debug", "play"):
        facts["callback"] = _play if field.name == "play" else _remember(field.name)
    if field.kind is bool:
        facts |= {"is_flag": True, "metavar": None}
    words = "|".join(field.words) if facts["type"] is click.STRING and told.metavar else ""
    within = told.range_shown or words  # else they stand for the value
    facts |= {"help": f"{told.help}  [{within}]" if within else told.help, "hidden": told.concealed}
    return click.Option([field.name, flag, *names], multiple=several, show_default=True, **facts)


_WORDS = {"s": "SECONDS", "min": "MINUTES", "Hz": "HZ", "dB": "DB", "LUFS": "LUFS"}


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


class _Whole(click.types.IntParamType):
    name = "whole number"  # what mistakes are told with


class _Number(click.types.FloatParamType):
    name = "number"


class _Time(click.types.FloatParamType):
    """A number in the unit of its field, or a time with a unit of its own."""

    name = "time"

    def __init__(self, field: Field) -> None:
        self._field = field

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self._field.time(value) if isinstance(value, str) else float(value)
        except OptionError as error:
            self.fail(str(error), param, ctx)


_INT, _FLOAT = _Whole(), _Number()
_PATH = click.Path(path_type=Path)


def _click_type(field: Field) -> tuple[Any, bool]:
    """The type that click reads a field as, and whether it takes several; what it cannot read is text."""
    kind = field.repeated or field.kind
    several = field.repeated is not None
    if field.option.role in ("audio", "file") or kind is Path:
        return _PATH, several
    if field.option.parse is not None or get_origin(kind) is tuple or get_origin(kind) is Literal:
        return click.STRING, several
    number = _Time(field) if field.is_time else _FLOAT
    if get_origin(kind) in (types.UnionType, Union):
        members = get_args(kind)
        several = several or any(get_origin(member) is tuple for member in members)
        return click.STRING if int in members or str in members else number, several
    return {int: _INT, float: number, bool: click.BOOL}.get(kind, click.STRING), several


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
        if value:
            setattr(cli.state, name, True)
        return value

    return callback


def _play(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        from audiogen_core import playback

        playback.library()  # before any long work
    return _remember("play")(context, parameter, value)


def add_job(app: click.Group, job: Job) -> None:
    """Add the command that a job is: its options, those of opening the model, and those of all commands."""

    def made(options: JobOptions, load: JobLoad, asked: Run) -> None:
        carry_out(job, options, load, asked)

    made.__doc__ = job.summary
    command(app, job.name, job.options, job.load, Run)(made)


def carry_out(job: Job, options: JobOptions, load: JobLoad, asked: Run) -> None:
    """One run of a job's command: what can be wrong is checked first, then the model opened, files written.

    Raises whatever the job does.
    """
    ready = prepared(job, options, load, asked)
    if asked.dry_run:
        facts = jobs.imported(job.estimate)(ready.load, options, offline=asked.offline)
        told = [] if asked.json else facts.pop("not_followed", [])
        cli.emit(facts, json=asked.json)
        for sentence in told:  # as the run itself does
            warnings.warn(sentence, UserWarning, stacklevel=2)
        return
    make(job, opened(job, ready.load), ready, asked)


@dataclass(frozen=True)
class Ready:
    """A run whose options and files have been checked, with what is usual in the place of what was left out.

    drawn  whether nobody gave the seed: it is shown when work begins
    """

    options: JobOptions
    load: JobLoad
    outputs: list[Path]
    drawn: bool


def prepared(job: Job, options: JobOptions, load: JobLoad, asked: Run) -> Ready:
    """What can be known of a run before anything is fetched or opened for it.

    Raises OptionError when a file is there already, and what `Job.check` raises.
    """
    drawn = options.seed is None
    options = replace(options.standard(), seed=cli.draw_seed() if drawn else options.seed)
    output = asked.output
    if output is None:
        output = cli.free_name(f"{named_after(job, options, load)}-{options.seed}", ".wav", asked.variations)
    outputs = cli.numbered(output, asked.variations)
    job.check(load, options, outputs, asked.channel)
    cli.require_new_each(output, asked.variations, asked.force)
    load = replace(load, fetch=fetching(asked.offline, asked.quiet or asked.json, load.unlisted))
    return Ready(options, load, outputs, drawn)


def named_after(job: Job, options: JobOptions, load: JobLoad) -> str:
    """What a file is called that was made so: after the prompt, the clip that went in, or the model."""
    words = re.findall(r"\w+", str(getattr(options, "prompt", None) or "").lower())
    while len("-".join(words)) > _LONGEST_NAME and len(words) > 1:
        words.pop()
    if words:
        return "-".join(words)[:_LONGEST_NAME]
    clips = [getattr(options, each.name) for each in job.inputs]
    files = [Path(clip) for clip in clips if isinstance(clip, str | Path)]
    whose = files[0] if files else Path(str(vars(load)["model"]))
    return "-".join([*re.findall(r"\w+", whose.stem)[:8], job.name])


def make(job: Job, model: Any, ready: Ready, asked: Run) -> None:
    """Make and write the clips of a run."""
    write(
        job,
        model,
        ready.load,
        ready.options,
        ready.outputs,
        drawn=ready.drawn,
        channel=asked.channel,
        retry=asked.retry,
        json=asked.json,
        quiet=asked.quiet,
    )


def opened(job: Job, load: JobLoad) -> Any:
    """The model of a job, after what is worth knowing before long work."""
    if job.advice and (sentence := jobs.imported(job.advice)()):
        cli.note(f"hint: {sentence}")
    with hinting(job, vars(load)["model"]):
        return job.open_with(load)


@contextmanager
def hinting(job: Job, asked: object) -> Iterator[None]:
    """Where a model that was asked for cannot be had, name one that is here."""
    try:
        yield
    except (DownloadError, MissingDependency):
        here = [each.name for each in job.models() if each.here and each.name != asked]
        if here:
            cli.note(f"hint: {asked} has to be fetched or exported first; -m {here[0]} is here already")
        raise


def fetching(offline: bool, quiet: bool, unlisted: bool = False) -> Fetch:
    """How models are fetched by a command: with a notice before, and a bar."""
    from audiogen_core import hub

    policy = hub.Policy(offline=offline, listed=not unlisted, notify=cli.note)

    def fetch(spec: ModelSpec) -> Path:
        with cli.progress(f"fetching {spec.name}", unit="bytes", quiet=quiet) as on_step:
            return hub.fetch(spec, policy, on_step=on_step)

    return fetch


@dataclass(frozen=True)
class _Written:
    """One file that was made."""

    path: Path
    take: jobs.Take
    saved: Saved
    took: float


def write(
    job: Job,
    model: Any,
    load: JobLoad,
    options: JobOptions,
    outputs: Sequence[Path],
    *,
    channel: str | None = None,
    retry: int = 0,
    drawn: bool = False,
    json: bool,
    quiet: bool,
) -> None:
    """Make one clip for each file, with its recipe; each file appears when it is whole.

    retry  how often a clip with a fault is made again with another seed: the next that no clip has had
    drawn  whether nobody gave the seed: it is shown as soon as the model finds nothing wrong
    """
    from audiogen_core.finish import save

    report: list[Any] = [None]  # the bar of the clip that is being made
    unseen = [options.seed] if drawn and options.seed is not None else []

    def on_step(done: float, total: float) -> None:
        while unseen:
            cli.show_seed(unseen.pop())
        report[0](done, total)

    options = replace(options, on_step=on_step)
    given = jobs.heard(job, options, channel)
    folder, seeds = outputs[0].parent, count((options.seed or 0) + len(outputs))
    takes = model.takes(given, len(outputs), folder=folder)
    done: list[_Written] = []
    for path in outputs:
        of_path = takes
        for left in range(retry, -1, -1):
            began = time.monotonic()
            with cli.progress(job.label, unit=job.unit, quiet=quiet or json) as report[0]:
                take = next(of_path)
                while unseen:
                    cli.show_seed(unseen.pop())
                recipe = jobs.recipe_of(job, model, load, options, take, channel)
                saved = save(take, given, path, recipe, stays=left == 0)
            if saved.resampled:
                cli.note(f"{path}: {saved.resampled}")
            if not saved.faults or left == 0:
                break
            another = next(seeds)
            cli.note(f"{path}: {'; '.join(saved.faults)}; made again with seed {another}")
            of_path = model.takes(replace(given, seed=another), 1, folder=folder)
        done.append(_Written(path, take, saved, time.monotonic() - began))
        if not job.together:
            _finished(job, done[-1], done[-1].took, len(outputs), json=json)
    for made in done if job.together else []:
        if made.take.confidence is not None and len(done) > 1:
            cli.detail(f"{made.path}: mean log probability {made.take.confidence:.3f}")
        _finished(job, made, sum(each.took for each in done) / len(done), len(outputs), json=json)


def _finished(job: Job, made: _Written, took: float, one_of: int, *, json: bool) -> None:
    cli.finished(
        made.path,
        seconds=made.saved.seconds,
        took=took,
        seed=made.take.seed,
        replay=f"{job.package} replay {shlex.quote(str(made.path))} -o AGAIN{made.path.suffix}",
        faults=made.saved.faults,
        picture=True,
        json=json,
        one_of=one_of,
    )


@dataclass(frozen=True, kw_only=True)
class Replay(Sounding):
    """What `replay` takes, beside the places of what may have moved and the options of this machine."""

    file: Annotated[Path, argument("A file that this package made.", metavar="FILE")]
    use: Annotated[
        tuple[str, ...],
        option("Where the model or an input is now: model=..., melody=..., ...", metavar="ROLE=PATH"),
    ] = ()

    @property
    def moved(self) -> dict[str, str]:
        """Where roles are now. Raises OptionError."""
        moved: dict[str, str] = {}
        for text in self.use:
            role, equals, path = text.partition("=")
            if not (role and equals and path):
                raise OptionError(f"expected ROLE=PATH, got {text!r}", "use")
            moved[role] = path
        return moved


def to_replay(asked: Replay) -> tuple[Recipe, Path]:
    """The recipe of a file that is made again, and where to; nothing is opened for it.

    Raises OptionError when it cannot be written there, AudioError when the file carries no recipe.
    """
    from audiogen_core.recipe import Recipe
    from audiogen_core.sound_writer import check_suffix

    if asked.output is not None:
        check_suffix(cli.require_new(asked.output, asked.force))
    recipe = Recipe.read(asked.file)
    return recipe, asked.output or cli.free_name(f"{asked.file.stem}-again", asked.file.suffix)


def replayed(
    asked: Replay,
    recipe: Recipe,
    output: Path,
    known: Iterable[Job],
    moved: Mapping[str, str],
    load: dict[str, Any],
) -> None:
    """Make a file again with the job that made it.

    known  the jobs it may be of
    load   options of opening the model, of this machine
    """
    try:
        job = jobs.job_of(recipe, {f"{each.package} {each.name}": each for each in known})
    except AudioError as error:
        raise AudioError(f"{asked.file}: {error}") from error
    load["fetch"] = fetching(asked.offline, asked.quiet or asked.json, load.get("unlisted", False))
    opening, options = jobs.again(job, recipe, moved, **load)
    job.check(opening, options, [output], recipe.settings.get("channel"))
    model = opened(job, opening)
    jobs.check_revision(recipe.revision, str(vars(opening)["model"]), model.revision)
    write(
        job,
        model,
        opening,
        options,
        [output],
        channel=recipe.settings.get("channel"),
        json=asked.json,
        quiet=asked.quiet,
    )


def add_replay(app: click.Group, *known: Job) -> None:
    """Add `replay`, for the files that these jobs made.

    Where the model or an input is now is said by `--use ROLE=PATH`, or by an option that is called as the
    role. Options of opening a model that recipes leave out, since they belong to the machine, can be given.
    """
    roles = _by_name(field for job in known for field in job.roles)
    own = (field for job in known for field in described(job.load) if field.option.local)
    local = _by_name(field for field in own if field.option.role != "hidden")

    def replay(**given: Any) -> None:
        asked = gathered(Replay, given)
        recipe, output = to_replay(asked)
        said = {name: given[name] for name in roles if given.get(name) not in (None, ())}
        moved = {
            name: plain(value) if isinstance(value, tuple) else str(value) for name, value in said.items()
        }
        load = {name: parsed(local[name], given[name]) for name in local if given.get(name) is not None}
        replayed(asked, recipe, output, known, moved | asked.moved, load)

    shown = [field for field in described(Replay) if field.name != "verbose"]
    places = [
        replace(
            field,
            kind=tuple[str, ...] if field.option.role == "adapter" else str,
            optional=True,
            default=None,
            option=_concealed(field),
        )
        for field in roles.values()
    ]
    about = "Make a file again, from the recipe it carries."
    add(app, "replay", replay, [*shown, *local.values(), *places], about)


def _by_name(fields: Iterable[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def _concealed(field: Field) -> Option:
    """The option of a role in `replay`: `--melody`, say, with the names it has where the file is made."""
    short = ("-m",) if field.name == "model" else ()
    old = [each for each in field.option.old if each.startswith("-")]
    return option("Where it is now.", field.flag, *old, *short, metavar="PATH", concealed=True)


@dataclass(frozen=True, kw_only=True)
class Named(Shown):
    """What `info` takes."""

    path: Annotated[str, argument("A file, a folder, or the name of a model.", metavar="FILE|NAME")]


def add_info(app: click.Group, *known: Job) -> None:
    """Add `info`, which says what a file, a folder or a model of these jobs is."""

    def info(asked: Named) -> None:
        """Say what a file, a folder or a model of the catalogue is."""
        from audiogen_core.describe import describe

        rows = [
            {"kind": "model", "job": job.name, **vars(entry)}
            for job in known
            for entry in job.models()
            if entry.name == asked.path and not Path(asked.path).exists()
        ]
        if len(rows) > 1:
            cli.emit(rows, json=asked.json)
        else:
            cli.emit(rows[0] if rows else describe(asked.path), json=asked.json)

    command(app, "info", Named)(info)


def add_models(app: click.Group, *known: Job) -> None:
    """Add `models`, which lists what these jobs can open by name."""

    def models(shown: Shown) -> None:
        """The models there are by name, and their licences."""
        cli.emit(model_rows(known), json=shown.json)

    command(app, "models", Shown)(models)


def model_rows(known: Iterable[Job]) -> list[dict[str, Any]]:
    """What these jobs can open by name."""
    return [
        {
            "name": entry.name,
            "job": job.name,
            "here": entry.here,
            "bytes": entry.size,
            "licence": entry.license,
            "repository": entry.repository,
            "note": entry.note,
        }
        for job in known
        for entry in job.models()
    ]
