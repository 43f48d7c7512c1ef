"""Jobs: what the installed models can be asked to do, described once.

A `Job` names the options of a model and how it is opened. The command, Python, the JSON schema, recipes and
`replay` are all read from it. Each package describes its jobs in a module of its own and names them under the
entry-point group `audiogen.jobs`; core finds them there and imports no backend by name.

```
job = jobs.find("musicgen")
model = job.open(model="demo")
for take in model.takes(job.options.of({"prompt": "slow piano", "seed": 1}), 1):
    ...
```
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self

from audiogen_core.devices import HELP
from audiogen_core.devices import check as check_device
from audiogen_core.errors import AudioError, AudiogenError, DownloadError, ModelError, OptionError
from audiogen_core.options import Described, Field, adapters, described, hidden, option, schema
from audiogen_core.output import Output, continued
from audiogen_core.output import Sound as Sound
from audiogen_core.output import Take as Take
from audiogen_core.sampling import Sampling
from audiogen_core.threads import MOST as MOST_THREADS
from audiogen_core.values import closed

if TYPE_CHECKING:
    from audiogen_core.audio import Audio
    from audiogen_core.models import ModelSpec, Shipped
    from audiogen_core.recipe import Recipe

MOST = 9999
"""Clips that are made at once."""

GROUP = "audiogen.jobs"
"""The entry points under which packages name their jobs."""

TRAININGS = "audiogen.trainings"
"""The entry points under which packages name how they make models."""

FAMILY = {
    "audiogen-mlx": "pip install audiogen-mlx",
    "audiogen-onnx": "pip install audiogen-onnx",
    "audiogen-minigpt": "pip install audiogen-minigpt",
}
"""The packages of the family that have jobs, in the order they are listed, and what installs them."""

_UNNAMED = {"audiogen-onnx": "vamp", "audiogen-minigpt": "generate"}
"""Packages whose recipes of 0.1.0 do not name the job: each had one alone."""


@dataclass(frozen=True, kw_only=True)
class JobOptions(Output):
    """What every job that makes sound can be asked, beside its own options."""

    seed: Annotated[
        int | None, option("Seed of the random numbers; drawn and shown when absent.", ge=0, lt=2**63)
    ] = None
    sampling: Annotated[
        Sampling | None,
        hidden("How tokens are drawn, as one value; options said beside it win over it.", local=True),
    ] = None
    on_step: Annotated[
        Any, hidden("Called with (done, total) as the work goes on; what it raises ends it.", local=True)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling is None:
            return
        if self.seed is None:
            object.__setattr__(self, "seed", self.sampling.seed)
        known, usual = {each.name for each in described(type(self))}, Sampling()
        for each in fields(Sampling):
            if each.name not in known and getattr(self.sampling, each.name) != getattr(usual, each.name):
                raise OptionError(f"this model does not draw by {each.name}: leave it out of sampling")

    @classmethod
    def of_recipe(cls, settings: Mapping[str, Any]) -> Self:
        """The options that a recipe stored. Raises OptionError."""
        return cls.of(settings)


@dataclass(frozen=True, kw_only=True)
class Continuing(JobOptions):
    """What a job can be asked that goes on with a clip, which is its option `--continue`."""

    only_new: Annotated[
        bool, option("Leave the clip that is continued out of the result.", label="Only what is new")
    ] = False
    keep_original: Annotated[
        bool | None,
        option(
            "The clip that is continued comes first as it is, at its rate, with its channels, unless this is "
            "turned off; then it is what the model makes of it.",
            no="--no-keep-original",
            advanced=True,
        ),
    ] = None

    def standard(self) -> Self:
        standard = super().standard()
        kept = standard.keep_original is None and continued(self) is not None
        return replace(standard, keep_original=True) if kept else standard


@dataclass(frozen=True, kw_only=True)
class JobLoad(Described):
    """What opening the model of a job takes, beside its own options.

    Each job adds `model`; and `revision`, hidden, where a place holds several models and recipes name one.
    """

    unlisted: Annotated[bool, option("Allow hub ids outside the catalogue.", local=True, advanced=True)] = (
        False
    )
    threads: Annotated[
        int | None,
        option(
            "Threads that compute; all cores when absent, and with replay as many as there were.",
            ge=1,
            le=MOST_THREADS,
            local=True,
            advanced=True,
        ),
    ] = None
    device: Annotated[str, option(HELP, local=True)] = "auto"
    fetch: Annotated[
        Any,
        hidden(
            "How models are fetched: a function of a ModelSpec that gives a folder; see hub.asking.",
            local=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)


Channel = Annotated[
    str | None,
    option(
        "What is taken out of stereo that goes in; all is mixed when absent.",
        choices=("left", "right", "mid", "side"),
        advanced=True,
    ),
]
Loras = Annotated[
    tuple[str, ...] | None,
    adapters(
        "A LoRA to merge into the model, and how strongly; may be repeated, and then one after another.",
        label="LoRA",
    ),
]
Play = Annotated[bool, option("Play what was made; needs audiogen-core[play].")]


@dataclass(frozen=True, kw_only=True)
class Shown(Described):
    """What every command has: how its result and its progress are shown."""

    json: Annotated[bool, option("Print the result as JSON.")] = False
    quiet: Annotated[bool, option("No progress, no hints.", "-q")] = False
    verbose: Annotated[bool, option("Say more about each step.", "-v")] = False
    debug: Annotated[bool, option("Show the traceback of an error.")] = False


@dataclass(frozen=True, kw_only=True)
class Writing(Shown):
    """What every command has that writes something."""

    offline: Annotated[bool, option("Never use the network.")] = False
    force: Annotated[bool, option("Write over what is there.", "-f")] = False


@dataclass(frozen=True, kw_only=True)
class Written(Writing):
    """What every command has that writes where it is told to."""

    output: Annotated[Path, option("Where the result goes.", "-o", metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Sounding(Writing):
    """What every command has that writes a sound."""

    output: Annotated[
        Path | None,
        option(
            "Where it goes; the suffix chooses the format. A name that is free when absent.",
            "-o",
            metavar="PATH",
        ),
    ] = None
    play: Play = False


@dataclass(frozen=True, kw_only=True)
class Run(Sounding):
    """What every command has that makes sound with a model."""

    variations: Annotated[int, option("How many clips, with seeds that count up.", "-n", ge=1, le=MOST)] = 1
    channel: Channel = None
    retry: Annotated[
        int,
        option(
            "How often to try another seed for a clip that is silent for long, clipped, one tone or noise.",
            ge=0,
            le=100,
        ),
    ] = 0
    dry_run: Annotated[
        bool,
        option(
            "Show what would be done, and stop. Nothing is fetched; the hub is asked for the size of what "
            "would be, unless --offline is given."
        ),
    ] = False


class Model(ABC):
    """What a job opens. The models of all packages derive from it.

    name      as it was loaded
    opening   how it was loaded; None where its parts were put together by hand, and then its clips carry no
              recipe
    threads   that compute; a recipe keeps the number, since a clip depends on it in its last digits
    """

    name: str
    opening: Any
    threads: int

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Hz of what it makes."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of what it makes."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """Changes with the model's files."""

    @abstractmethod
    def takes(self, options: Any, count: int = 1, *, folder: Path | None = None) -> Iterator[Take]:
        """So many clips, with seeds that count up. `folder` is for temporary files."""

    def __repr__(self) -> str:
        kind, rate = type(self).__name__, self.sample_rate / 1000
        return f"{kind}({self.name!r}, {self.channels} ch, {rate:g} kHz)"

    def clip(self, options: Any) -> Audio:
        """What the command of the job writes for these options, with the recipe."""
        return self.whole(next(self.takes(options)), options)

    def whole(self, take: Take, options: Any) -> Audio:
        """A take in one clip, with what is asked for done to it, and with the recipe."""
        return joined(take, options, self.made_by(options, take.settings, take.seed))

    def pieces(self, options: Any) -> Iterator[Audio]:
        """A clip in pieces as they come, with what is asked for done to them."""
        from audiogen_core.finish import live

        return live(next(self.takes(options)), options)

    def made_by(self, options: JobOptions, settings: Mapping[str, Any], seed: int | None) -> Recipe | None:
        """What makes a clip again; None where no recipe can tell: of noise, codes or masks that were given.

        settings  what it was made with, as `Take` has them
        """
        classes = [f"{each.__module__}:{each.__qualname__}" for each in type(self).__mro__]
        job = next((_conductors()[name] for name in classes if name in _conductors()), None)
        opening = self.opening
        if job is None or opening is None or seed is None or _untold(options) or _untold(opening):
            return None
        return recipe_of(job, self, opening, options, Take(iter(()), 1, 1, settings, seed))


def joined(take: Take, options: Any, recipe: Recipe | None) -> Audio:
    """A take in one clip, with what is asked for done to it."""
    from audiogen_core.finish import whole

    return replace(whole(take, options), recipe=recipe)


@cache
def _conductors() -> dict[str, Job]:
    return {job.conductor: job for job in every()}


def _untold(options: Described) -> bool:
    """Whether something was asked that no recipe can tell."""
    values = [
        (getattr(options, each.name), each.default)
        for each in described(type(options))
        if each.option.role == "hidden" and not each.option.local
    ]
    return any(value is not default and (value == default) is not True for value, default in values)


@dataclass(frozen=True)
class Entry:
    """A model that a job can open: what the catalogue says, whether its files are here, what it understands.

    options     names of the job's options that it understands, but of what is done to any clip afterwards
    repository  where it comes from
    size        bytes, or None
    """

    name: str
    repository: str
    license: str
    size: int | None
    here: bool
    note: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One thing a model can be asked to do.

    name, title, summary  "musicgen", "MusicGen", and one sentence
    package      the distribution it belongs to
    load         options of opening the model, `model` among them
    options      options of what is made
    conductor    "module:Class" with `load(name_or_path, **load)`, imported when a model is opened
    catalog      "module:NAME", the models there are by name
    estimate     "module:function" of (load, options, offline=...), what `--dry-run` shows; its
                 "not_followed" are sentences on the prompt
    sound        "module:function" of (load, options), the `Sound` that a run makes; nothing is fetched for it
    advice       "module:function" that gives a sentence worth knowing before long work, or ""
    label, unit  of the progress bar
    together     all clips of a run are made before the first is written
    renamed      options of recipes of 0.1.0 that are called something else now
    """

    name: str
    title: str
    summary: str
    package: str
    load: type[JobLoad]
    options: type[JobOptions]
    conductor: str
    catalog: str
    estimate: str
    sound: str = ""
    advice: str = ""
    label: str = "generating"
    unit: str = "s of audio"
    together: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)

    def open(self, **load: Any) -> Any:
        """The model, ready to work. Keywords are those of `load`.

        Raises OptionError, UnknownModel, DownloadError, ModelError or WeightsError.
        """
        return self.open_with(self.load.of(load))

    def open_with(self, load: JobLoad) -> Any:
        """The model that these options name."""
        values = {each.name: getattr(load, each.name) for each in described(type(load))}
        return imported(self.conductor).load(values.pop("model"), **values)

    def check(
        self, load: JobLoad, options: JobOptions, outputs: Sequence[Path], channel: str | None = None
    ) -> None:
        """What can be checked of a run before its model is fetched or opened: what goes in, what comes out.

        channel  what is taken out of the clips that go in; see `heard`

        Raises AudioError when a clip is missing or no sound, or an output would not hold what is made,
        OptionError when it cannot be written to or the disk is too full.
        """
        from audiogen_core import finish
        from audiogen_core.audio import probe
        from audiogen_core.sound_writer import check_suffix

        for path in outputs:
            check_suffix(path)
        for each in self.inputs:
            given = getattr(options, each.name)
            for clip in given if isinstance(given, tuple | list) else [given]:
                if isinstance(clip, str | Path) and each.option.role == "audio":
                    probe(clip)
        sound: Sound = imported(self.sound)(load, options) if self.sound and outputs else Sound()
        finish.check(options, sound, outputs, channel)

    def schema(self) -> dict[str, Any]:
        """What it can be asked, as JSON Schema 2020-12: the options of the clip and of opening the model."""
        tree = schema(self.options, self.load)
        return {"$schema": tree.pop("$schema"), "title": self.title, "description": self.summary, **tree}

    def models(self) -> list[Entry]:
        """The models of its catalogue. Nothing is fetched."""
        catalog: Mapping[str, ModelSpec | Shipped] = imported(self.catalog)
        of_all = {each.name for each in described(Output)}
        common = [
            each
            for each in described(self.options)
            if each.option.role != "hidden" and each.name not in of_all
        ]
        return [
            Entry(
                name,
                spec.repo,
                spec.license,
                spec.size,
                _here(spec),
                spec.note,
                tuple(each.name for each in common if not each.option.some or each.name in spec.understands),
            )
            for name, spec in catalog.items()
        ]

    def vocabulary(self, model: str) -> Path | None:
        """The folder with the words of a small model of the catalogue that comes along; None of others."""
        from audiogen_core import prompts
        from audiogen_core.models import Shipped

        spec = imported(self.catalog).get(model)
        places = (spec.path, spec.path / "t5") if isinstance(spec, Shipped) and _here(spec) else ()
        return next((each for each in places if (each / prompts.FILE).is_file()), None)

    def stored(self, load: JobLoad, options: JobOptions) -> tuple[dict[str, Any], dict[str, str]]:
        """What a recipe keeps of how the model was opened, and the hash of each clip or file that went in."""
        from audiogen_core import lora
        from audiogen_core.recipe import hash_input

        local = {each.name for each in described(type(load)) if each.option.local or each.name == "model"}
        kept = {name: value for name, value in load.asked().items() if name not in local}
        clips = {each.name: getattr(options, each.name) for each in self.inputs}
        inputs = {name: hash_input(clip) for name, clip in clips.items() if clip is not None}
        for each in self.adapters:
            if asked := getattr(load, each.name):
                inputs[each.name] = ", ".join(map(lora.hashed, asked))
        return kept, inputs

    @property
    def inputs(self) -> tuple[Field, ...]:
        """The options that are clips or files which go in."""
        return tuple(each for each in described(self.options) if each.option.role in ("audio", "file"))

    @property
    def roles(self) -> tuple[Field, ...]:
        """What can lie somewhere else when a file is made again: the model, its parts, and what goes in."""
        places = [
            each for each in described(self.load) if each.name == "model" or each.option.role == "place"
        ]
        return (*places, *self.adapters, *self.inputs)

    @property
    def adapters(self) -> tuple[Field, ...]:
        """The options of opening the model that are merged into it."""
        return tuple(each for each in described(self.load) if each.option.role == "adapter")


@dataclass(frozen=True)
class Training:
    """How a package makes a model of a folder of clips; named under the entry points of TRAININGS.

    name     no other training has it
    title, summary  as of a `Job`; those of one title are behind one another on the page
    package  the distribution it belongs to
    job      name of the job that its models are for
    module   that is run as a program, with `verb`, a folder of clips and --output: the run's folder; the same
             command goes on where it was stopped, and SIGINT stops it
    options  "module:function" that gives the options a page asks for, which `verb` takes
    diary    "module:function" of the run's folder that gives its records: "kind" ("train", "eval", "sample"),
             "step", and "loss", "seconds_left" or "path"
    adapter  where in the run's folder the adapter is that it makes; "" where the run itself is the model
    captions whether it reads what is said of each clip
    """

    name: str
    title: str
    summary: str
    package: str
    job: str
    module: str
    verb: str
    options: str
    diary: str
    adapter: str = ""
    captions: bool = False


def trainings() -> list[Training]:
    """Those of all installed packages."""
    found = _points(TRAININGS)
    return [each for each in found.values() if isinstance(each, Training)]


def imported(reference: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def installed() -> list[Job]:
    """The jobs of all installed packages, one of each name: those of the family first, in its order.

    Where two packages have a job of one name it is the first package's.
    """
    named: dict[str, Job] = {}
    for job in every():
        named.setdefault(job.name, job)
    return list(named.values())


def every() -> list[Job]:
    """As `installed`, with jobs of one name from several packages."""
    return [job for job in _found().values() if isinstance(job, Job)]


@closed()
def find(name: str, package: str | None = None) -> Job:
    """The job of that name; where several packages have one, of the `package`, or of the first that starts.

    Raises OptionError with the names there are, ModelError with the reason when it does not start.
    """
    found = [job for (of, called), job in _found().items() if called == name and package in (None, of)]
    if not found:
        names = ", ".join(job.name for job in installed()) or "none is installed"
        where = "" if package is None else f" in {package}"
        raise OptionError(f"there is no job {name!r}{where}; there are: {names}")
    reasons = []
    for job in found:
        if isinstance(job, Job):
            return job
        reasons.append(job[1])
    raise ModelError(f"the job {name!r} is installed, but does not start: {reasons[0]}")


def broken(*, imports: bool = True) -> dict[str, str]:
    """The packages whose jobs cannot be read, or whose models cannot be imported, and the reason of each.

    imports  look at the models too: this imports what they run on, which takes seconds
    """
    reasons: dict[str, str] = {}
    for job in _found().values():
        if not isinstance(job, Job):
            reasons[job[0]] = job[1]
        elif imports:
            try:
                imported(job.conductor)
            except (
                ImportError,
                OSError,
                AttributeError,
            ) as error:  # OSError: a library that cannot be loaded
                reasons[job.package] = _reason(error)
    return reasons


def _found() -> dict[tuple[str, str], Job | tuple[str, str]]:
    """By package and name: a job, or the package and the reason why its description cannot be imported."""
    return {key: each for key, each in _points(GROUP).items() if isinstance(each, Job | tuple)}


def _points(group: str) -> Mapping[tuple[str, str], Any]:
    """What entry points name, by package and name; of one that does not load, its package and the reason."""
    return _loaded(group, tuple(sys.path))


@cache
def _loaded(group: str, path: tuple[str, ...]) -> Mapping[tuple[str, str], Any]:
    """As `_points`: looked up once, for it reads a file of each package that is installed along the path."""
    from importlib import metadata  # `--help` does without it

    family = list(FAMILY)
    points = [(point.dist.name if point.dist else "", point) for point in metadata.entry_points(group=group)]
    points.sort(key=lambda each: (family.index(each[0]) if each[0] in family else len(family), each[0]))
    found: dict[tuple[str, str], Any] = {}
    for package, point in points:
        try:
            found[package, point.name] = point.load()
        except (ImportError, OSError, AttributeError) as error:
            found[package, point.name] = (package, _reason(error))
    return MappingProxyType(found)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _here(spec: ModelSpec | Shipped) -> bool:
    from audiogen_core import hub
    from audiogen_core.models import Shipped

    if isinstance(spec, Shipped):
        return spec.size is not None
    try:
        return hub.here(spec).is_dir()
    except AudiogenError:
        return False


# Recipes: what made a file, and the way back


def recipe_of(
    job: Job, model: Model, load: JobLoad, options: JobOptions, take: Take, channel: str | None = None
) -> Recipe:
    """What makes a take again. Raises AudioError when a file that went in cannot be read.

    channel  what was taken out of the clips that went in; see `heard`
    """
    from audiogen_core.recipe import Recipe
    from audiogen_core.version import version

    kept, inputs = job.stored(load, options)
    settings = {"command": job.name, **kept, "threads": model.threads, **take.settings}
    if channel is not None:  # the model was given clips, not files
        clips = {each.name: getattr(options, each.name) for each in job.inputs}
        settings |= {name: str(path) for name, path in clips.items() if isinstance(path, str | Path)}
        settings["channel"] = channel
    settings |= options.output()
    settings.pop("seed", None)  # of a run of several clips it is that of the first; the take knows its own
    return Recipe(
        package=job.package,
        version=version(job.package),
        model=str(getattr(load, "model")),  # noqa: B009 - each job's own dataclass has it
        revision=model.revision,
        seed=take.seed,
        settings=settings,
        inputs=inputs,
    )


def heard(job: Job, options: JobOptions, channel: str | None) -> JobOptions:
    """The options with `channel` of each clip that goes in, "left" say, in place of its file.

    Raises AudioError when a file cannot be read, OptionError for another channel.
    """
    from audiogen_core.audio import Audio

    clips: dict[str, Any] = {}
    for each in job.inputs if channel is not None else ():
        path = getattr(options, each.name)
        if each.option.role == "audio" and isinstance(path, str | Path):
            clips[each.name] = Audio.load(path, channel=channel)
    return replace(options, **clips)


def job_of(recipe: Recipe, jobs: Mapping[str, Job] | None = None) -> Job:
    """The job that made a recipe's file, of those given or of all installed. Raises AudioError."""
    name = recipe.settings.get("command", _UNNAMED.get(recipe.package))
    known = every() if jobs is None else list(jobs.values())
    job = next((each for each in known if (each.package, each.name) == (recipe.package, name)), None)
    if job is None:
        here = " or ".join(sorted({f"{each.package} {each.name}" for each in known}))
        what = f"{recipe.package} {name}" if isinstance(name, str) else recipe.package
        raise AudioError(f"made by {what}, which can make it again; this is {here or 'audiogen-core'}")
    return job


def again(
    job: Job, recipe: Recipe, moved: Mapping[str, Any] | None = None, **load: Any
) -> tuple[JobLoad, JobOptions]:
    """How a file was made: the options its recipe stands for.

    moved  where the model, its parts or the files that went in are now, by role
    load   options of opening the model that belong to this machine, not to the recipe; `threads` are those of
           the recipe if there are none

    Raises OptionError when something is said to have moved that cannot, AudioError when the recipe is of
    another job, damaged, or a file is not the one that went in.
    """
    from audiogen_core import lora
    from audiogen_core.audio import Audio
    from audiogen_core.recipe import SAMPLES, hash_input

    if recipe.package != job.package or job_of(recipe, {job.name: job}) is not job or recipe.seed is None:
        raise AudioError(f"the recipe is not one of {job.package} {job.name}")
    moved = {job.renamed.get(name, name): place for name, place in (moved or {}).items()}
    roles = [each.name for each in job.roles]
    if unknown := [name for name in moved if name not in roles]:
        raise OptionError(f"nothing called {', '.join(unknown)} can have moved; what can: {', '.join(roles)}")
    stored = dict(recipe.settings)
    stored.pop("command", None)
    stored.pop("channel", None)  # is for `heard`
    load = {"threads": stored.pop("threads", None), **load}
    nested = stored.pop("options", {})  # where 0.1.0's vamp kept them
    stored |= nested if isinstance(nested, dict) else {"options": nested}
    values = {job.renamed.get(name, name): value for name, value in stored.items()}
    for each in job.adapters:
        if each.name in moved:
            moved[each.name] = lora.moved(values.get(each.name) or (), moved[each.name])
    values |= {"model": recipe.model, "seed": recipe.seed, **moved}
    # what belongs to Python or to this machine (an unlisted model, say) is not for a file to decide
    opening = {
        each.name for each in described(job.load) if not (each.option.role == "hidden" or each.option.local)
    }
    making = {each.name for each in described(job.options) if each.option.role != "hidden"}
    went_in = {each.name: recipe.inputs.get(_old_role(job, each.name, recipe)) for each in job.inputs}
    for name, digest in went_in.items():
        if (digest or "").startswith(SAMPLES) and values.get(name) is None:
            raise AudioError(
                f"the clip that went in as {name} came from no file: save it as .wav with the subtype FLOAT, "
                f"and say where it is now by --use {name}=FILE, in Python by moved={{{name!r}: FILE}}"
            )
    if unknown := sorted(set(values) - opening - making):
        raise AudioError(f"the recipe has settings of another version: {', '.join(unknown)}")
    if any(each.name == "revision" for each in described(job.load)):
        load = {**load, "revision": recipe.revision}
    try:
        opened = job.load.of({**{name: values[name] for name in values if name in opening}, **load})
        options = job.options.of_recipe({name: values[name] for name in values if name in making})
    except OptionError as error:
        raise AudioError(f"the recipe is damaged ({error})") from error
    for each in job.adapters:
        merged = getattr(opened, each.name) or ()
        digests = [digest for digest in recipe.inputs.get(each.name, "").split(", ") if digest]
        if len(digests) != len(merged):
            raise AudioError(f"the recipe does not say which adapters were merged as {each.name}")
        for text, digest in zip(merged, digests, strict=True):
            if _differs(text, digest):
                raise AudioError(
                    f"{text}: not the adapter that was merged as {each.name}; its hash is another"
                )
    for name, digest in went_in.items():
        path = getattr(options, name)
        if path is None:
            continue
        of_samples = (digest or "").startswith(SAMPLES) and isinstance(path, str | Path)
        if hash_input(Audio.load(path) if of_samples else path) != digest:
            raise AudioError(f"{path}: not the file that went in as {name}; its hash is another")
    return opened, options


def replay(source: Recipe | str | Path, moved: Mapping[str, Any] | None = None, **load: Any) -> Audio:
    """Makes again what a recipe tells of, or the file or clip that carries one: what `replay` writes.

    moved, load  as with `again`

    Raises AudioError when there is no recipe or its package is not installed, and as `again` does.
    """
    from audiogen_core.recipe import Recipe

    recipe = source if isinstance(source, Recipe) else Recipe.read(source)
    job = job_of(recipe)
    opening, options = again(job, recipe, moved, **load)
    model = job.open_with(opening)
    check_revision(recipe.revision, recipe.model, model.revision)
    channel = recipe.settings.get("channel")
    given = heard(job, options, channel)
    take = next(model.takes(given))
    return joined(take, given, recipe_of(job, model, opening, options, take, channel))


def _differs(adapter: str, digest: str) -> bool:
    """Whether an adapter is another than it was. One of the hub that is yet to come shows in the revision."""
    from audiogen_core import lora

    try:
        return lora.hashed(adapter) != digest
    except DownloadError:
        return False


def _old_role(job: Job, name: str, recipe: Recipe) -> str:
    """What the recipe calls an input that is called `name` now."""
    old = [was for was, now in job.renamed.items() if now == name and was in recipe.inputs]
    return old[0] if old else name


def check_revision(wanted: str | None, name: str, revision: str) -> None:
    """Raises ModelError when a model that was opened is not the one a recipe names, if it names one."""
    if wanted and revision != wanted:
        raise ModelError(
            f"{name}: not the model that made this file: its revision is {revision}, the recipe names "
            f"{wanted}; name the right one"
        )
