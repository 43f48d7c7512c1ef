"""The settings of a training run: defaults, TOML in, JSON out, and what may change when a run is resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path
from audiogen_core.settings import from_mapping, read_json, read_toml
from audiogen_minigpt.config import ModelConfig, check_choice
from audiogen_minigpt.errors import differences

CONFIG = "config.json"
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, for how long.

    data, run      folder of codes to train on; folder of the run
    model          the model's shape; None is the size "tiny" with the codebooks of the data
    steps, seconds how long: a number of updates, or a time budget from which that number follows after a few
                   timed steps. With neither, ten minutes
    batch          windows in one update, over all processes and passes
    micro_batch    windows in one forward pass; 0 chooses by memory
    optimizer      "adamw" or "muon"
    lr             full learning rate; 0 chooses by the width of the model
    weight_decay   on matrices and embeddings
    warmup, cooldown  shares of the run in which the rate rises, and falls to zero
    clip           greatest norm of the gradient; 0 does not clip
    noise          greatest share of the codes shown to the model that others of the window replace, drawn
                   anew for each, so that it learns to go on after mistakes of its own (the problem of arXiv
                   1506.03099); the targets stay
    seed           of the weights, of the order of the windows, and of the samples
    device, dtype  "auto", or "cpu", "cuda", "mps"; "auto", "float32" or "bfloat16"
    compile        "auto" (on CUDA only), "on" or "off"
    shard          share weights out over the processes (FSDP2) instead of repeating them (DDP)
    eval_every, save_every, log_every  in steps; 0 chooses
    eval_windows   windows of validation data to judge by, at most
    keep           newest checkpoints to keep, beside the best
    sample_seconds length of the clip made at each evaluation; 0 makes none
    codec          the codec's name or path for the samples, where the name in the data is not enough

    Raises OptionError when a value is impossible.
    """

    data: str
    run: str
    model: ModelConfig | None = None
    steps: int | None = None
    seconds: float | None = None
    batch: int = 8
    micro_batch: int = 0
    optimizer: str = "adamw"
    lr: float = 0.0
    weight_decay: float = 0.1
    warmup: float = 0.03
    cooldown: float = 0.3
    clip: float = 1.0
    noise: float = 0.0
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    compile: str = "auto"
    shard: bool = False
    eval_every: int = 0
    save_every: int = 0
    log_every: int = 10
    eval_windows: int = 64
    keep: int = 3
    sample_seconds: float = 5.0
    codec: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.seconds is not None:
            raise OptionError("give a number of steps or a time, not both")
        for name in ("batch", "log_every", "eval_windows", "keep"):
            _at_least(name, getattr(self, name), 1)
        if self.steps is not None:
            _at_least("steps", self.steps, 1)
        for name in (
            "micro_batch",
            "eval_every",
            "save_every",
            "lr",
            "weight_decay",
            "clip",
            "sample_seconds",
        ):
            _at_least(name, getattr(self, name), 0)
        if self.seconds is not None and not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise OptionError(f"seconds must be more than 0, got {self.seconds}")
        if not (self.warmup >= 0 and self.cooldown >= 0 and self.warmup + self.cooldown <= 1):
            raise OptionError(
                f"warmup {self.warmup} and cooldown {self.cooldown} must be shares whose sum is at most 1"
            )
        if not 0 <= self.noise <= 1:
            raise OptionError(f"noise must be a share in [0, 1], got {self.noise}")
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionError(f"seed must lie in [0, {MAX_SEED}], got {self.seed}")
        check_choice("optimizer", self.optimizer, ("adamw", "muon"))
        check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        check_choice("compile", self.compile, ("auto", "on", "off"))
        if self.shard and self.optimizer == "muon":
            raise OptionError("muon needs whole matrices; use it without shard")

    @property
    def budget(self) -> float | None:
        """The time budget in seconds, or None where a number of steps is given."""
        return None if self.steps is not None else self.seconds or 600.0

    @property
    def asked(self) -> dict[str, Any]:
        """What a run's plan follows from."""
        return {
            "steps": self.steps,
            "seconds": self.budget,
            "warmup": self.warmup,
            "cooldown": self.cooldown,
        }

    def learning_rate(self, model: ModelConfig) -> float:
        """The full learning rate: the one given, or 2e-3 at a width of 256, less for wider models."""
        return self.lr or min(3e-3, 2e-3 * math.sqrt(256 / model.width))

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
        """The config of a run on data of these facts. Raises OptionError."""
        return from_mapping(TrainConfig, {**self.train, "model": self.model(facts)}, "settings")

    def resumed(self, before: TrainConfig, facts: Mapping[str, Any]) -> TrainConfig:
        """The config of a run that is gone on with: what it was, with these settings changed."""
        base = {key: value for key, value in vars(before).items() if key != "model"}
        merged = self.over(Settings({key: value for key, value in base.items() if value is not None}))
        model = self.model(facts) if self.size or self.shape else before.model
        return from_mapping(TrainConfig, {**merged.train, "model": model}, "settings")


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


def _at_least(name: str, value: float, least: int) -> None:
    if not (value >= least and math.isfinite(value)):
        raise OptionError(f"{name} must be at least {least}, got {value}")
