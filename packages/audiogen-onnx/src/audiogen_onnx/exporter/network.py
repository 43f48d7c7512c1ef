"""VampNet's network as an ONNX graph, written straight from its tensors: no tracing, no copy in memory.

What is named in `functions` comes from there; here are the products with weights and the order of things.
The network itself, to be read first, is `model.VampNet`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx.external_data_helper import set_external_data

import onnx
from audiogen_onnx.exporter import functions
from audiogen_onnx.exporter.model import Checkpoint
from onnx import TensorProto, helper

IR_VERSION = 10
"""Of the ONNX file format: the oldest that knows the 4-bit numbers of int4 weights."""

PAGE = 4096
"""Large tensors start at multiples of this in their file, so that they can be mapped into memory."""

_INSIDE = 1024
"""Tensors of so few bytes lie in the graph itself."""


@dataclass(eq=False)
class GraphWriter:
    """Nodes in order, and tensors that go to the data file as they come.

    data       the open file of weights
    data_name  what the graph calls it
    """

    data: BinaryIO
    data_name: str
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """Store a tensor. Returns its name."""
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)  # ONNX files are little-endian
        return self.packed(name, kind, values.shape, little.tobytes())

    def packed(self, name: str, kind: int, shape: Sequence[int], raw: bytes) -> str:
        """Store a tensor given as the bytes ONNX keeps of it. Returns its name."""
        tensor = TensorProto(name=name, data_type=kind, dims=shape, raw_data=raw)
        if len(raw) > _INSIDE:
            self.data.write(b"\0" * (-self.data.tell() % PAGE))
            set_external_data(tensor, self.data_name, self.data.tell(), len(raw))
            tensor.ClearField("raw_data")
            self.data.write(raw)
        self.tensors.append(tensor)
        return name

    def node(self, kind: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Add an operator, or a function of ours. Returns its output; nodes are named after it."""
        domain = functions.DOMAIN if kind in functions.NAMES else ""
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output], name=output, domain=domain, **attributes)
        )
        return output

    def product(self, x: str, name: str, weight: NDArray[np.float32]) -> str:
        """x @ weight, the weight (outputs, inputs) as torch keeps it."""
        return self.node("MatMul", [x, self.tensor(f"{name}.weight", weight.T)], name)


def write(checkpoint: Checkpoint, bias_table: NDArray[np.float32], path: Path) -> None:
    """Write a network's graph, and its weights beside it as `NAME.onnx.data`.

    The graph: `codes` int64 (B, K, T) -> `logits` float32 (B, P, T, N).

    bias_table  float32 (2*F+1, H): each head's bias for the distances -F to F, key minus query; further ones
                act as F does
    """
    config, name = checkpoint.config, f"{path.name}.data"
    with path.with_name(name).open("wb") as data:
        writer = GraphWriter(data, name)
        _network(checkpoint, bias_table, writer)
    codes = helper.make_tensor_value_info("codes", TensorProto.INT64, ["batch", config.codebooks, "frames"])
    sizes: list[str | int | None] = ["batch", config.predicted_codebooks, "frames", config.codebook_size]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, sizes)
    model = helper.make_model(
        helper.make_graph(writer.nodes, "vampnet", [codes], [logits], writer.tensors),
        functions=functions.parse(*functions.NETWORK),
        opset_imports=[helper.make_opsetid("", functions.OPSET), helper.make_opsetid(functions.DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="audiogen-onnx",
    )
    save(model, path)


def save(model: Any, path: Path) -> None:
    """Write a model whose tensors lie where it says already; onnx's checker refuses an invalid one."""
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)


def _network(checkpoint: Checkpoint, bias_table: NDArray[np.float32], writer: GraphWriter) -> None:
    config, tensors = checkpoint.config, checkpoint.tensors
    # One table of vectors for all codebooks, so that a single Gather finds them: codebook k begins at row
    # k * (N + 1), its last row being the vector of a masked place.
    rows = config.codebook_size + 1
    embedding = [
        "codes",
        writer.tensor("embedding.offsets", (np.arange(config.codebooks) * rows).reshape(1, -1, 1)),
        writer.tensor("embedding.vectors", tensors["embedding.tables"].reshape(-1, config.codebook_dim)),
        writer.tensor("embedding.project.weight", tensors["embedding.project.weight"].T),
        writer.tensor("embedding.project.bias", tensors["embedding.project.bias"]),
    ]
    x = writer.node("CodebookEmbedding", embedding, "embedding")
    bias = writer.node("PositionBias", ["codes", writer.tensor("position_bias.table", bias_table)], "bias")
    for layer in range(config.layers):
        x = _layer(checkpoint, f"layers.{layer}", x, bias, writer)
    x = _norm(checkpoint, "norm", x, writer)
    x = writer.product(x, "classifier", tensors["classifier.weight"])
    x = writer.node("Add", [x, writer.tensor("classifier.bias", tensors["classifier.bias"])], "classes")
    split = np.array([0, 0, config.predicted_codebooks, config.codebook_size])  # 0: as long as it was
    writer.node("LogitsByCodebook", [x, writer.tensor("classes.shape", split)], "logits")


def _layer(checkpoint: Checkpoint, name: str, x: str, bias: str, writer: GraphWriter) -> str:
    tensors = checkpoint.tensors

    def product(y: str, part: str) -> str:
        return writer.product(y, f"{name}.{part}", tensors[f"{name}.{part}.weight"])

    y = _norm(checkpoint, f"{name}.attention_norm", x, writer)
    y = writer.node("FiLM", [y], f"{name}.attention_film")
    heads = [product(y, f"attention.{part}") for part in ("query", "key", "value")]
    y = writer.node("RelativeAttention", [*heads, bias], f"{name}.attention", heads=checkpoint.config.heads)
    x = writer.node("Add", [x, product(y, "attention.output")], f"{name}.attended")
    y = _norm(checkpoint, f"{name}.feed_forward_norm", x, writer)
    y = writer.node("FiLM", [y], f"{name}.feed_forward_film")
    # The two halves of the wide layer are stored apart: cutting its output would cost a pass over memory.
    value, gate = np.split(tensors[f"{name}.feed_forward.up.weight"], 2)
    halves = [
        writer.product(y, f"{name}.feed_forward.value", value),
        writer.product(y, f"{name}.feed_forward.gate", gate),
    ]
    y = writer.node("GatedGelu", halves, f"{name}.feed_forward")
    return writer.node("Add", [x, product(y, "feed_forward.down")], f"{name}.out")


def _norm(checkpoint: Checkpoint, name: str, x: str, writer: GraphWriter) -> str:
    weight = writer.tensor(f"{name}.weight", checkpoint.tensors[f"{name}.weight"])
    return writer.node("RMSNorm", [x, weight], name, epsilon=checkpoint.config.epsilon)
