"""The commands of all jobs: the job itself, and `replay`, which makes its files again."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiogen_core import cli, jobs
from audiogen_core.errors import AudioError, OptionError
from audiogen_core.jobs import Fetch, Job, JobLoad, JobOptions, Play, Run, Written
from audiogen_core.options import Field, Option, argument, described, option

if TYPE_CHECKING:
    from audiogen_core.models import ModelSpec


def add_job(app: typer.Typer, job: Job) -> None:
    """Add the command that a job is: its options, those of opening the model, and those of all commands."""

    def made(options: JobOptions, load: JobLoad, asked: Run) -> None:
        carry_out(job, options, load, asked)

    made.__doc__ = job.summary
    cli.command(app, job.name, job.options, job.load, Run)(made)


def carry_out(job: Job, options: JobOptions, load: JobLoad, asked: Run) -> None:
    """One run of a job's command: what can be wrong is checked first, then the model opened, files written.

    Raises whatever the job does.
    """
    outputs = cli.require_new_each(asked.output, asked.variations, asked.force)
    check_sounds(outputs)
    check_inputs(job, options)
    load = replace(load, fetch=fetching(asked.offline, asked.quiet or asked.json))
    if asked.dry_run:
        cli.emit(jobs.imported(job.estimate)(load, options, offline=asked.offline), json=asked.json)
        return
    options = replace(options, seed=cli.choose_seed(options.seed))
    model = opened(job, load)
    write(job, model, load, options, outputs, channel=asked.channel, json=asked.json, quiet=asked.quiet)


def check_sounds(outputs: Sequence[Path]) -> None:
    """Raises AudioError when a file is to be written whose suffix names no format for sound."""
    from audiogen_core.sound_writer import check_suffix

    for path in outputs:
        check_suffix(path)


def check_inputs(job: Job, options: JobOptions) -> None:
    """Raises AudioError when a clip is missing or no sound, before anything is fetched for it."""
    from audiogen_core.audio import probe

    for field in job.inputs:
        path = getattr(options, field.name)
        if isinstance(path, str | Path) and field.option.role == "audio":
            probe(path)


def opened(job: Job, load: JobLoad) -> Any:
    """The model of a job, after what is worth knowing before long work."""
    if job.advice and (sentence := jobs.imported(job.advice)()):
        cli.note(f"hint: {sentence}")
    return job.open_with(load)


def fetching(offline: bool, quiet: bool) -> Fetch:
    """How models are fetched by a command: with a notice before, and a bar."""
    from audiogen_core import hub

    def fetch(spec: ModelSpec) -> Path:
        with cli.progress(f"fetching {spec.name}", unit="bytes", quiet=quiet) as on_step:
            return hub.fetch(spec, offline=offline or None, on_step=on_step, notify=cli.note)

    return fetch


def write(
    job: Job,
    model: Any,
    load: JobLoad,
    options: JobOptions,
    outputs: Sequence[Path],
    *,
    channel: str | None = None,
    json: bool,
    quiet: bool,
) -> None:
    """Make one clip for each file, with its recipe; each file appears when it is whole."""
    from audiogen_core.audio import AudioWriter

    report: list[Any] = [None]  # the bar of the clip that is being made
    options = replace(options, on_step=lambda done, total: report[0](done, total))
    given = jobs.heard(job, options, channel)
    takes = model.takes(given, len(outputs), folder=outputs[0].parent)
    done: list[tuple[Path, jobs.Take, float, float]] = []
    for path in outputs:
        began = time.monotonic()
        with cli.progress(job.label, unit=job.unit, quiet=quiet or json) as report[0]:
            take = next(takes)
            recipe = jobs.recipe_of(job, model, load, options, take, channel)
            with AudioWriter(path, take.sample_rate, take.channels, recipe=recipe) as writer:
                for piece in take.pieces:
                    writer.write(piece.samples)
        seconds, took = writer.samples / take.sample_rate, time.monotonic() - began
        done.append((path, take, seconds, took))
        if not job.together:
            _finished(job, path, take, seconds, took, json=json)
    for path, take, seconds, _ in done if job.together else []:
        if take.confidence is not None and len(done) > 1:
            cli.detail(f"{path}: mean log probability {take.confidence:.3f}")
        mean = sum(took for *_, took in done) / len(done)
        _finished(job, path, take, seconds, mean, json=json)


def _finished(job: Job, path: Path, take: jobs.Take, seconds: float, took: float, *, json: bool) -> None:
    again = f"{job.package} replay {shlex.quote(str(path))} -o AGAIN{path.suffix}"
    cli.finished(path, seconds=seconds, took=took, seed=take.seed, replay=again, picture=True, json=json)


@dataclass(frozen=True, kw_only=True)
class Replay(Written):
    """What `replay` takes, beside the places of what may have moved and the options of this machine."""

    file: Annotated[Path, argument("A file that this package made.", metavar="FILE")]
    use: Annotated[
        tuple[str, ...],
        option("Where the model or an input is now: model=..., melody=..., ...", metavar="ROLE=PATH"),
    ] = ()
    play: Play = False


def add_replay(app: typer.Typer, *known: Job) -> None:
    """Add `replay`, for the files that these jobs made.

    Where the model or an input is now is said by `--use ROLE=PATH`, or by an option that is called as the
    role. Options of opening a model that recipes leave out, since they belong to the machine, can be given.
    """
    roles = _by_name(field for job in known for field in job.roles)
    local = _by_name(field for job in known for field in described(job.load) if field.option.local)

    def replay(**given: Any) -> None:
        from audiogen_core.recipe import Recipe

        asked = cli.gathered(Replay, given)
        cli.require_new(asked.output, asked.force)
        check_sounds([asked.output])
        recipe = Recipe.read(asked.file)
        try:
            job = jobs.job_of(recipe, {each.name: each for each in known})
        except AudioError as error:
            raise AudioError(f"{asked.file}: {error}") from error
        moved = {name: str(given[name]) for name in roles if given.get(name) is not None} | _places(asked.use)
        load = {name: cli.parsed(local[name], given[name]) for name in local if given.get(name) is not None}
        load["fetch"] = fetching(asked.offline, asked.quiet or asked.json)
        opening, options = jobs.again(job, recipe, moved, **load)
        model = opened(job, opening)
        jobs.check_revision(recipe, str(vars(opening)["model"]), model.revision)
        write(
            job,
            model,
            opening,
            options,
            [asked.output],
            channel=recipe.settings.get("channel"),
            json=asked.json,
            quiet=asked.quiet,
        )

    shown = [field for field in described(Replay) if field.name != "verbose"]
    places = [
        replace(field, kind=str, optional=True, default=None, option=_concealed(field))
        for field in roles.values()
    ]
    about = "Make a file again, from the recipe it carries."
    cli.add(app, "replay", replay, [*shown, *local.values(), *places], about)


def _by_name(fields: Iterable[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def _concealed(field: Field) -> Option:
    """The option of a role in `replay`: `--melody`, say, with the names it has where the file is made."""
    short = ("-m",) if field.name == "model" else ()
    long = tuple(name for name in field.option.names if name.startswith("--"))
    return option("Where it is now.", *long, *short, metavar="PATH", concealed=True)


def _places(use: Sequence[str]) -> dict[str, str]:
    """Roles and places out of "ROLE=PATH". Raises OptionError."""
    moved: dict[str, str] = {}
    for text in use:
        role, equals, path = text.partition("=")
        if not (role and equals and path):
            raise OptionError(f"expected ROLE=PATH, got {text!r}")
        moved[role] = path
    return moved
