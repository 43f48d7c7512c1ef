"""The `audiogen-minigpt` command: each is options, a verb, and what is told of the result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from audiogen_core import cli
from audiogen_core.commands import add, add_job, add_models, add_replay, command, fetching, gathered, parsed
from audiogen_core.dataset.options import Coder, Division, Preparation, Spread
from audiogen_core.jobs import Shown
from audiogen_core.models import Fetch
from audiogen_core.options import Described, Field, argument, described, option, place
from audiogen_minigpt.jobs import GENERATE
from audiogen_minigpt.options import Load, Trained
from audiogen_minigpt.settings import Settings, Shape, TrainConfig, left_open, plain

commands = cli.Program(
    "audiogen-minigpt",
    "audiogen-minigpt",
    "A folder of audio in, a small GPT trained on its codes, new audio out.",
)


@dataclass(frozen=True, kw_only=True)
class Into(Shown):
    """What a command has that writes a folder."""

    output: Annotated[Path, option("Where the result goes.", "-o", metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Beside(Shown):
    """What a command has that writes a folder for one of audio, and goes on with it."""

    output: Annotated[
        Path | None,
        option("Where the result goes; named after the audio when absent.", "-o", metavar="PATH"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Fetching(Described):
    """What a command has that may need a codec which is not here."""

    offline: Annotated[bool, option("Never use the network.")] = False

    def fetch(self, shown: Shown) -> Fetch:
        """How a codec comes."""
        return fetching(self.offline, shown.quiet or shown.json)


@dataclass(frozen=True, kw_only=True)
class Source(Fetching):
    """The audio that is encoded."""

    folder: Annotated[Path, argument("Audio files, at any depth.", metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class Training(Described):
    """What a command that trains takes beside the settings of the run."""

    config: Annotated[Path | None, option("Settings as TOML; options win over them.", metavar="TOML")] = None
    new_data: Annotated[bool, option("Go on though the codes are others than the run had so far.")] = False
    dry_run: Annotated[bool, option("Show what would be done, and stop.")] = False


@dataclass(frozen=True, kw_only=True)
class Running(Training):
    """What `run` takes beside the settings of the run."""

    from_scratch: Annotated[bool, option("Begin with nothing, though the demo model fits.")] = False


@dataclass(frozen=True, kw_only=True)
class Resumable(Training, Fetching):
    """What `train` takes beside the settings of the run."""

    resume: Annotated[bool, option("Go on with the run in the folder.")] = False


@dataclass(frozen=True, kw_only=True)
class Judging(Load, Fetching):
    """What `eval` takes beside the model."""

    data: Annotated[
        str | None, place("Folder of codes; the run's own when absent.", argument=True, metavar="[DATA]")
    ] = None
    windows: Annotated[int, option("Windows to measure on, at most.", ge=1)] = 256
    clips: Annotated[int, option("How many tracks to continue; 0 needs no codec.", ge=0)] = 3
    seconds: Annotated[float, option("Length of a track and its continuation.", unit="s", gt=0)] = 10.0
    seed: Annotated[int, option("Seed of the continuations.", ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class Exporting(Trained):
    """What `export` takes beside the model."""

    force: Annotated[bool, option("Write over what was exported there before.", "-f")] = False
    format: Annotated[
        str, option("light: float16, for generating alone.", choices=("auto", "hf", "safetensors", "light"))
    ] = "auto"


@dataclass(frozen=True)
class Place(Described):
    """What `info` takes."""

    path: Annotated[str, place("Codes, a run, a checkpoint or a sound.", argument=True)]


def _shown(cls: type[Described]) -> list[Field]:
    return [field for field in described(cls) if field.option.role != "hidden"]


def _settings(given: Mapping[str, Any], training: Training) -> Settings:
    """What a command was told about training, over what its TOML file says. Raises OptionError."""
    train = {
        field.name: parsed(field, given[field.name])
        for field in described(TrainConfig)
        if given.get(field.name) is not None
    }
    told = Settings.of(train, gathered(Shape, given))
    return told.over(Settings.read(training.config)) if training.config else told


_BARS = {
    "look": ("looking at files", "steps"),
    "encode": ("encoding", "shards"),
    "judge": ("judging", "parts"),
    "sample": ("making sounds", "clips"),
}
"""What is shown of the stages of a run but training."""


def run(**given: Any) -> None:
    """Encode, train, judge and make sounds, with a page to show for it. Goes on where it was stopped."""
    from audiogen_core.training.status import Stages

    source, running = gathered(Source, given), gathered(Running, given)
    into, workers = gathered(Beside, given), gathered(Spread, given).workers
    output = into.output or Path(f"{source.folder.resolve().name}-run")
    codec = given.pop("codec")  # of all stages
    with Stages(_BARS, into.quiet or into.json) as stages:
        from audiogen_minigpt.run import preview, run

        told: dict[str, Any] = {"codec": codec, "settings": _settings(given, running), "workers": workers}
        told |= {"from_scratch": running.from_scratch, "new_data": running.new_data}
        told |= {"on_stage": stages.begin, "notify": stages.tell}
        if running.dry_run:
            plan = preview(source.folder, output, offline=source.offline, **told)
            cli.emit(plan, json=into.json)
            return
        with _answering(into):
            result = run(
                source.folder,
                output,
                on_record=stages.status.on_record,
                fetch=source.fetch(into),
                **told,
            )
    if not result.done and result.signal is None:
        cli.note(f"{output}: everything was done already")
    facts: dict[str, Any] = {"path": str(result.page or result.run), "step": result.step}
    facts |= {"done": list(result.done), "next": list(result.next)}
    facts["verdict"] = vars(result.verdict) if result.verdict else None
    _tell(facts, into)
    _leave(result.signal)


add(
    commands,
    "run",
    run,
    [
        *described(Source),
        *described(Spread),
        *plain(),
        *described(Running),
        *described(Beside),
    ],
    run.__doc__,
)


@command(commands, "encode", Source, Coder, Preparation, Division, Beside)
def encode(source: Source, coder: Coder, preparation: Preparation, division: Division, into: Beside) -> None:
    """Turn a folder of audio into a folder of codes. Goes on where it was stopped."""
    from audiogen_core.dataset.command import carry_out

    carry_out(source.folder, into.output, coder, preparation, division, source.fetch(into), into)


def train(**given: Any) -> None:
    """Train a model on a folder of codes; alone, or as one of the processes of torchrun."""
    from audiogen_core.dataset.shards import Meta
    from audiogen_core.training.status import Status
    from audiogen_minigpt.settings import load_config
    from audiogen_minigpt.train import train

    training, shown = gathered(Resumable, given), gathered(Shown, given)
    told = _settings(given, training)
    data, output = told.train["data"], told.train["run"]
    facts, before = Meta.load(data).facts, load_config(output) if training.resume else None
    config = told.resumed(before, facts) if before else told.config(facts)
    if training.dry_run:
        cli.emit(config.to_dict(), json=shown.json)
        return
    status = Status(shown.quiet or shown.json)
    try:
        with _answering(shown):
            result = train(
                config,
                resume=training.resume,
                new_data=training.new_data,
                on_step=status.on_step,
                on_record=status.on_record,
                fetch=training.fetch(shown),
            )
    finally:
        status.clear()
    if result.ran == 0 and result.finished:
        cli.note(f"{output}: trained already, {result.step} updates; ask for more --steps or --time to go on")
    if result.checkpoint:  # only in the first process
        facts = {"path": output, "step": result.step, "steps": result.steps, "loss": result.loss}
        _tell({**facts, "checkpoint": str(result.checkpoint)}, shown)
    _leave(result.signal)


add(
    commands,
    "train",
    train,
    [
        *left_open(_shown(TrainConfig)),
        *described(Shape),
        *described(Resumable),
        *described(Shown),
    ],
    train.__doc__,
)

add_job(commands, GENERATE)
add_replay(commands, GENERATE)
add_models(commands, GENERATE)


@command(commands, "eval", Judging, Shown)
def evaluate(judging: Judging, shown: Shown) -> None:
    """Judge a model on held-out codes, beside what counting codes achieves."""
    from audiogen_minigpt.evaluate import evaluate

    with cli.progress("judging", unit="parts", quiet=shown.quiet or shown.json) as on_step:
        result = evaluate(
            judging.model,
            judging.data,
            which=judging.chosen,
            windows=judging.windows,
            clips=judging.clips,
            seconds=judging.seconds,
            seed=judging.seed,
            codec=judging.codec,
            device=judging.device,
            fetch=fetching(judging.offline, shown.quiet or shown.json),
            on_step=on_step,
        )
    cli.emit(result.to_dict(), json=shown.json)


@command(commands, "export", Exporting, Into)
def export(exporting: Exporting, into: Into) -> None:
    """Write a model for use elsewhere: for transformers' GPT-2, as safetensors, or light for `generate`."""
    from audiogen_minigpt.export import export

    chosen = exporting.chosen
    folder = export(exporting.model, into.output, exporting.format, which=chosen, force=exporting.force)
    _tell({"path": str(folder)}, into)


@command(commands, "info", Place, Shown)
def info(place: Place, shown: Shown) -> None:
    """Say what is in a folder or file."""
    from audiogen_minigpt.info import info

    cli.emit(info(place.path), json=shown.json)


@command(commands, "verify", Place, Shown)
def verify(place: Place, shown: Shown) -> None:
    """Check a folder of codes, a run or a checkpoint: hashes, and every tensor's name, shape and values."""
    from audiogen_core.dataset.encode import verify
    from audiogen_minigpt.catalog import locate
    from audiogen_minigpt.checkpoint import load_model

    path = locate(place.path)
    if (path / "meta.json").is_file():
        cli.emit({"kind": "codes", "path": str(path), "frames": verify(path)}, json=shown.json)
        return
    model, _, facts = load_model(path, which="last", device="cpu")
    tensors = len(list(model.parameters()))
    told = {
        "kind": "checkpoint",
        "path": str(path),
        "checkpoint": facts.get("checkpoint"),
        "tensors": tensors,
    }
    cli.emit(told, json=shown.json)


@command(commands, "doctor", Shown)
def doctor(shown: Shown) -> None:
    """Show versions, devices, the cache, what each command needs, and what is missing."""
    from audiogen_minigpt.doctor import report

    cli.emit(report(), json=shown.json)


def _answering(shown: Shown) -> AbstractContextManager[object]:
    """Signals are caught, and answered at once."""
    from audiogen_core.training.signals import ANSWER, stopping

    return stopping(None if shown.quiet else ANSWER)


def _tell(result: dict[str, Any], shown: Shown) -> None:
    """The path alone, or everything as JSON."""
    if shown.json:
        cli.emit(result, json=True)
    else:
        print(result["path"])


def _leave(signal: int | None) -> None:
    """Exit as a process that a signal ended."""
    if signal is not None:
        raise SystemExit(128 + signal)


def main() -> None:
    """Run the command line."""
    cli.run(commands)
