"""Small changes to a model that were trained on their own (LoRA, arXiv 2106.09685, and its kin).

A file holds for some matrices W of a network a change of low rank, delta = B A, or -xs: U M V' with U and V'
the first singular vectors of W. DoRA then sets the length of rows or columns to what was learned, and BoRA of
both. They are merged into the weights when these are read.

Source: stable-audio-3, models/lora.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import WeightsError
from audiogen_core.formats.safetensors_file import read_safetensors
from audiogen_core.formats.stored import StoredArray
from audiogen_core.lora import Asked as Asked
from audiogen_core.settings import Section, parse_json
from audiogen_core.weights import Rules, Weights, read, read_checkpoint, setting

Floats = NDArray[np.float32]

SUFFIX = ".parametrizations.weight.0."
PARTS = {"dit": "model.", "embedders": "conditioners."}
"""What stands before the modules of a part."""

KINDS: dict[str, tuple[str, ...]] = {
    "lora": (),
    "dora-rows": ("magnitude",),
    "dora-cols": ("magnitude",),
    "bora": ("magnitude_r", "magnitude_c"),
}
"""What each kind has beside its change; each is there with -xs too."""

TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Lora:
    """One of them, unread.

    kind      of `KINDS`
    low       of rank r with the singular vectors of what it changes
    alpha     its change counts alpha / r times
    strength  and this many times; at 0 nothing of it is left, not even learned lengths
    modules   name of a module with the prefix of its part -> its tensors by their own names
    off       parts of names of modules that it is not to change
    """

    source: str
    kind: str
    low: bool
    alpha: float | None
    strength: float
    modules: Mapping[str, Mapping[str, StoredArray]]
    off: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, asked: Asked, off: str = "") -> Lora:
        """From a file. Raises WeightsError when it is none, or of a kind that is not known."""
        path = asked.path
        if path.suffix == ".safetensors":
            tensors, metadata = read_safetensors(path)
            said = parse_json(metadata.get("lora_config", "{}"), f"{path}: lora_config", WeightsError)
        else:
            table = read(path)
            tensors = {name: StoredArray.of(table[name]) for name in table}
            said = setting(read_checkpoint(path), "lora_config") or {}
            said = parse_json(said, f"{path}: lora_config", WeightsError) if isinstance(said, str) else said
        modules: dict[str, dict[str, StoredArray]] = {}
        for name, array in tensors.items():
            module, sign, leaf = name.partition(SUFFIX)
            if not sign or not module.startswith(tuple(PARTS.values())):
                raise WeightsError(f"{path}: {name!r} is no tensor of a LoRA for Stable Audio 3")
            modules.setdefault(module, {})[leaf] = array
        if not modules:
            raise WeightsError(f"{path}: a LoRA without tensors")
        config = Section(said, f"{path}: lora_config")
        stem, low = _kind(config.take("adapter_type", str, "lora"), modules, str(path))
        wanted = {*KINDS[stem], *(("M_xs",) if low else ("lora_A", "lora_B"))}
        for module, own in modules.items():
            if set(own) != wanted:
                raise WeightsError(
                    f"{path}: {module} has {', '.join(sorted(own))}; a {stem}{'-xs' if low else ''} has "
                    f"{', '.join(sorted(wanted))}"
                )
        alpha = config.take("alpha", float, -1.0)
        if not math.isfinite(alpha):
            raise WeightsError(f"{path}: lora_config: alpha must be a finite number, found {alpha}")
        filters = tuple(part.strip().lower() for part in off.split(",") if part.strip())
        return cls(str(path), stem, low, None if alpha < 0 else alpha, asked.strength, modules, filters)

    def changes(self, module: str) -> bool:
        """Whether it does anything to a module."""
        acts = self.strength != 0 and module in self.modules
        name = module.partition(".")[2] if module.startswith("model.") else module
        return acts and not any(each in name for each in self.off)

    def change(self, module: str, weight: Floats, original: Original) -> Floats:
        """A matrix (out, in) with this merged into it. Raises WeightsError when shapes do not fit."""
        rank = self._rank(module, weight)
        tensors = {name: array.read().astype(np.float32) for name, array in self.modules[module].items()}
        if self.low:
            left, right = original.vectors
            delta = np.asarray(left[:, :rank] @ tensors["M_xs"] @ right[:rank], np.float32)
        else:
            delta = tensors["lora_B"] @ tensors["lora_A"]
        changed: Floats = weight + np.float32(self.strength) * np.float32((self.alpha or rank) / rank) * delta
        if self.kind == "dora-rows":
            return tensors["magnitude"].reshape(-1, 1) * changed / (_lengths(changed, 1) + TINY)
        if self.kind == "dora-cols":
            return tensors["magnitude"].reshape(1, -1) * changed / (_lengths(changed, 0) + TINY)
        if self.kind == "bora":
            rows = tensors["magnitude_r"].reshape(-1, 1) * changed / (_lengths(changed, 1) + TINY)
            return tensors["magnitude_c"].reshape(1, -1) * rows / (_lengths(rows, 0) + TINY)
        return changed

    def _rank(self, module: str, weight: Floats) -> int:
        """Of what it changes in a matrix. Raises WeightsError where the shapes do not go together."""
        shapes = {name: array.shape for name, array in self.modules[module].items()}
        first = shapes["M_xs" if self.low else "lora_A"]
        rank, (rows, columns) = first[0] if first else 0, weight.shape
        matrices = {"lora_A": (rank, columns), "lora_B": (rows, rank), "M_xs": (rank, rank)}
        lengths = {"magnitude_r": rows, "magnitude_c": columns, "magnitude": rows}
        if self.kind == "dora-cols":
            lengths["magnitude"] = columns
        fits = all(
            math.prod(shape) == lengths[name] if name in lengths else shape == matrices[name]
            for name, shape in shapes.items()
        )
        if not fits or rank == 0 or (self.low and rank > min(rows, columns)):
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise WeightsError(
                f"{self.source}: {module} is of shape {weight.shape} in this model, and here {told}; this "
                "LoRA is for another size"
            )
        return rank


class Original:
    """A matrix as the model has it, and its singular vectors, which are worked out once."""

    def __init__(self, weight: Floats) -> None:
        self.weight = weight

    @cached_property
    def vectors(self) -> tuple[Floats, Floats]:
        """Left ones in columns, of which the largest number is positive, and right ones in rows."""
        left, _, right = np.linalg.svd(self.weight, full_matrices=False)
        largest = left[np.argmax(np.abs(left), axis=0), np.arange(left.shape[1])]
        signs = np.where(largest < 0, np.float32(-1), np.float32(1))
        return left * signs, right * signs[:, None]


def merged(table: Weights, part: str, loras: Sequence[Lora], rules: Rules) -> Weights:
    """The tensors of a part, with what LoRAs change, one after another in their order.

    table  names are ours, which `rules` make of those of the original

    Raises WeightsError when one changes a module that the part has not.
    """
    prefix, changed = PARTS[part], {}
    modules = {module for lora in loras for module in lora.modules if module.startswith(prefix)}
    for module in sorted(modules):
        stored = f"{module.removeprefix(prefix)}.weight"
        (name,) = Weights({stored: StoredArray((), "float32", lambda: np.zeros(()))}, "").apply(rules)
        if name not in table:
            at = next(lora.source for lora in loras if module in lora.modules)
            raise WeightsError(f"{at}: changes {module}, which this model has not; it is for another one")
        acting = [lora for lora in loras if lora.changes(module)]
        if acting:
            changed[name] = _changed(table, name, module, acting)
    return table.replaced(changed)


def _changed(table: Weights, name: str, module: str, loras: Sequence[Lora]) -> StoredArray:
    shape = table.shape(name)

    def load() -> Any:
        weight = table[name].astype(np.float32).reshape(shape[0], -1)
        original = Original(weight)
        for lora in loras:
            weight = lora.change(module, weight, original)
        return weight.astype(np.float32).reshape(shape)

    return StoredArray(shape, "float32", load)


def _kind(name: str, modules: Mapping[str, Mapping[str, StoredArray]], source: str) -> tuple[str, bool]:
    """Its kind, and whether it is one with singular vectors."""
    stem, low = name.removesuffix("-xs"), name.endswith("-xs")
    if stem == "dora":  # of before rows and columns were told apart, by the shape of its first lengths
        first = next((own["magnitude"].shape for own in modules.values() if "magnitude" in own), ())
        stem = "dora-cols" if len(first) == 2 and first[0] == 1 else "dora-rows"
    if stem not in KINDS:
        known = ", ".join(f"{each}, {each}-xs" for each in KINDS)
        raise WeightsError(f"{source}: the kind {name!r} is not known; there are {known}")
    return stem, low


def _lengths(matrix: Floats, axis: int) -> Floats:
    lengths: Floats = np.sqrt(np.sum(matrix * matrix, axis=axis, keepdims=True))
    return lengths
