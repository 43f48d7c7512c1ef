"""Rules: how the names and tensors of another project become ours. Data, applied in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from audiogen_core.errors import WeightsError
from audiogen_core.formats.stored import Array, StoredArray, shorten

Table = dict[str, StoredArray]


@dataclass(frozen=True)
class Rename:
    """Every match of the regex `pattern` in a name becomes `to` (as in re.sub)."""

    pattern: str
    to: str

    def apply(self, table: Table) -> Table:
        changed: Table = {}
        for name, array in table.items():
            add(changed, re.sub(self.pattern, self.to, name), array)
        return changed


@dataclass(frozen=True)
class Drop:
    """Tensors whose whole name matches `pattern` are left out. `reason` tells the reader why."""

    pattern: str
    reason: str

    def apply(self, table: Table) -> Table:
        return {name: array for name, array in table.items() if not re.fullmatch(self.pattern, name)}


@dataclass(frozen=True)
class Split:
    """A tensor whose whole name matches is cut along `axis`, one part per name in `to`.

    `to` are templates of match.expand (\\1, \\g<name>). `sizes` are the extents of the parts;
    None means equal ones.
    """

    pattern: str
    to: tuple[str, ...]
    axis: int = 0
    sizes: tuple[int, ...] | None = None

    def apply(self, table: Table) -> Table:
        changed: Table = {}
        for name, array in table.items():
            match = re.fullmatch(self.pattern, name)
            if match is None:
                add(changed, name, array)
                continue
            for template, part in zip(self.to, self._parts(name, array), strict=True):
                add(changed, match.expand(template), part)
        return changed

    def _parts(self, name: str, array: StoredArray) -> list[StoredArray]:
        extent = array.shape[self.axis] if self.axis < len(array.shape) else -1
        sizes = self.sizes or (extent // len(self.to),) * len(self.to)
        if sum(sizes) != extent or len(sizes) != len(self.to) or min(sizes) < 0:
            raise WeightsError(
                f"tensor {shorten(name)} of shape {array.shape} cannot be split "
                f"into {len(self.to)} along axis {self.axis}"
            )
        starts = np.cumsum((0, *sizes))
        return [self._part(array, int(start), size) for start, size in zip(starts, sizes, strict=False)]

    def _part(self, array: StoredArray, start: int, size: int) -> StoredArray:
        where = (slice(None),) * self.axis + (slice(start, start + size),)
        shape = (*array.shape[: self.axis], size, *array.shape[self.axis + 1 :])
        return StoredArray(shape, array.dtype, lambda: np.ascontiguousarray(array.read()[where]))


@dataclass(frozen=True)
class FuseWeightNorm:
    """Weight norm undone: `X.weight` = g * v / ||v||, the norm over every axis but the first.

    Takes `X.weight_g` with `X.weight_v`, and torch's newer `X.parametrizations.weight.original0`
    with `original1`. Only names that `pattern` matches whole (tested on X) take part.
    Source: Salimans and Kingma 2016, "Weight normalization", equation 2.
    """

    pattern: str = ".*"

    def apply(self, table: Table) -> Table:
        changed: Table = {}
        for name, array in table.items():
            stem, part = _weight_norm_part(name)
            if part is None or not re.fullmatch(self.pattern, stem):
                add(changed, name, array)
            elif part == 1:
                gain, _ = _partner(table, name, 0)
                _check_gain(name, gain, array)
                add(changed, f"{stem}.weight", _fused(gain, array))
            else:
                _partner(table, name, 1)
        return changed


@dataclass(frozen=True)
class Int8Rows:
    """Matrices stored as int8 rows as floats again: `X` times `X.scale`, one number for each row.

    Tensors of other dtypes stay as they are.
    """

    def apply(self, table: Table) -> Table:
        changed: Table = {}
        for name, array in table.items():
            whole = name.removesuffix(".scale")
            if whole != name and whole in table and table[whole].dtype == "int8":
                continue
            scale = table.get(f"{name}.scale")
            add(changed, name, array if array.dtype != "int8" or scale is None else _rows(name, array, scale))
        return changed


Rule = Rename | Drop | Split | FuseWeightNorm | Int8Rows
Rules = Iterable[Rule]

_WEIGHT_NORM = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def apply_rules(table: Mapping[str, StoredArray], rules: Rules) -> Table:
    """The table after every rule, in order; no values are read.

    Raises WeightsError when two tensors get one name, or a split or weight norm does not fit.
    """
    changed = dict(table)
    for rule in rules:
        changed = rule.apply(changed)
    return changed


def add(table: Table, name: str, array: StoredArray) -> None:
    """Put one tensor under a name that must be free."""
    if name in table:
        raise WeightsError(f"two tensors would both be named {shorten(name)}")
    table[name] = array


def _weight_norm_part(name: str) -> tuple[str, int | None]:
    """("encoder.conv", 0 for the gain or 1 for the direction), or (name, None)."""
    for suffixes in _WEIGHT_NORM:
        for part, suffix in enumerate(suffixes):
            if name.endswith(suffix):
                return name.removesuffix(suffix), part
    return name, None


def _partner(table: Table, name: str, part: int) -> tuple[StoredArray, str]:
    for suffixes in _WEIGHT_NORM:
        if name.endswith(suffixes[1 - part]):
            other = name.removesuffix(suffixes[1 - part]) + suffixes[part]
            if other in table:
                return table[other], other
            raise WeightsError(
                f"tensor {shorten(name)} has no partner {shorten(other)}; weight norm needs both"
            )
    raise WeightsError(f"tensor {shorten(name)} is no part of weight norm")


def _check_gain(name: str, gain: StoredArray, direction: StoredArray) -> None:
    expected = (*direction.shape[:1], *(1 for _ in direction.shape[1:]))
    if not direction.shape or gain.shape != expected:
        raise WeightsError(f"the gain of {shorten(name)} has shape {gain.shape}, expected {expected}")


def _rows(name: str, rows: StoredArray, scale: StoredArray) -> StoredArray:
    if not rows.shape or scale.shape != rows.shape[:1]:
        raise WeightsError(f"the scale of {shorten(name)} has shape {scale.shape}, expected {rows.shape[:1]}")

    def load() -> Array:
        factor = scale.read().astype(np.float32).reshape(-1, *(1 for _ in rows.shape[1:]))
        return np.asarray(rows.read().astype(np.float32) * factor)

    return StoredArray(rows.shape, "float32", load)


def _fused(gain: StoredArray, direction: StoredArray) -> StoredArray:
    def load() -> Array:
        v = direction.read().astype(np.float32, copy=False)
        g = gain.read().astype(np.float32, copy=False)
        squares = np.square(v, dtype=np.float64).sum(axis=tuple(range(1, v.ndim)), keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):  # a zero direction gives NaN, refused by take
            scale = (g / np.sqrt(squares)).astype(np.float32)
            return np.asarray(v * scale)

    return StoredArray(direction.shape, "float32", load)
