"""Networks out of an exported folder, as float32: what its graphs hold, whatever it was made smaller to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnx
from audiogen_core.errors import ManifestError
from audiogen_onnx.exporter.config import NetworkConfig
from audiogen_onnx.exporter.model import Checkpoint
from audiogen_onnx.exporter.quantize import BLOCK
from audiogen_onnx.graph_file import check_external_data
from audiogen_onnx.manifest import CodecGeometry, NetworkGeometry
from onnx import numpy_helper

Float = NDArray[np.float32]

_LAYER = re.compile(r"layers\.(\d+)\.attention_norm\.weight(\.half)?")


def read(path: Path, network: NetworkGeometry, codec: CodecGeometry) -> Checkpoint:
    """The network of a graph that `network.write` or `quantize` wrote; its low-rank updates are in it.

    Raises ManifestError when the graph is damaged, or none of these.
    """
    check_external_data(path)
    graph = _Stored(path)
    table, vectors = graph.values("position_bias.table"), graph.values("embedding.vectors")
    rows = codec.codebook_size + 1
    if table.ndim != 2 or vectors.shape[0] != network.codebooks * rows:
        raise ManifestError(f"{path}: is not the network that its folder describes; export it again")
    layers = 1 + max((int(match[1]) for match in map(_LAYER.fullmatch, graph.tensors) if match), default=-1)
    config = NetworkConfig(
        layers=layers,
        heads=table.shape[1],
        width=len(graph.values("norm.weight")),
        codebooks=network.codebooks,
        conditioning_codebooks=network.conditioning_codebooks,
        codebook_size=codec.codebook_size,
        codebook_dim=vectors.shape[1],
        buckets=len(table),
        furthest=len(table) // 2,
        by_distance=True,
    )
    tensors = {
        "embedding.tables": vectors.reshape(network.codebooks, rows, -1),
        "embedding.project.weight": graph.matrix("embedding.project"),
        "embedding.project.bias": graph.values("embedding.project.bias"),
        "position_bias.weight": table,
        "norm.weight": graph.values("norm.weight"),
        "classifier.weight": graph.matrix("classifier"),
        "classifier.bias": graph.values("classifier.bias"),
    }
    for layer in (f"layers.{index}" for index in range(layers)):
        for name in ("attention_norm", "feed_forward_norm"):
            tensors[f"{layer}.{name}.weight"] = graph.values(f"{layer}.{name}.weight")
        for name in ("query", "key", "value", "output"):
            tensors[f"{layer}.attention.{name}.weight"] = graph.matrix(f"{layer}.attention.{name}")
        halves = [graph.matrix(f"{layer}.feed_forward.{name}") for name in ("value", "gate")]
        tensors[f"{layer}.feed_forward.up.weight"] = np.concatenate(halves)
        down = f"{layer}.feed_forward.down"
        narrow = f"{layer}.feed_forward.narrow"  # what it was called before
        tensors[f"{down}.weight"] = graph.matrix(narrow if graph.has(narrow) else down)
    return Checkpoint(config, tensors)


@dataclass(eq=False)
class _Stored:
    """The tensors of a graph, read when they are asked for."""

    path: Path

    def __post_init__(self) -> None:
        model = onnx.load(self.path, load_external_data=False)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def has(self, name: str) -> bool:
        """Whether there is a product of that name."""
        return any(tensor.startswith(f"{name}.weight") for tensor in self.tensors)

    def values(self, name: str) -> Float:
        """One that is no matrix of a product, or was left in floats."""
        stored = name if name in self.tensors else f"{name}.half"
        return self._array(stored).astype(np.float32)

    def matrix(self, name: str) -> Float:
        """The weight (out, in) of a product, or of a projection."""
        whole, scale = f"{name}.weight.int8", f"{name}.weight.scale"
        if whole in self.tensors:
            weight = self._array(whole).astype(np.float32) * self._array(scale)
        elif f"{name}.weight.int4" in self.tensors:
            numbers = self._array(f"{name}.weight.int4").astype(np.float32)  # (in, out)
            zero = self._array(f"{name}.weight.zero").astype(np.float32)
            blocks = numbers.reshape(-1, BLOCK, numbers.shape[1])
            weight = ((blocks - zero[:, None]) * self._array(scale)[:, None]).reshape(numbers.shape)
        else:
            weight = self.values(f"{name}.weight")
        return np.ascontiguousarray(weight.T, np.float32)

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self.tensors:
            raise ManifestError(f"{self.path}: holds no {name}, so it is no network of VampNet")
        return np.asarray(numpy_helper.to_array(self.tensors[name], str(self.path.parent)))
