"""Checkpoints: folders that are there whole or not at all, and the loader that takes the newest valid one.

    RUN/ckpt/step-00001234/
        model.safetensors      the weights, float32
        training.safetensors   the optimizer's state
        state.json             step, model, data and training facts, versions
        manifest.json          size and sha256 of the other three

A checkpoint is written under a name that starts with ".tmp-", flushed, and renamed. Nothing else is needed to
go on training or to generate, not even the data. A light one, for generating alone, has float16 weights and
no training.safetensors: a sixth of the size.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiogen_core import weights
from audiogen_core.dataset.shards import FACTS
from audiogen_core.errors import ModelError, OptionError, UnknownModel, WeightsError
from audiogen_core.files import atomic_folder
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.runs import run_in
from audiogen_core.sampling import Sampling
from audiogen_core.settings import Section, as_table, read_json
from audiogen_core.training.checkpoints import FOLDER as FOLDER
from audiogen_core.training.checkpoints import clean as clean
from audiogen_core.training.checkpoints import listed as listed
from audiogen_core.training.checkpoints import prune as prune
from audiogen_core.training.checkpoints import valid, writing
from audiogen_core.training.errors import DiskFull
from audiogen_minigpt.catalog import CATALOG, locate
from audiogen_minigpt.config import SAMPLING, ModelConfig, check_choice
from audiogen_minigpt.options import DRAWING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from audiogen_minigpt.model import GPT

FORMAT_VERSION = 1
_MODEL, _TRAINING, _STATE, _MANIFEST = (
    "model.safetensors",
    "training.safetensors",
    "state.json",
    "manifest.json",
)
_SPARE = 1 << 20  # bytes asked for beyond the tensors
_LIGHT = ("format_version", "versions", "step", "model", "data", "val_loss")  # of state.json, in a light one


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are as they were written.

    path   its folder
    state  what state.json says
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """How many updates the weights have had."""
        return int(self.state["step"])

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return ModelConfig.from_dict(self.state["model"], f"{self.path / _STATE}: model")

    @property
    def facts(self) -> dict[str, Any]:
        """The codec and geometry of the data it was trained on; see `shards.FACTS`."""
        return dict(self.state["data"])

    def model_tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return _read_tensors(self.path / _MODEL)

    @property
    def revision(self) -> str:
        """What recipes call it: its own word for it, or the name of its folder."""
        return str(self.state.get("revision") or self.path.name)

    @property
    def sampling(self) -> Sampling:
        """How its codes are drawn unless somebody says otherwise: as state.json says, or `SAMPLING`."""
        said = self.state.get("sampling")
        return SAMPLING if said is None else Sampling(**{key: said[key] for key in DRAWING if key in said})

    def training_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by name. Raises ModelError for a checkpoint without it."""
        if not (self.path / _TRAINING).exists():
            raise ModelError(f"{self.path}: made for generating alone; training cannot go on from it")
        return _read_tensors(self.path / _TRAINING)


def save(
    run: str | Path,
    step: int,
    model: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint. Returns its folder.

    run              the run's folder
    model, training  tensors by name: the weights, and the optimizer's state
    state            JSON values: at least "model" (a ModelConfig as a dict) and "data" (see `shards.FACTS`)

    Raises DiskFull when there is no room, before or while writing; what was there stays.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.values(), *training.values()))
    root = Path(run) / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    _require_room(root, size + _SPARE)
    with writing(run, step) as folder:
        _write(folder, model, training, {**_versions(), **state, "step": step})
    return root / f"step-{step:08d}"


def write_light(
    source: Checkpoint, out: str | Path, sampling: Sampling | None = None, over: Sequence[str] = ()
) -> Path:
    """Write a checkpoint without what training needs. Returns the folder, which appears whole or not at all.

    out       a folder that does not exist yet, or is empty
    sampling  how codes of this model are drawn unless somebody says otherwise
    over      a folder gives way that holds one of these files

    Raises OptionError when `out` is taken, ModelError when it cannot be written.
    """
    tensors = {name: value.half() for name, value in source.model_tensors().items()}
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    state: dict[str, Any] = {key: source.state[key] for key in _LIGHT if key in source.state}
    state["revision"] = f"step-{source.step:08d}-{digest.hexdigest()[:12]}"
    if sampling is not None:
        state["sampling"] = {key: sampling.to_dict()[key] for key in DRAWING}
    try:
        with atomic_folder(out, over=over) as folder:
            _write(folder, tensors, None, state)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written ({error.strerror or error})") from error
    return Path(out)


def read(folder: str | Path) -> Checkpoint:
    """A checkpoint by its own folder, every file checked against the manifest.

    Raises ModelError, naming the file, when one is missing, cut short, altered or of a newer version.
    """
    folder = Path(folder)
    manifest = read_json(folder / _MANIFEST)
    _check_version(folder / _MANIFEST, manifest)
    files = manifest.get("files")
    needed = {_MODEL, _STATE}
    if not isinstance(files, dict) or not needed <= set(files) <= needed | {_TRAINING}:
        raise ModelError(f"{folder / _MANIFEST}: the list of files is damaged")
    for name, facts in files.items():
        _check_file(folder / name, as_table(facts, f"{folder / _MANIFEST}: {name}"))
    state = read_json(folder / _STATE, finite=False)  # it may tell the losses of a run that diverged
    _check_version(folder / _STATE, state)
    missing = [key for key in ("step", "model", "data") if key not in state]
    if missing:
        raise ModelError(
            f"{folder / _STATE}: no {', '.join(missing)} in it; it is no checkpoint of this package"
        )
    _check_kinds(Section(state, str(folder / _STATE)))
    return Checkpoint(folder, state)


def _check_kinds(state: Section) -> None:
    """Raise ModelError unless what it tells is of the right kinds; `ModelConfig` checks its own part."""
    state.count("step", least=0)
    state.take("val_loss", float, 0.0)
    state.take("revision", str, "")
    data, drawing = state.section("data"), state.section("sampling", optional=True)
    for key in set(FACTS).intersection(data.left):
        data.take(key, {"codec": str, "codec_hash": str, "frame_rate": float}.get(key, int))
    for key in set(DRAWING).intersection(drawing.left):
        drawing.take(key, int if key == "top_k" else float)


def newest(run: str | Path) -> Checkpoint | None:
    """The newest valid checkpoint of a run, or None. A damaged one is reported in the log and passed over."""
    return next(valid(run, read), None)


def place(path: str | Path) -> Path:
    """The folder of a run or of a checkpoint that a path or a name in the catalogue means.

    Raises UnknownModel when nothing is there, ModelError when it is neither, and for a run of `tune`.
    """
    path = locate(path)
    if not path.exists():
        raise UnknownModel(str(path), CATALOG)
    run = run_in(path)
    if run is not None and run.package != "audiogen-minigpt":
        raise ModelError(run.use)
    if any((path / name).exists() for name in (_MANIFEST, _STATE, FOLDER)):
        return path
    raise ModelError(
        f"{path}: neither a run nor a checkpoint; a run has a folder named {FOLDER!r}. "
        f"Known by name: {', '.join(CATALOG) or 'none'}"
    )


def at(path: str | Path, revision: str) -> Path:
    """The folder of the checkpoint that a recipe names, in a run or in another place.

    Raises ModelError when it is not there.
    """
    folder = Path(path)
    for each in (folder / FOLDER / revision, folder):
        if each.name == revision and each.is_dir():
            return each
    if str(path) in CATALOG or (folder / _STATE).is_file():
        if read(locate(path)).revision == revision:
            return locate(path)
        raise ModelError(
            f"{path}: its revision is not {revision}, which made this file; "
            "install the version that the recipe names"
        )
    raise ModelError(
        f"{path}: the checkpoint {revision} is not there any more; name a place that has it with --model"
    )


def find(path: str | Path, which: str = "last") -> Checkpoint:
    """The checkpoint that a path means: a run's folder, a checkpoint's own, or a name in the catalogue.

    which  of a run: "last", the newest; "best", the one with the lowest loss on validation data; "better",
           the newest unless that was judged and is worse than the best

    Raises ModelError when there is none.
    """
    check_choice("checkpoint", which, ("last", "best", "better"))
    path = place(path)
    if not (path / FOLDER).is_dir():
        return read(path)
    newest_first = valid(path, read)
    last = next(newest_first, None)
    if last is None:
        raise ModelError(f"{path / FOLDER}: no valid checkpoint; train first")
    if which == "last" or (which == "better" and last.state.get("val_loss") is None):
        return last
    scored = [each for each in (last, *newest_first) if each.state.get("val_loss") is not None]
    return min(scored, key=lambda each: float(each.state["val_loss"]), default=last)


def load_model(
    path: str | Path, *, which: str = "last", device: str = "cpu"
) -> tuple[GPT, ModelConfig, dict[str, Any]]:
    """The model of a run or checkpoint, ready to generate: the GPT in eval mode, its config, and its facts.

    The facts are those of `shards.FACTS`, with "step" and "checkpoint" (its revision). Raises ModelError.
    """
    import torch

    from audiogen_minigpt.model import GPT

    saved = find(path, which)
    config, tensors, source = saved.config, saved.model_tensors(), saved.path / _MODEL
    if config.layers > len(tensors):
        raise WeightsError(f"{source}: {len(tensors)} tensors are too few for {config.layers} layers")
    codes, held = config.codebooks * config.codebook_size, sum(tensor.numel() for tensor in tensors.values())
    if config.width * max(config.width, codes) > held:
        raise WeightsError(f"{source}: too small for {config.width} channels and {codes} codes")
    with torch.device("meta"):  # without memory: sizes that are not those of the tensors may be large
        _check_fit(GPT(config), tensors, source)
    with torch.random.fork_rng(devices=[]):
        model = GPT(config)
    load_into(model, tensors, source)
    facts = {**saved.facts, "step": saved.step, "checkpoint": saved.revision}
    return model.to(device).eval(), config, facts


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into all parameters of a model. Raises WeightsError for any that do not match."""
    from audiogen_minigpt.ranks import put

    _check_fit(model, tensors, source)
    for name, parameter in model.named_parameters():
        put(parameter, tensors[name])


def _check_fit(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    parameters = dict(model.named_parameters())
    missing = sorted(set(parameters) - set(tensors))
    unexpected = sorted(set(tensors) - set(parameters))
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            f"{source}: the weights do not fit the model; missing: {', '.join(missing[:10]) or 'none'}; "
            f"unexpected: {', '.join(unexpected[:10]) or 'none'}; "
            f"misshapen: {'; '.join(misshapen[:10]) or 'none'}"
        )


def sampling_of(model: str | Path) -> Sampling:
    """How codes of a model are drawn unless somebody says otherwise; read from its folder alone."""
    folder = locate(model)
    try:
        return Checkpoint(folder, read_json(folder / _STATE, finite=False)).sampling
    except (ModelError, OptionError, TypeError):  # whoever loads the model says what is wrong
        return SAMPLING


def _write(
    folder: Path, model: Mapping[str, Tensor], training: Mapping[str, Tensor] | None, state: Mapping[str, Any]
) -> None:
    """Write the files of a checkpoint into a folder; without `training` it is one for generating alone."""
    files = {_MODEL: _write_tensors(folder / _MODEL, model)}
    if training is not None:
        files[_TRAINING] = _write_tensors(folder / _TRAINING, training)
    files[_STATE] = _write_json(folder / _STATE, state)
    _write_json(folder / _MANIFEST, {"format_version": FORMAT_VERSION, "files": files})


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors as safetensors. Returns what the manifest says of the file."""
    arrays = {name: StoredArray.of(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}
    digest = write_safetensors(path, arrays)
    return {"size": path.stat().st_size, "sha256": digest}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """What `_write_tensors` wrote. Raises WeightsError when the file is damaged."""
    import torch

    stored = weights.read(path)
    return {name: torch.from_numpy(np.array(stored[name])) for name in stored}


def _write_json(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    payload = json.dumps(value, indent=2).encode()
    path.write_bytes(payload)
    return {"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}


def _check_version(path: Path, table: Mapping[str, Any]) -> None:
    version = table.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {version}, but this package reads up to {FORMAT_VERSION}; "
            "update audiogen-minigpt"
        )


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: the file is missing")
    size = path.stat().st_size
    if size != facts.get("size"):
        raise ModelError(f"{path}: {size} bytes instead of {facts.get('size')}; it was cut short or replaced")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts.get("sha256"):
            raise ModelError(f"{path}: its content is not what was written (sha256 differs)")


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{folder}: a checkpoint needs {needed / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free; "
            "make some room"
        )


def _versions() -> dict[str, Any]:
    import torch

    return {
        "format_version": FORMAT_VERSION,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
