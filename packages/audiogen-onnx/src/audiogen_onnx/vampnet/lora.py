"""Adapters in an exported VampNet: merged into the numbers of a network's graph when it is opened.

What they change is what training changed: a lora.pth takes the place of the low-rank updates that are in the
weights already, which the folder keeps beside these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, OptionError, WeightsError
from audiogen_core.lora import PAIR, Adapter, Asked, Place, merged, pair, read
from audiogen_core.weights import StoredArray, Weights
from audiogen_onnx import products
from audiogen_onnx.manifest import CHECKPOINTS, Manifest
from audiogen_onnx.products import Float
from audiogen_onnx.session import Change
from audiogen_onnx.tensors import Tensors

UPSTREAM = {
    "attention.query": "self_attn.w_qs",
    "attention.key": "self_attn.w_ks",
    "attention.value": "self_attn.w_vs",
    "attention.output": "self_attn.fc",
    "feed_forward.up": "feed_forward.w_1",
    "feed_forward.down": "feed_forward.w_2",
}
"""The matrices of a layer -> what they are called in a lora.pth."""

_STORED = {
    "feed_forward.up": (("feed_forward.value", "feed_forward.gate"),),
    "feed_forward.down": (("feed_forward.down",), ("feed_forward.narrow",)),
}
"""Matrices of a layer -> the products that they are in a graph, or were before."""

_LAYER = re.compile(r"layers\.(\d+)\..+\.weight(?:\..+)?")
_NAMED = {"coarse": "coarse", "c2f": "fine", "fine": "fine"}
"""What a folder or a file is called -> the network its lora.pth is for."""


class Matrices:
    """The matrices of a network's layers in the tensors of its graph, (out, in) as torch has them."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.layers = 1 + max(
            (int(found[1]) for found in map(_LAYER.fullmatch, tensors) if found), default=-1
        )

    def __iter__(self) -> Iterator[str]:
        """Their names, those of a `lora.pth` too."""
        return (f"layers.{layer}.{part}" for layer in range(self.layers) for part in UPSTREAM)

    def shape(self, name: str) -> tuple[int, int]:
        """Of a matrix, unread."""
        shapes = [self.tensors.shape(f"{each}.weight{self._form(each)}") for each in self._products(name)]
        return sum(outputs for _, outputs in shapes), shapes[0][0]

    def read(self, name: str) -> Float:
        """A matrix as float32."""
        parts = [products.read(self.tensors, each).T for each in self._products(name)]
        return np.ascontiguousarray(np.concatenate(parts))

    def written(self, name: str, matrix: Float) -> Iterator[tuple[str, NDArray[Any]]]:
        """The tensors of a matrix, in the numbers in which it was stored."""
        names = self._products(name)
        for each, part in zip(names, np.split(matrix, len(names)), strict=True):
            try:
                yield from products.written(part.T, each, self._form(each)).items()
            except WeightsError as error:
                raise WeightsError(f"{self.tensors.path}: {error}") from error

    def _form(self, product: str) -> str:
        return products.form_of(self.tensors, product)

    def _products(self, name: str) -> tuple[str, ...]:
        _, layer, part = name.split(".", 2)
        *older, last = ([f"layers.{layer}.{each}" for each in way] for way in _STORED.get(part, ((part,),)))
        return tuple(next((way for way in older if products.holds(self.tensors, way[0])), last))


@dataclass(frozen=True)
class Adapters:
    """The adapters of a VampNet, read.

    of   network -> those that are for it
    own  network -> the updates that are in its weights, if there are any
    """

    of: Mapping[str, Sequence[Adapter]]
    own: Mapping[str, Adapter]

    @classmethod
    def read(cls, asked: Sequence[str], manifest: Manifest, folder: Path) -> Adapters:
        """Those that were asked for, for an exported folder: files and folders that are here.

        Raises WeightsError, OptionError for a file that does not say which network it is for, ModelError for
        a folder whose weights hold updates that it does not tell.
        """
        if asked:
            check_told(manifest, folder)
        of: dict[str, list[Adapter]] = {network: [] for network in PAIR}
        for each in map(Asked.of, asked):
            if both := pair(each.path):
                for network, path in both.items():
                    of[network].append(read(Asked(path, each.strength)))
            else:
                of[_network(each.path)].append(read(each))
        updates = manifest.updates or {}
        own = {name: read(Asked(folder / updates[name].file)) for name in updates if of[name]}
        return cls(of, own)

    def change(self, network: str) -> Change | None:
        """What a session of a network is opened with; None where nothing changes."""
        return partial(self._changed, network) if self.of[network] else None

    def _changed(self, network: str, tensors: Tensors) -> Iterator[tuple[str, NDArray[Any]]]:
        """Tensors of a network by name, in the numbers in which they are stored.

        Raises WeightsError when an adapter is for another network, or makes numbers that cannot be stored.
        """
        matrices, stack = Matrices(tensors), list[Adapter]()
        for adapter in self.of[network]:
            stack.append(adapter)
            if (own := self.own.get(network)) is not None:  # whose place it takes
                less = {name: change for name, change in own.changes.items() if name in adapter.changes}
                stack.append(replace(own, changes=less, strength=-adapter.strength))
        before = Weights(
            {
                name: StoredArray(matrices.shape(name), "float32", partial(matrices.read, name))
                for name in matrices
            },
            str(tensors.path),
        )
        places = {upstream_name(name): Place(name) for name in matrices}
        after = merged(before, [each for each in stack if each.changes], places)
        for adapter in self.of[network]:
            _check_layers(adapter, network, matrices.layers)
        for name in after:
            if after.stored(name) is not before.stored(name):
                yield from matrices.written(name, after[name])


def check_told(manifest: Manifest, folder: Path) -> None:
    """Raise ModelError for a folder whose weights hold updates that it does not tell."""
    if manifest.updates is None and set(CHECKPOINTS.values()) & set(manifest.created_from):
        raise ModelError(
            f"{folder}: was exported by a version that did not keep the low-rank updates apart, whose "
            "place a lora takes; export its checkpoints again, or name the folder of these"
        )


def upstream_name(name: str) -> str:
    """What a matrix of a layer is called in a lora.pth."""
    _, layer, part = name.split(".", 2)
    return f"transformer.layers.{layer}.{UPSTREAM[part]}"


def _check_layers(adapter: Adapter, network: str, layers: int) -> None:
    """Networks may differ in nothing but their layers: the fine one's would fit into the coarse one."""
    numbers = [
        int(found[1]) for name in adapter.changes if (found := re.match(r".*layers\.(\d{1,6})\.", name))
    ]
    if numbers and max(numbers) + 1 < layers:
        raise WeightsError(
            f"{adapter.path}: has {max(numbers) + 1} layers and the {network} network {layers}, so it is for "
            "another one"
        )


def _network(path: Path) -> str:
    """The network that a file is for, as its name says, or that of a folder not far above."""
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder")
    if not path.is_file():
        raise WeightsError(
            f"{path}: no LoRA of a VampNet; expected a folder with {' or '.join(map(str, PAIR.values()))}"
        )
    names = (re.split(r"[._-]", path.stem)[0], *(each.name for each in list(path.parents)[:3]))
    network = next((_NAMED[name] for name in names if name in _NAMED), None)
    if network is None:
        read(Asked(path))  # which says so when it is no LoRA at all
        raise OptionError(
            f"{path}: does not say which network it is for; put it into FOLDER/{PAIR['coarse']} or "
            f"FOLDER/{PAIR['fine']}, and name FOLDER",
            "lora",
        )
    return network
