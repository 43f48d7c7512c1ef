"""Files of adapters: what they change each matrix by, in every format that is in use.

| format | known by |
| --- | --- |
| peft | a folder with adapter_config.json and adapter_model.safetensors or .bin |
| mlx-audiogen | a folder with lora.safetensors and config.json, or of versions v1, v2, ... of it |
| loralib | a file with names that end in .lora_A and .lora_B |
| LoRAW, for Stable Audio | a file with names that end in /lora_down.weight and /lora_up.weight |
| ComfyUI, for Stable Audio | a file with names that begin with lora_unet_ |
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.files import atomic_folder
from audiogen_core.formats.expressions import Expressions
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.settings import Section, read_json
from audiogen_core.weights import StoredArray, Weights, read

Floats = NDArray[np.float32]

CONFIG = "adapter_config.json"
MODEL = "adapter_model.safetensors"
OLDER = "adapter_model.bin"

_LISTED = 10


@dataclass(frozen=True)
class Change:
    """What one matrix W (out, in) is changed by, unread: at a strength w it becomes W + w s B A.

    DoRA (arXiv 2402.09353) then gives each of its rows the length that was learned.

    down, up  A (r, in) and B (out, r)
    scale     s: alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732)
    lengths   those that rows have afterwards, (out,), or None where they are left as they come
    """

    down: StoredArray
    up: StoredArray
    scale: float
    lengths: StoredArray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix it is for."""
        return self.up.shape[0], self.down.shape[1]

    def applied(self, weight: Floats, strength: float) -> Floats:
        """A matrix (out, in) with the change in it; `strength` is not 0."""
        down, up = (each.read().astype(np.float32) for each in (self.down, self.up))
        changed: Floats = weight + np.float32(strength * self.scale) * (up @ down)
        if self.lengths is not None:
            found = np.sqrt(np.sum(changed * changed, axis=1, keepdims=True, dtype=np.float64))
            learned = self.lengths.read().astype(np.float64).reshape(-1, 1)
            changed = (changed * (learned / np.maximum(found, np.finfo(np.float32).tiny))).astype(np.float32)
        return changed


def read_changes(files: Sequence[Path]) -> tuple[dict[str, Change], str]:
    """What the modules of a network are changed by, by their names there; and what stands between the parts
    of a name: a dot, or in ComfyUI's files an underscore.

    files  the weights alone, or after the settings that go with them

    Raises WeightsError for a kind that is not known, half a change, or a rank that is not the one its
    settings say.
    """
    *settings, weights = files
    try:
        if not settings:
            changes, joint = _alone(weights)
        elif settings[0].name == CONFIG:
            changes, joint = _peft(Section(read_json(settings[0]), str(settings[0])), weights), "."
        else:
            changes, joint = _mlx_audiogen(Section.read(settings[0]), weights), "."
    except ModelError as error:
        raise WeightsError(str(error)) from error
    if not changes:
        raise WeightsError(f"{weights}: a LoRA without tensors")
    for name, change in changes.items():
        _check(name, change, weights)
    return changes, joint


_PEFT = re.compile(
    r"(?:base_model\.model\.)?(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.weight)?"
)

_PLAIN_STARTS = (True, False, "true", "false", "gaussian", "orthogonal")
"""Of `init_lora_weights`, how A and B began; others change W too, which the file does not tell."""

_ABOUT = (
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type",
)  # fmt: skip
"""Settings of peft that change nothing about what the tensors mean."""


def _peft(said: Section, path: Path) -> dict[str, Change]:
    """peft's folder; names of modules are those of transformers."""
    kind = said.take("peft_type", str, "LORA")
    if kind != "LORA":
        raise WeightsError(f"{said.where}: an adapter of the kind {kind}; only LORA can be merged here")
    start = said.left.pop("init_lora_weights", True)
    if start is not None and start not in _PLAIN_STARTS:
        raise WeightsError(
            f"{said.where}: init_lora_weights {start!r} changed the model's own matrices before training, "
            "which this file does not tell; have peft convert it to a plain LoRA (save_pretrained with "
            "path_initial_model_for_weight_conversion)"
        )
    rank, alpha = said.count("r", 8), said.take("lora_alpha", float, 8.0)
    ranks, alphas = (_patterns(said.section(f"{each}_pattern", optional=True)) for each in ("rank", "alpha"))
    root, dora = said.take("use_rslora", bool, False), said.take("use_dora", bool, False)
    if (bias := said.take("bias", str, "none")) != "none":
        raise WeightsError(
            f"{said.where}: its biases were trained too (bias {bias!r}), which is not supported"
        )
    said.ignore(*_ABOUT)
    if unknown := sorted(key for key, value in said.left.items() if value):
        raise WeightsError(
            f"{said.where}: {', '.join(unknown[:_LISTED])} is set, which changes what a LoRA is in a way "
            "that is not supported"
        )
    parts = _by_module(read(path), _PEFT.fullmatch, path)
    changes = {}
    for name, own in parts.items():
        embeds = "lora_embedding_A" in own or "lora_embedding_B" in own
        stem = "lora_embedding_" if embeds else "lora_"
        down, up = _pair(own, f"{stem}A", f"{stem}B", name, path)
        if embeds:
            down, up = _transposed(up), _transposed(down)
        try:
            wanted, strength = ranks.value(name, rank), alphas.value(name, alpha)
        except ValueError as error:
            raise WeightsError(f"{path}: its patterns of names cannot be used: {error}") from error
        if down.shape[0] != wanted:
            raise WeightsError(f"{path}: {name} is of rank {down.shape[0]}, its {CONFIG} says {wanted:g}")
        lengths = own.get("lora_magnitude_vector")
        if dora and embeds:
            raise WeightsError(f"{path}: {name} is an embedding with DoRA, which is not supported")
        if (lengths is not None) != dora:
            raise WeightsError(
                f"{path}: {name} {'lacks' if dora else 'has'} the lengths of a DoRA (lora_magnitude_vector), "
                f"and its {CONFIG} says use_dora {str(dora).lower()}"
            )
        changes[name] = Change(down, up, strength / (math.sqrt(wanted) if root else wanted), lengths)
    return changes


def write_peft(
    folder: Path,
    tensors: Mapping[str, NDArray[Any]],
    *,
    rank: int,
    alpha: float,
    base: str,
    card: str,
    dora: bool = False,
) -> Path:
    """Write an adapter as peft's PeftModel.from_pretrained loads it. Returns the folder, which appears whole.

    tensors  module.lora_A (rank, in) and module.lora_B (out, rank), with transformers' names of modules; of a
             DoRA module.lora_magnitude_vector (out,), too
    base     what the model it is for is called
    card     README.md
    """
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "alpha_pattern": {},
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": modules,
        "task_type": None,
        "use_dora": dora,
        "use_rslora": False,
    }
    stored = {
        f"base_model.model.{name}{'' if name.endswith('vector') else '.weight'}": StoredArray.of(value)
        for name, value in tensors.items()
    }
    with atomic_folder(folder, replace=True) as place:
        write_safetensors(place / MODEL, stored, {"format": "pt"})
        (place / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (place / "README.md").write_text(card, encoding="utf-8")
    return folder


def _patterns(said: Section) -> Expressions:
    """What holds for modules whose names end as regular expressions say. Raises WeightsError."""
    try:
        return Expressions({key: said.take(key, float) for key in list(said.left)})
    except ValueError as error:
        raise WeightsError(f"{said.where}: not a pattern of names: {error}") from error


def _mlx_audiogen(said: Section, path: Path) -> dict[str, Change]:
    """mlx-audiogen's: matrices lie the other way round, and names begin at the decoder's layers."""
    rank, alpha = said.count("rank"), said.take("alpha", float)
    parts = _by_module(read(path), re.compile(r"(.+)\.(lora_[ab])").fullmatch, path)
    changes = {}
    for name, own in parts.items():
        down, up = map(_transposed, _pair(own, "lora_a", "lora_b", name, path))
        if down.shape[0] != rank:
            raise WeightsError(f"{path}: {name} is of rank {down.shape[0]}, its config.json says {rank}")
        changes[name] = Change(down, up, alpha / rank)
    return changes


def _alone(path: Path) -> tuple[dict[str, Change], str]:
    """A file without settings: loralib's, LoRAW's or ComfyUI's."""
    table = read(path)
    if any(re.search(r"[/.]lora_(down|up)\.weight$", name) for name in table):
        return _down_up(table, path)
    if any(".parametrizations.weight.0." in name for name in table):
        raise WeightsError(f"{path}: a LoRA of Stable Audio 3, which is for that model alone")
    if any(_PEFT.fullmatch(name) and name.endswith(".weight") for name in table):
        raise WeightsError(f"{path}: a LoRA of peft without its {CONFIG}, which says how strong it is")
    parts = _by_module(table, re.compile(r"(.+)\.(lora_[AB])").fullmatch, path)
    changes = {}
    for name, own in parts.items():
        down, up = _pair(own, "lora_A", "lora_B", name, path)
        changes[name] = Change(down, up, 1 / max(down.shape[0], 1))  # loralib's alpha is 1 where none is said
    return changes, "."


_COMFY = "lora_unet_"


def _down_up(table: Weights, path: Path) -> tuple[dict[str, Change], str]:
    """LoRAW's, which says alpha in the configuration of the model alone, or ComfyUI's, which has it here."""
    whole = {name.replace("/", ".").removeprefix(_COMFY): table.stored(name) for name in table}
    joint = "_" if all(name.startswith(_COMFY) for name in table) else "."
    leaves = r"lora_down\.weight|lora_up\.weight|alpha|dora_scale|dora_mag\.weight|dora_mag\.bias"
    parts = _by_module(Weights(whole, str(path)), re.compile(rf"(.+?)\.({leaves})").fullmatch, path)
    usual = _scale_of_loraw(path)
    changes = {}
    for name, own in parts.items():
        down, up = _pair(own, "lora_down.weight", "lora_up.weight", name, path)
        scale = usual
        if (alpha := own.get("alpha")) is not None:
            if math.prod(alpha.shape) != 1:
                raise WeightsError(f"{path}: {name} has an alpha of shape {alpha.shape}, expected a number")
            scale = float(np.ravel(alpha.read())[0]) / max(down.shape[0], 1)
        changes[name] = Change(down, up, scale, own.get("dora_scale", own.get("dora_mag.weight")))
    return changes, joint


def _scale_of_loraw(path: Path) -> float:
    """alpha / rank, of a table `lora` in the configuration beside it; else 1, as in its examples."""
    beside = [path.with_name(name) for name in (f"{path.stem}.json", "model_config.json", "config.json")]
    said: Any = next(
        (table for each in beside if each.is_file() and (table := read_json(each).get("lora"))), None
    )
    if not isinstance(said, dict):
        return 1.0
    section = Section(said, f"{path}: lora")
    rank = section.count("rank", 16)
    return section.take("alpha", float, float(rank)) / rank


def _by_module(
    table: Weights, split: Callable[[str], re.Match[str] | None], path: Path
) -> dict[str, dict[str, StoredArray]]:
    """Tensors by module and leaf. Raises WeightsError, naming the first ten, for what is of no LoRA."""
    parts: dict[str, dict[str, StoredArray]] = {}
    others = []
    for name in table:
        match = split(name)
        if match is None:
            others.append(name)
        else:
            parts.setdefault(match[1], {})[match[2]] = table.stored(name)
    if others:
        raise WeightsError(
            f"{path}: {len(others)} of its tensors are no parts of a LoRA: {first_ten(others)}"
        )
    return parts


def _pair(
    own: Mapping[str, StoredArray], down: str, up: str, name: str, path: Path
) -> tuple[StoredArray, StoredArray]:
    """Both halves of a change. Raises WeightsError when one is missing."""
    for half, other in ((down, up), (up, down)):
        if half not in own:
            raise WeightsError(f"{path}: {name} has {other}, but not {half}")
    return _matrix(own[down]), _matrix(own[up])


def _matrix(array: StoredArray) -> StoredArray:
    """A convolution of one tap is a matrix."""
    shape = array.shape
    if len(shape) > 2 and math.prod(shape[2:]) == 1:
        return StoredArray(shape[:2], array.dtype, lambda: array.read().reshape(shape[:2]))
    return array


def _transposed(array: StoredArray) -> StoredArray:
    return StoredArray(array.shape[::-1], array.dtype, lambda: array.read().T)


def _check(name: str, change: Change, path: Path) -> None:
    """Raises WeightsError when the tensors of a change do not go together."""
    shapes = [each.shape for each in (change.down, change.up)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != shapes[1][1] or not shapes[0][0]:
        raise WeightsError(
            f"{path}: {name} has halves of {shapes[0]} and {shapes[1]}, which do not go together"
        )
    rows = shapes[1][0]
    if change.lengths is not None and change.lengths.shape not in ((rows,), (rows, 1)):
        raise WeightsError(f"{path}: {name} has lengths of {change.lengths.shape}, expected ({rows},)")
    if not math.isfinite(change.scale):
        raise WeightsError(f"{path}: {name} is scaled by {change.scale}; the file is damaged")


def first_ten(names: Iterable[str]) -> str:
    """The first ten of some names from a file, short enough for a sentence."""
    listed = [name[:120] for name in names]
    return ", ".join(listed[:_LISTED]) + (", ..." if len(listed) > _LISTED else "")
