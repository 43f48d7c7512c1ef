"""The settings of a training run: defaults, TOML in, JSON out, and what may change when a run is resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from audiogen_core.devices import HELP
from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path
from audiogen_core.options import Described, Field, described, hidden, option, place
from audiogen_core.settings import from_mapping, read_json, read_toml
from audiogen_core.times import parse_time
from audiogen_core.training.errors import differences
from audiogen_minigpt.config import LAYOUTS, SIZES, ModelConfig
from audiogen_minigpt.options import CodecPlace

CONFIG = "config.json"
MAX_SEED = 2**31 - 1

GENTLE = 0.15
"""Share of the learning rate of a new model with which one that plays already goes on."""


@dataclass(frozen=True)
class TrainConfig(Described):
    """What to train, on what, for how long; the options of the command and the keys of a TOML file.

    Raises OptionError when a value is impossible.
    """

    data: Annotated[str, place("Folder of codes.", argument=True, metavar="DATA")]
    run: Annotated[str, place("Where the run goes: checkpoints, records, samples.", "--output", "-o")]
    model: Annotated[
        ModelConfig | None, hidden("Its shape; None is the size tiny with the codebooks of the data.")
    ] = None
    steps: Annotated[int | None, option("How many updates to train, instead of a time.", ge=1)] = None
    # The number of updates follows from a few timed ones, and is kept when the run is resumed.
    seconds: Annotated[
        float | None,
        option(
            "How long to train: 45s, 10m, 1h30m; 10m when nothing is said.",
            "--time",
            label="Time",
            unit="s",
            gt=0,
            parse=parse_time,
            metavar="TIME",
        ),
    ] = None
    batch: Annotated[int, option("Windows in one update, over all processes.", ge=1, advanced=True)] = 8
    micro_batch: Annotated[
        int, option("Windows in one forward pass; 0 chooses by memory.", ge=0, advanced=True)
    ] = 0
    optimizer: Annotated[str, option("adamw or muon.", choices=("adamw", "muon"), advanced=True)] = "adamw"
    lr: Annotated[float, option("Full learning rate; 0 follows the width.", ge=0, advanced=True)] = 0.0
    weight_decay: Annotated[float, option("On matrices and embeddings.", ge=0, advanced=True)] = 0.1
    warmup: Annotated[
        float, option("Share of the run in which the rate rises.", ge=0, le=1, advanced=True)
    ] = 0.03
    cooldown: Annotated[
        float, option("Share of the run in which it falls to zero.", ge=0, le=1, advanced=True)
    ] = 0.3
    clip: Annotated[float, option("Greatest norm of the gradient; 0 does not clip.", ge=0, advanced=True)] = (
        1.0
    )
    # Drawn anew for each window, so that the model learns to go on after mistakes of its own (the problem of
    # arXiv 1506.03099); the targets stay.
    noise: Annotated[
        float,
        option("Greatest share of codes shown that others of the window replace.", ge=0, le=1, advanced=True),
    ] = 0.0
    seed: Annotated[int, option("Seed of weights, order and samples.", ge=0, le=MAX_SEED)] = 0
    device: Annotated[str, option(HELP)] = "auto"
    dtype: Annotated[
        str,
        option("auto, float32 or bfloat16.", choices=("auto", "float32", "bfloat16"), advanced=True),
    ] = "auto"
    compile: Annotated[
        str, option("auto (on CUDA only), on or off.", choices=("auto", "on", "off"), advanced=True)
    ] = "auto"
    shard: Annotated[  # FSDP2 instead of DDP
        bool, option("Share weights out over torchrun's processes (FSDP2).", advanced=True)
    ] = False
    eval_every: Annotated[
        int, option("Updates between evaluations; 0: ten of them.", ge=0, advanced=True)
    ] = 0
    save_every: Annotated[
        int, option("Updates between checkpoints; 0: at evaluations.", ge=0, advanced=True)
    ] = 0
    log_every: Annotated[int, option("Updates between records.", ge=1, advanced=True)] = 10
    eval_windows: Annotated[
        int, option("Windows of validation data to judge by, at most.", ge=1, advanced=True)
    ] = 64
    keep: Annotated[int, option("Newest checkpoints to keep, beside the best.", ge=1, advanced=True)] = 3
    sample_seconds: Annotated[
        float,
        option("Length of the clip made at each evaluation; 0 makes none.", unit="s", ge=0, advanced=True),
    ] = 5.0
    codec: CodecPlace = None
    start: Annotated[
        str | None,
        place(
            "Model whose weights and shape it begins with: a run, a checkpoint, or demo.",
            "--start-from",
            metavar="RUN",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.seconds is not None:
            raise OptionError("give a number of steps or a time, not both", "steps", "seconds")
        if self.warmup + self.cooldown > 1:
            raise OptionError(
                f"warmup {self.warmup} and cooldown {self.cooldown} must be shares whose sum is at most 1"
            )
        if self.shard and self.optimizer == "muon":
            raise OptionError("muon needs whole matrices; use it without shard", "optimizer", "shard")

    @property
    def budget(self) -> float | None:
        """The time budget in seconds, or None where a number of steps is given."""
        return None if self.steps is not None else self.seconds or 600.0

    @property
    def goal(self) -> dict[str, Any]:
        """What a run's plan follows from."""
        return {
            "steps": self.steps,
            "seconds": self.budget,
            "warmup": self.warmup,
            "cooldown": self.cooldown,
        }

    def learning_rate(self, model: ModelConfig) -> float:
        """The full learning rate: the one given, or 2e-3 at a width of 256, less for wider models.

        A model that plays already is bent by less, so that it does not forget what the new music lacks.
        """
        return self.lr or min(3e-3, 2e-3 * math.sqrt(256 / model.width)) * (GENTLE if self.start else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


FREE = frozenset(
    {
        "data",
        "run",
        "steps",
        "seconds",
        "micro_batch",
        "device",
        "compile",
        "shard",
        "eval_every",
        "save_every",
    }
    | {"log_every", "eval_windows", "keep", "sample_seconds", "codec"}
)
"""Settings that may change when a run is resumed. The others would make it another run."""


@dataclass(frozen=True)
class Shape(Described):
    """What a command may say of a new model; the other fields of `ModelConfig` stand in a TOML file."""

    size: Annotated[str | None, option(f"Size of the model: {', '.join((*SIZES, 'seed'))}.")] = None
    preset: Annotated[str | None, option("Kind of blocks, modern or gpt2; or a size.")] = None
    layout: Annotated[str | None, option(f"How codes become tokens: {', '.join(LAYOUTS)}.")] = None
    codebooks: Annotated[int | None, option("How many codebooks the model has.", ge=1)] = None


@dataclass(frozen=True)
class Settings:
    """Settings from several sources, not yet resolved against the data.

    train  fields of `TrainConfig` but the model
    shape  fields of `ModelConfig`
    size   a named size that `shape` changes, or None
    """

    train: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    size: str | None = None

    @classmethod
    def of(cls, train: Mapping[str, Any], shape: Shape) -> Settings:
        """From what a command was told. The name of a size is taken as preset, too."""
        fields_of_model, size = shape.asked(), shape.size
        fields_of_model.pop("size", None)
        if shape.preset in (*SIZES, "seed"):
            size = fields_of_model.pop("preset")
        return cls(dict(train), fields_of_model, size)

    @classmethod
    def read(cls, path: str | Path) -> Settings:
        """From a TOML file: `size` and the training settings at the top, the model's in [model].

        Raises OptionError.
        """
        tree = read_toml(path, finite=False)  # what is said of `lr = nan` names the setting
        model = tree.pop("model", {})
        size = tree.pop("size", None)
        if not isinstance(model, dict) or not isinstance(size, str | None):
            raise OptionError(f"{path}: model must be a table and size a text")
        known = {entry.name for entry in fields(TrainConfig)} - {"model"}
        from_mapping(TrainConfig, {"data": "", "run": "", **tree}, str(path))
        return cls({key: tree[key] for key in tree if key in known}, model, size)

    def over(self, below: Settings) -> Settings:
        """These settings, with those of `below` where these say nothing."""
        train = {**below.train, **self.train}
        if "steps" in self.train:
            train.pop("seconds", None)
        elif "seconds" in self.train:
            train.pop("steps", None)
        return Settings(train, {**below.shape, **self.shape}, self.size or below.size)

    def model(self, facts: Mapping[str, Any]) -> ModelConfig:
        """The model for data of these facts (codebooks, codebook_size); the size "tiny" where none is named.

        Named sizes take no more codebooks than the data has. Raises OptionError.
        """
        size = self.size or "tiny"
        shape = {"codebook_size": int(facts["codebook_size"]), **self.shape}
        if "codebooks" not in shape and shape.get("layout") != "first" and size != "seed":
            shape["codebooks"] = min(ModelConfig.size(size).codebooks, int(facts["codebooks"]))
        return ModelConfig.size(size, **shape)

    def config(self, facts: Mapping[str, Any]) -> TrainConfig:
        """The config of a run on data of these facts. Raises OptionError, and ModelError for no model."""
        start = self.train.get("start")
        if start is None:
            model = self.model(facts)
        elif self.size or self.shape:
            raise OptionError(
                f"{start}: a model to start from has its shape; leave out what is said of another"
            )
        else:
            from audiogen_minigpt import checkpoint

            model = checkpoint.find(start).config
        return from_mapping(TrainConfig, {**self.train, "model": model}, "settings")

    def resumed(self, before: TrainConfig, facts: Mapping[str, Any]) -> TrainConfig:
        """The config of a run that is gone on with: what it was, with these settings changed."""
        base = {key: value for key, value in vars(before).items() if key != "model"}
        merged = self.over(Settings({key: value for key, value in base.items() if value is not None}))
        model = self.model(facts) if self.size or self.shape else before.model
        return from_mapping(TrainConfig, {**merged.train, "model": model}, "settings")


def left_open(options: Iterable[Field]) -> list[Field]:
    """The same options with nothing said unless it is given: a TOML file, or the run itself, may say it."""
    opened = []
    for each in options:
        told, default = each.option, each.default
        if not each.required:
            if default:  # 0 is either said in the help, or no surprise
                shown = f"{default:g}" if isinstance(default, float) else default
                told = replace(told, help=f"{told.help.removesuffix('.')}; {shown} when absent.")
            each = replace(each, option=told, default=None)
        opened.append(each)
    return opened


def plain() -> list[Field]:
    """The options of training that a run of all stages takes: how long, and below a heading what else is not
    advanced.
    """
    fields = [each for each in described(TrainConfig) if each.option.role != "hidden"]
    shown = left_open(each for each in fields if not (each.option.advanced or each.required))
    asked = [_whole(each) for each in (*shown, *described(Shape))]
    return sorted(asked, key=lambda each: each.option.group)


def _whole(each: Field) -> Field:
    """The same option; a time is one of all stages, and the others stand below a heading."""
    if each.name != "seconds":
        return replace(each, option=replace(each.option, group="Options"))
    told = "How long all of it may take: 45s, 10m, 1h30m; when absent 10m beside encoding."
    return replace(each, option=replace(each.option, help=told))


def check_model(model: ModelConfig, facts: Mapping[str, Any]) -> None:
    """Raise OptionError unless data of these facts can train the model."""
    if model.codebooks > int(facts["codebooks"]):
        raise OptionError(
            f"the model has {model.codebooks} codebooks, the data {facts['codebooks']}; "
            "encode with more, or ask for fewer with --codebooks"
        )
    if model.codebook_size != int(facts["codebook_size"]):
        raise OptionError(
            f"the model has codebooks of {model.codebook_size} entries, the data of {facts['codebook_size']}"
        )


def save_config(config: TrainConfig) -> Path:
    """Write the settings into the run's folder as config.json."""
    path = Path(config.run) / CONFIG
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    return path


def load_config(run: str | Path) -> TrainConfig | None:
    """The settings a run was started with; None when the folder holds no run. Raises OptionError."""
    path = Path(run) / CONFIG
    return from_mapping(TrainConfig, read_json(path, OptionError), str(path)) if path.exists() else None


def check_resumable(before: TrainConfig, now: TrainConfig) -> None:
    """Raise OptionError, with the differences, when a resumed run would be another run."""
    old, new = _flat(before), _flat(now)
    rows = {key: (old[key], new.get(key)) for key in old if key not in FREE and old[key] != new.get(key)}
    if rows:
        raise OptionError(
            f"{now.run}: the run was started with other settings; leave them out to resume, or choose "
            f"another folder; {differences(rows, 'the run', 'the new settings')}"
        )


def _flat(config: TrainConfig) -> dict[str, Any]:
    tree = config.to_dict()
    model = tree.pop("model") or {}
    return {**tree, **{f"model.{key}": value for key, value in model.items()}}
