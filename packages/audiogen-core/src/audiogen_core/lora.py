"""Adapters: small changes to a model that were trained on their own (LoRA, arXiv 2106.09685, and its kin).

They are merged into the tensors of a checkpoint before a network is filled with these: in float32, strictly,
and one after another, so that a stack of plain ones is their sum. `formats.adapters` reads the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.errors import DownloadError, ModelError, OptionError, UnknownModel, WeightsError
from audiogen_core.formats import packed
from audiogen_core.formats.adapters import CONFIG, MODEL, OLDER, Change, first_ten, read_changes
from audiogen_core.hub import here
from audiogen_core.models import Fetch, find
from audiogen_core.recipe import hash_file
from audiogen_core.runs import run_in
from audiogen_core.values import closed
from audiogen_core.weights import StoredArray, Weights

STRONGEST = 10.0
"""The largest strength, either way, that is taken for no slip."""


@dataclass(frozen=True)
class Asked:
    """A file, folder or hub id, and how strongly it is to act: 0 is not at all, and 1 as it was trained."""

    path: Path
    strength: float = 1.0

    @classmethod
    @closed()
    def of(cls, text: str) -> Asked:
        """From PATH or PATH:STRENGTH; PATH=STRENGTH is the same. Of a run of `tune` it is its adapter.

        Raises OptionError.
        """
        path = Path(text).expanduser()
        if path.exists():
            return cls(_learned(path))
        for sign in ":=":
            name, _, number = str(text).rpartition(sign)
            try:
                strength = float(number)
            except ValueError:
                continue
            if not name:
                continue
            if not -STRONGEST <= strength <= STRONGEST:
                raise OptionError(
                    f"lora takes strengths from -{STRONGEST:g} to {STRONGEST:g}, got {strength:g}", "lora"
                )
            return cls(_learned(Path(name).expanduser()), strength)
        if re.search(r"[:=][^/\\]*$", str(text)):
            raise OptionError(f"lora must be PATH or PATH:STRENGTH, got {text!r}", "lora")
        return cls(path)


def _learned(path: Path) -> Path:
    """The adapter in a run of `tune`; any other path as it is."""
    run = run_in(path)
    return (run and run.adapter) or path


@dataclass(frozen=True)
class Adapter:
    """One adapter, unread: `read` makes it.

    changes   name of a module, as the file has it -> what its matrix is changed by
    joint     what stands between the parts of a name: a dot, or in ComfyUI's files an underscore
    strength  as in `Asked`
    """

    path: Path
    files: tuple[Path, ...]
    changes: Mapping[str, Change]
    strength: float = 1.0
    joint: str = "."


@dataclass(frozen=True)
class Place:
    """Where a matrix lies in a checkpoint: part `index` of `parts` equal ones of a tensor's rows."""

    tensor: str
    index: int = 0
    parts: int = 1


Places = Mapping[str, Place]
"""The matrices of a network that an adapter may change, by the name of their module in the original."""


@closed()
def local(asked: Sequence[str], fetch: Fetch) -> tuple[str, ...]:
    """Adapters that were asked for, by where they are on this machine: those named by a hub id are fetched.

    A hub id is OWNER/NAME, or OWNER/NAME@REVISION, where there is no such path. What is fetched are the
    weights and settings of the repository; where these are one file of weights alone, it is that.

    Raises WeightsError for what is neither there nor allowed to be fetched, DownloadError.
    """
    return tuple(_local(text, fetch) for text in asked)


def _local(text: str, fetch: Fetch) -> str:
    asked = Asked.of(text)
    try:
        found = find({}, asked.path.as_posix(), unlisted=True)
    except UnknownModel:
        return text  # a path, and whoever reads it says what is wrong
    if isinstance(found, Path):
        return text
    try:
        folder = fetch(found)
    except DownloadError:
        raise
    except ModelError as error:
        raise WeightsError(
            f"{asked.path}: no such file or folder; and by its name on the hub: {error}"
        ) from error
    weights = [path for path in folder.glob("*") if path.suffix in _ALONE]
    if len(weights) == 1 and not any((folder / name).exists() for name in (CONFIG, "config.json")):
        folder = weights[0]
    return f"{folder}:{asked.strength!r}"


_ALONE = (".safetensors", ".pth", ".ckpt", ".bin")


@closed()
def hashed(text: str) -> str:
    """What a recipe knows an adapter by that was asked for so: sha256 of each of its files, in order.

    Raises WeightsError when there is none, DownloadError for one of the hub that was not fetched yet.
    """
    (found,) = local([text], here)
    return " ".join(hash_file(path) for path in files(Asked.of(found).path))


def moved(asked: Sequence[str], paths: str | Sequence[str]) -> list[str]:
    """Adapters that were asked for, at other paths, each as strong as it was.

    Raises OptionError unless there is a path for each.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if len(given) != len(asked):
        raise OptionError(f"lora names {len(given)} paths, and {len(asked)} were merged", "lora")
    strengths = [Asked.of(text).strength for text in asked]
    return [f"{path}:{strength!r}" for path, strength in zip(given, strengths, strict=True)]


PAIR = {"coarse": Path("coarse/lora.pth"), "fine": Path("c2f/lora.pth")}
"""VampNet's networks -> where an adapter of each lies in a folder."""


def pair(path: Path) -> dict[str, Path]:
    """The adapters in a folder of VampNet's, by network; none in another."""
    return {network: path / place for network, place in PAIR.items() if (path / place).is_file()}


@closed()
def files(path: Path) -> tuple[Path, ...]:
    """The files that an adapter at a path is made of: its settings, where it has some, and its weights; of
    VampNet's, those of both networks.

    Raises WeightsError when there is none.
    """
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder")
    if path.name in (MODEL, OLDER, CONFIG) and path.with_name(CONFIG).is_file():
        path = path.parent
    if path.name == "lora.safetensors" and path.with_name("config.json").is_file():
        path = path.parent
    if path.is_file():
        return (path,)
    if (path / CONFIG).is_file():
        weights = next((path / name for name in (MODEL, OLDER) if (path / name).is_file()), None)
        if weights is None:
            raise WeightsError(f"{path}: has {CONFIG}, but neither {MODEL} nor {OLDER}")
        return (path / CONFIG, weights)
    if both := pair(path):
        return tuple(both.values())
    versions = [each for each in path.iterdir() if re.fullmatch(r"v\d{1,9}", each.name)]
    newest = sorted(versions, key=lambda each: int(each.name[1:]))[-1:]
    for folder in (path, path / "active", *newest):
        if (folder / "lora.safetensors").is_file():
            if not (folder / "config.json").is_file():
                raise WeightsError(
                    f"{folder}: has lora.safetensors, but not the config.json that goes with it"
                )
            return (folder / "config.json", folder / "lora.safetensors")
    raise WeightsError(
        f"{path}: no adapter in this folder; expected {CONFIG} of peft, lora.safetensors of mlx-audiogen, or "
        "the name of a file"
    )


@closed()
def read(asked: Asked) -> Adapter:
    """An adapter in any of the formats.

    Raises WeightsError for a kind that is not known, half a change, or a rank that is not the one its
    settings say.
    """
    if pair(asked.path):
        raise WeightsError(f"{asked.path}: is for the two networks of a VampNet, and this is another model")
    found = files(asked.path)
    changes, joint = read_changes(found)
    return Adapter(asked.path, found, changes, asked.strength, joint)


def merged(
    table: Weights, adapters: Sequence[Adapter], places: Places, *, bits: int | None = None
) -> Weights:
    """The tensors of a checkpoint with adapters in them, in their order; read when they are asked for.

    places  where the matrices of the network are; an adapter's names may lack the beginning of these, all the
            same one, as those of one that was made for a part of the model do
    bits    of matrices that mlx packed: these are taken apart, changed, and packed anew

    Raises WeightsError when a change of one does not fit, naming the first ten.
    """
    if bits is not None:
        return _merged_packed(table, adapters, places, bits)
    changes: dict[str, list[tuple[Place, Change, Adapter]]] = {}
    for adapter in adapters:
        for name, change in _fitted(adapter, places, table).items():
            if adapter.strength:
                place = places[name]
                changes.setdefault(place.tensor, []).append((place, change, adapter))
    return table.replaced({name: _changed(table.stored(name), each) for name, each in changes.items()})


def _merged_packed(table: Weights, adapters: Sequence[Adapter], places: Places, bits: int) -> Weights:
    """As `merged`, where matrices may be packed."""

    def floats(name: str) -> StoredArray:
        rows, words = table.shape(name)

        def load() -> Any:
            matrix, scales, offsets = (table[name + ending] for ending in packed.ENDINGS)
            return packed.unpacked(matrix, scales, offsets, bits)

        return StoredArray((rows, words * 32 // bits), "float32", load)

    def again(name: str, matrix: StoredArray) -> dict[str, StoredArray]:
        def part(index: int, ending: str) -> StoredArray:
            kind = "float32" if ending else "uint32"
            return StoredArray(
                table.shape(name + ending), kind, lambda: packed.packed(matrix.read(), bits)[index]
            )

        return {name + ending: part(index, ending) for index, ending in enumerate(packed.ENDINGS)}

    names = {place.tensor for place in places.values() if f"{place.tensor}.scales" in table}
    apart = table.replaced({name: floats(name) for name in names})
    changed = merged(apart, adapters, places)
    kept = {name: table.stored(name) for name in names}
    for name in names:
        if changed.stored(name) is not apart.stored(name):
            kept |= again(name, changed.stored(name))
    return changed.replaced(kept)


def _fitted(adapter: Adapter, places: Places, table: Weights) -> dict[str, Change]:
    """Its changes by the names of `places`. Raises WeightsError unless each fits."""
    spelled = {name.replace(".", adapter.joint): name for name in places}
    first = next(iter(adapter.changes))
    lacking = {
        name.removesuffix(first)
        for name in spelled
        if f"{adapter.joint}{name}".endswith(adapter.joint + first)
    }
    outside = {
        prefix: [name for name in adapter.changes if prefix + name not in spelled]
        for prefix in lacking or {""}
    }
    prefix = min(outside, key=lambda each: (len(outside[each]), len(each)))
    if outside[prefix]:
        raise WeightsError(
            f"{adapter.path}: {len(outside[prefix])} of the {len(adapter.changes)} modules that it changes "
            f"are not in this model, so it is for another one: {first_ten(outside[prefix])}"
        )
    fitted = {spelled[prefix + name]: change for name, change in adapter.changes.items()}
    wrong = [
        f"{name} {change.shape} instead of {shape}"
        for name, change in fitted.items()
        if change.shape != (shape := _shape(places[name], table))
    ]
    if wrong:
        raise WeightsError(
            f"{adapter.path}: {len(wrong)} of the {len(fitted)} matrices that it changes are of another size "
            f"in this model, so it is for another one: {first_ten(wrong)}"
        )
    return fitted


def _shape(place: Place, table: Weights) -> tuple[int, int]:
    rows, *others = table.shape(place.tensor)
    return rows // place.parts, math.prod(others)


def _changed(stored: StoredArray, changes: Sequence[tuple[Place, Change, Adapter]]) -> StoredArray:
    def load() -> Any:
        whole = np.array(stored.read(), np.float32).reshape(stored.shape[0], -1)
        for place, change, adapter in changes:
            rows = len(whole) // place.parts
            own = slice(place.index * rows, (place.index + 1) * rows)
            with np.errstate(over="ignore", invalid="ignore"):
                whole[own] = change.applied(whole[own], adapter.strength)
            if not np.isfinite(whole[own]).all():
                raise WeightsError(
                    f"{adapter.path}: {place.tensor} holds NaN or infinity with it; the file is damaged"
                )
        return whole.reshape(stored.shape)

    return StoredArray(stored.shape, "float32", load)
