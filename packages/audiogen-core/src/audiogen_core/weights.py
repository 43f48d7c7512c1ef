"""Weights: the tensors of a checkpoint by name, read strictly.

`read` opens safetensors files (also sharded), torch zip files and archives of numpy; no framework is needed
and nothing in a file can run. Values are read from the disk when they are asked for, one tensor at a
time, so a checkpoint of several gigabytes costs memory only for what is kept.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from audiogen_core.errors import WeightsError
from audiogen_core.formats import wrappers
from audiogen_core.formats.locate import locate
from audiogen_core.formats.npz_file import read_npz
from audiogen_core.formats.rules import (
    Drop,
    FuseWeightNorm,
    Int8Rows,
    Rename,
    Rule,
    Rules,
    Split,
    apply_rules,
)
from audiogen_core.formats.safetensors_file import read_safetensors
from audiogen_core.formats.stored import StoredArray, shorten
from audiogen_core.formats.torch_file import read_torch
from audiogen_core.formats.torch_pickle import plain
from audiogen_core.formats.wrappers import Network
from audiogen_core.values import closed

__all__ = [
    "Drop",
    "FuseWeightNorm",
    "Int8Rows",
    "Network",
    "Rename",
    "Rule",
    "Rules",
    "Split",
    "StoredArray",
    "Weights",
    "read",
    "read_checkpoint",
    "read_network",
    "read_networks",
    "setting",
]

OPENED = ("state_dict.", "best_state.")
"""Below these the names of a torch checkpoint begin where no network is looked for (audiotools and
Lightning; audiocraft)."""

Shape = Sequence[int | None]
"""Sizes a tensor must have; None accepts any size there."""

MAX_NAMES = 8 << 20
"""Characters of all tensor names together. In a torch file one long key can stand before thousands."""

_LISTED = 10


class Weights(Mapping[str, NDArray[Any]]):
    """Tensors by name, in torch's layout. Indexing reads the stored values (bfloat16 as float32).

    A loader calls `take` for every parameter it has and `finish` at the end, so a tensor that is
    missing, misshapen, not finite or left over is always an error.
    """

    def __init__(self, arrays: Mapping[str, StoredArray], source: str) -> None:
        self._arrays = dict(arrays)
        self._left = dict.fromkeys(self._arrays)
        self.source = source

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __repr__(self) -> str:
        return f"<Weights of {self.source}: {len(self)} tensors>"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. Raises WeightsError when it is missing."""
        return self.stored(name).shape

    def dtype(self, name: str) -> str:
        """The dtype as stored ("float32", "bfloat16", ...), without reading the tensor."""
        return self.stored(name).dtype

    def take(self, name: str, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The tensor of exactly that shape, as a contiguous array of `dtype`, marked as used.

        `dtype` None keeps the stored one. Raises WeightsError when the tensor is missing, has
        another shape, is of floats where integers are asked for, or holds NaN or infinity.
        """
        stored = self.stored(name)
        if not _fits(stored.shape, shape):
            raise WeightsError(
                f"{self.source}: {shorten(name)} has shape {stored.shape}, expected {tuple(shape)}"
            )
        values = stored.read()
        if dtype is not None and not np.can_cast(values.dtype, dtype, "same_kind"):
            raise WeightsError(
                f"{self.source}: {shorten(name)} is {stored.dtype}, expected {np.dtype(dtype)}"
            )
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, dtype=dtype).reshape(stored.shape)
        if not _finite(values):
            raise WeightsError(f"{self.source}: {shorten(name)} holds NaN or infinity; the file is damaged")
        self._left.pop(name, None)
        return values

    def take_any(self, names: Sequence[str], shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """As `take`, for the first of several names that exists."""
        found = [name for name in names if name in self._arrays]
        return self.take(found[0] if found else names[0], shape, dtype)

    def take_all(self, shapes: Mapping[str, Shape], dtype: DTypeLike = np.float32) -> dict[str, NDArray[Any]]:
        """As `take` for a whole table of name -> shape; one WeightsError lists every problem."""
        self.check(shapes)
        return {name: self.take(name, shape, dtype) for name, shape in shapes.items()}

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Raises one WeightsError that lists what is missing or misshapen. Reads no values."""
        missing = [name for name in shapes if name not in self._arrays]
        misshapen = [
            f"{name} {self._arrays[name].shape} instead of {tuple(shape)}"
            for name, shape in shapes.items()
            if name in self._arrays and not _fits(self._arrays[name].shape, shape)
        ]
        unexpected = [name for name in self._left if name not in shapes] if missing else []
        problems = {"missing": missing, "misshapen": misshapen, "unexpected": unexpected}
        if missing or misshapen:
            raise WeightsError(
                f"{self.source}: {self.begins(shapes)}the weights do not fit this model: {_listed(problems)}"
            )

    def begins(self, wanted: Iterable[str] = ()) -> str:
        """ "all 36 names begin with module.; ", or "": they begin differently, or as one that is wanted."""
        prefix = wrappers.common(self)
        if not prefix or any(name.startswith(prefix) for name in wanted):
            return ""
        return f"all {len(self)} names begin with {shorten(prefix)[1:-1]}; "

    def networks(self, networks: Mapping[str, Network], *, among: bool = False) -> dict[str, Weights]:
        """Those of some networks that are here, without what training wraps them in (`formats.wrappers`).

        among  other networks may be here too

        Warns of what was taken off, and which of several was taken. Raises WeightsError for tensors that
        belong to none of these networks, unless they are of training or `among` others.
        """
        try:
            places, left = wrappers.find(self._arrays, networks)
        except WeightsError as error:
            raise WeightsError(f"{self.source}: {error}") from error
        if left and places and not among:
            raise WeightsError(
                f"{self.source}: {len(left)} tensors belong to no part of this model: "
                f"{', '.join(shorten(name)[1:-1] for name in left[:_LISTED])}"
            )
        told = [text for key, place in places.items() if (text := _told(place, networks[key]))]
        if told:
            warnings.warn(f"{self.source}: the weights taken are {'; '.join(told)}", stacklevel=4)
        return {
            key: Weights({own: self._arrays[name] for own, name in place.names.items()}, self.source)
            for key, place in places.items()
        }

    def finish(self, ignore: Iterable[str] = ()) -> None:
        """Raises WeightsError when tensors were not taken, but for names an `ignore` regex matches whole."""
        patterns = [re.compile(pattern) for pattern in ignore]
        left = [name for name in self._left if not any(pattern.fullmatch(name) for pattern in patterns)]
        if left:
            raise WeightsError(
                f"{self.source}: the weights do not fit this model: {_listed({'unexpected': left})}"
            )

    def apply(self, rules: Rules) -> Weights:
        """The weights after a table of rules, lazily. Raises WeightsError when a rule does not fit."""
        try:
            return Weights(apply_rules(self._arrays, rules), self.source)
        except WeightsError as error:
            raise WeightsError(f"{self.source}: {error}") from error

    def replaced(self, arrays: Mapping[str, StoredArray]) -> Weights:
        """The same with other tensors under some of its names."""
        return Weights({**self._arrays, **arrays}, self.source)

    def joined(self, whole: str, parts: Sequence[str]) -> Weights:
        """The same with one tensor in the place of several, which lie below one another in it."""
        stored = [self.stored(part) for part in parts]
        shape = (sum(each.shape[0] for each in stored), *stored[0].shape[1:])
        one = StoredArray(shape, stored[0].dtype, lambda: np.concatenate([each.read() for each in stored]))
        kept = {name: array for name, array in self._arrays.items() if name not in parts}
        return Weights(kept | {whole: one}, self.source)

    def below(self, prefix: str) -> Weights:
        """Only the tensors whose names start with `prefix`, and their names without it."""
        kept = {
            name.removeprefix(prefix): array
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }
        return Weights(kept, self.source)

    def stored(self, name: str) -> StoredArray:
        """A tensor, unread. Raises WeightsError when it is missing."""
        if name in self._arrays:
            return self._arrays[name]
        close = get_close_matches(name, list(self._arrays)[:2000], n=1)
        hint = f"; the closest name is {shorten(close[0])}" if close else ""
        raise WeightsError(f"{self.source}: {shorten(name)} is missing among {len(self)} tensors{hint}")


@closed()
def read(path: str | Path) -> Weights:
    """The weights of a file or folder; values stay on the disk until they are taken.

    Reads .safetensors, torch zip files (.pth .bin .th .ckpt .pt), numpy's .npz, shards of the first two
    through `*.index.json`, and a folder that holds one of these two. Of a torch checkpoint that wraps its
    tensors (`state_dict`, `best_state`) the names begin inside; deeper dictionaries join names
    with dots; values that are no tensors are passed over (see `read_checkpoint`).

    Raises WeightsError when nothing suitable is there or a file is not to be trusted.
    """
    return _opened(_whole(path))


def read_network(path: str | Path, network: Network, *, among: bool = False) -> Weights:
    """The weights of one network, out of whatever training wraps it in; see `Weights.networks`.

    Where it is not found they are those of `read`, for the caller to say what does not fit. Raises
    WeightsError as `read` does, and when the network is behind a name that is no wrapper known here.
    """
    whole = _whole(path)
    found = whole.networks({"": network}, among=among or bool(network.below))
    if found:
        return found[""]
    opened = _opened(whole)
    prefix = wrappers.unknown(opened, network)
    if prefix:
        count = sum(name.startswith(prefix) for name in opened)
        many = "all" if count == len(opened) else f"{count} of"
        raise WeightsError(
            f"{opened.source}: {many} {len(opened)} names begin with {shorten(prefix)[1:-1]}, "
            "which is no wrapper known here; save the network without it"
        )
    if any(name.endswith("flat_param") for name in opened):
        raise WeightsError(
            f"{opened.source}: FSDP flattened these weights (flat_param), which it alone can undo; save them "
            "with StateDictType.FULL_STATE_DICT"
        )
    inside = opened.below(network.below)
    if not inside:
        raise WeightsError(
            f"{opened.source}: no tensor's name starts with {network.below!r} among {len(opened)}"
            if len(opened)
            else f"{opened.source}: holds no tensors"
        )
    return inside


def read_networks(path: str | Path, networks: Mapping[str, Network]) -> dict[str, Weights]:
    """The weights of some networks, those that are there; see `Weights.networks`. Raises WeightsError."""
    return _whole(path).networks(networks)


@closed()
def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A torch file as the plain nested dictionary it holds; tensors are unread StoredArray values.

    For packages that carry settings beside weights. Sets read as lists, torch sizes as tuples,
    dtypes and devices as texts. Raises WeightsError as `read` does, or when it holds no dictionary.
    """
    tree = read_torch(path)
    if not isinstance(tree, dict):
        raise WeightsError(f"{path}: holds a {type(tree).__name__}, expected a dictionary")
    return tree


def setting(tree: Mapping[str, Any], key: str) -> Any:
    """What stands under a key of a checkpoint (`read_checkpoint`), at any depth; None when it is nowhere.

    The outermost counts: packages lie whole in files of training.
    """
    level: list[Mapping[str, Any]] = [tree]
    while level:
        for table in level:
            if key in table:
                return plain(table[key])
        level = [value for table in level for value in table.values() if isinstance(value, dict)]
    return None


def _whole(path: str | Path) -> Weights:
    """All tensors of a file or folder, with every key before their names."""
    found = locate(Path(path))
    arrays: dict[str, StoredArray] = {}
    for file, names in found.files.items():
        tensors = _read_file(file)
        if names is not None:
            tensors = _opened(Weights(tensors, ""))._arrays
        if names is not None and set(tensors) != names:
            problems = {"missing": sorted(names - set(tensors)), "unexpected": sorted(set(tensors) - names)}
            raise WeightsError(f"{file}: the shard differs from {found.path.name}: {_listed(problems)}")
        arrays |= tensors
    return Weights(arrays, str(found.path))


def _opened(weights: Weights) -> Weights:
    return next((inside for key in OPENED if (inside := weights.below(key))), weights)


def _told(place: wrappers.Place, network: Network) -> str:
    """What a user has to know of where a network was found, or ""."""
    prefix = place.prefix.removesuffix(network.below)
    if prefix in network.usual and not (place.others or place.passed or place.averaged):
        return ""
    taken, *others = (
        f"{prefix}*" if prefix else "those at the top" for prefix in (place.prefix, *place.others)
    )
    text = taken
    if place.averaged:
        text += f", with their averages for {place.averaged} of {len(place.names)}"
    if others:
        text += f", not {' or '.join(others)}"
    return text + (f", without {place.passed} tensors of training" if place.passed else "")


def _read_file(path: Path) -> dict[str, StoredArray]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    if path.suffix == ".npz":
        return read_npz(path)
    tree = read_checkpoint(path)
    arrays: dict[str, StoredArray] = {}
    try:
        for name, value in _leaves(tree):
            if name in arrays:
                raise WeightsError(f"two tensors are named {shorten(name)}")
            arrays[name] = value
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return arrays


def _leaves(tree: object) -> Iterator[tuple[str, StoredArray]]:
    """Every tensor, its keys joined by dots."""
    joined = 0

    def walk(value: object, name: str) -> Iterator[tuple[str, StoredArray]]:
        nonlocal joined
        if isinstance(value, StoredArray):
            yield name, value
            return
        if not isinstance(value, dict | list | tuple):
            return
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(below, StoredArray | dict | list | tuple):
                joined += len(name) + (len(key) if isinstance(key, str) else 20)
                if joined > MAX_NAMES:
                    raise WeightsError(f"the names of its tensors have more than {MAX_NAMES} characters")
                yield from walk(below, f"{name}.{key}" if name else str(key))

    yield from walk(tree, "")


def _fits(found: tuple[int, ...], expected: Shape) -> bool:
    return len(found) == len(expected) and all(
        want is None or have == want for have, want in zip(found, expected, strict=True)
    )


def _finite(values: NDArray[Any]) -> bool:
    if values.dtype.kind != "f" or not values.size:
        return True
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _listed(problems: Mapping[str, Sequence[str]]) -> str:
    """ "missing (12): a, b, ...; unexpected (1): c", the first ten of each."""
    parts = []
    for kind, names in problems.items():
        if names:
            more = ", ..." if len(names) > _LISTED else ""
            shown = ", ".join(shorten(name)[1:-1] for name in names[:_LISTED])
            parts.append(f"{kind} ({len(names)}): {shown}{more}")
    return "; ".join(parts)
