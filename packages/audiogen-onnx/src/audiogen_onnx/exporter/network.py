"""VampNet's network as an ONNX graph.

What is named in `functions` comes from there; here are the products with weights and the order of things.
The network itself, to be read first, is `model.VampNet`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_onnx.exporter import functions
from audiogen_onnx.exporter.graph import IR_VERSION, GraphWriter, save
from audiogen_onnx.exporter.model import Checkpoint
from onnx import TensorProto, helper


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
