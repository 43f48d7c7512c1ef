"""A network and one step of sampling as a single graph, for runtimes where only the loop is written anew.

Randomness is an input, so that every runtime draws the same tokens. The weights are those of the network's
own graph: the step's graph names the same data file.

inputs
    codes             int64 (B, K, T), masked places holding the codebook size
    exponential       float32 (B, T*P, N), exponential with mean 1; the token is the largest of p / noise.
                      All ones take the likeliest token
    uniform           float32 (B, T*P), between 0 and 1, without both
    masked_next       int64 (B, 1), how many places are masked again, less than T*P; 0 in the last step
    temperature       float32, above 0
    mask_temperature  float32, already multiplied by 1 - (step + 1) / steps
outputs
    next_codes        int64 (B, K, T), for the next step
    drawn_codes       int64 (B, K, T), without masks: the result, after the last step
    confidence        float32 (B, P, T), the log probability of what was drawn in this step, else 0

Noise is ordered by frame, then by codebook: place t*P + p.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_onnx.vampnet import functions
from audiogen_onnx.vampnet.graph import save


@dataclass(frozen=True)
class _Sizes:
    """K, P and N of a network's graph."""

    codebooks: int
    predicted: int
    codebook_size: int

    @property
    def given(self) -> int:
        return self.codebooks - self.predicted


def write(network: Path, target: Path) -> None:
    """Write the step's graph of a network's graph, beside it."""
    import onnx

    model = onnx.load(network, load_external_data=False)
    graph = model.graph
    codes, logits = graph.input[0].type.tensor_type.shape.dim, graph.output[0].type.tensor_type.shape.dim
    sizes = _Sizes(codes[1].dim_value, logits[1].dim_value, logits[3].dim_value)
    graph.name = "vampnet_step"
    del graph.output[:]
    graph.input.extend(_inputs(sizes))
    graph.initializer.extend(_constants(sizes))
    graph.node.extend(_nodes(sizes))
    graph.output.extend(_outputs(sizes))
    model.functions.extend(functions.parse(functions.SAMPLE_STEP))
    save(model, target)


def _inputs(sizes: _Sizes) -> list[Any]:
    from onnx import TensorProto, helper

    info, places = helper.make_tensor_value_info, "frames_by_codebooks"
    return [
        info("exponential", TensorProto.FLOAT, ["batch", places, sizes.codebook_size]),
        info("uniform", TensorProto.FLOAT, ["batch", places]),
        info("masked_next", TensorProto.INT64, ["batch", 1]),
        info("temperature", TensorProto.FLOAT, []),
        info("mask_temperature", TensorProto.FLOAT, []),
    ]


def _outputs(sizes: _Sizes) -> list[Any]:
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    return [
        info("next_codes", TensorProto.INT64, ["batch", sizes.codebooks, "frames"]),
        info("drawn_codes", TensorProto.INT64, ["batch", sizes.codebooks, "frames"]),
        info("confidence", TensorProto.FLOAT, ["batch", sizes.predicted, "frames"]),
    ]


def _constants(sizes: _Sizes) -> list[Any]:
    from onnx import numpy_helper

    values = {
        "step.mask": np.array(sizes.codebook_size),
        "step.books": np.array([sizes.given, sizes.predicted]),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _nodes(sizes: _Sizes) -> list[Any]:
    """The step, on the rows of codes that the network makes; the rows it is given stay as they are."""
    from onnx import helper

    given = sizes.given > 0
    made, following, drawn = (
        ("made", "next_made", "drawn_made") if given else ("codes", "next_codes", "drawn_codes")
    )
    noise = ["exponential", "uniform", "masked_next", "temperature", "mask_temperature"]
    nodes = [
        helper.make_node(
            "SampleStep",
            [made, "step.mask", "logits", *noise],
            [following, drawn, "confidence"],
            name="step",
            domain=functions.DOMAIN,
        )
    ]
    if not given:
        return nodes
    split = helper.make_node("Split", ["codes", "step.books"], ["given", made], name="step.split", axis=1)
    joins = [
        helper.make_node("Concat", ["given", part], [whole], name=whole, axis=1)
        for part, whole in ((following, "next_codes"), (drawn, "drawn_codes"))
    ]
    return [split, *nodes, *joins]
