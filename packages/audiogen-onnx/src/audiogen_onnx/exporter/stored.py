"""Networks out of an exported folder, as float32: what its graphs hold, whatever it was made smaller to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiogen_core.errors import ManifestError
from audiogen_onnx import products
from audiogen_onnx.exporter.config import NetworkConfig
from audiogen_onnx.exporter.model import Checkpoint
from audiogen_onnx.manifest import CodecGeometry, NetworkGeometry
from audiogen_onnx.products import Float
from audiogen_onnx.tensors import Tensors
from audiogen_onnx.vampnet.lora import Matrices


def read(path: Path, network: NetworkGeometry, codec: CodecGeometry) -> Checkpoint:
    """The network of a graph that `network.write` or `quantize` wrote; its low-rank updates are in it.

    Raises ManifestError when the graph is damaged, or none of these.
    """
    graph = Tensors.open(path)
    matrices = Matrices(graph)
    table, vectors = _values(graph, "position_bias.table"), _values(graph, "embedding.vectors")
    rows = codec.codebook_size + 1
    if table.ndim != 2 or vectors.shape[0] != network.codebooks * rows:
        raise ManifestError(f"{path}: is not the network that its folder describes; export it again")
    config = NetworkConfig(
        layers=matrices.layers,
        heads=table.shape[1],
        width=len(_values(graph, "norm.weight")),
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
        "embedding.project.weight": np.ascontiguousarray(products.read(graph, "embedding.project").T),
        "embedding.project.bias": _values(graph, "embedding.project.bias"),
        "position_bias.weight": table,
        "norm.weight": _values(graph, "norm.weight"),
        "classifier.weight": np.ascontiguousarray(products.read(graph, "classifier").T),
        "classifier.bias": _values(graph, "classifier.bias"),
    }
    for layer in range(matrices.layers):
        for name in (f"layers.{layer}.{norm}_norm.weight" for norm in ("attention", "feed_forward")):
            tensors[name] = _values(graph, name)
    tensors |= {f"{name}.weight": matrices.read(name) for name in matrices}
    return Checkpoint(config, tensors)


def _values(tensors: Tensors, name: str) -> Float:
    """A tensor that is no matrix of a product."""
    stored = name if name in tensors else f"{name}.half"
    if stored not in tensors:
        raise ManifestError(f"{tensors.path}: holds no {name}, so it is no network of VampNet")
    return tensors[stored].astype(np.float32)
