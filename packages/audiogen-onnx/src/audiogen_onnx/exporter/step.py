"""A network and one step of sampling as a single graph, for runtimes where only the loop is written anew.

Randomness is an input, so that every runtime draws the same tokens. The weights are those of the network's
own graph: the step's graph names the same data file.

inputs
    codes             int64 (B, K, T), masked places holding the codebook size
    exponential       float32 (B, T*P, N), exponential with mean 1, above 0; the token is the largest of
                      p / noise. All ones take the likeliest token
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

from pathlib import Path
from typing import Any

import numpy as np

import onnx
from audiogen_onnx.exporter import functions
from audiogen_onnx.exporter.graph import save
from onnx import TensorProto, helper, numpy_helper


def write(network: Path, target: Path) -> None:
    """Write the step's graph of a network's graph, beside it."""
    model = onnx.load(network, load_external_data=False)
    graph = model.graph
    codes, logits = (end[0].type.tensor_type.shape.dim for end in (graph.input, graph.output))
    books, predicted, size = codes[1].dim_value, logits[1].dim_value, logits[3].dim_value  # K, P, N
    info, places = helper.make_tensor_value_info, "frames_by_codebooks"
    noise = [
        info("exponential", TensorProto.FLOAT, ["batch", places, size]),
        info("uniform", TensorProto.FLOAT, ["batch", places]),
        info("masked_next", TensorProto.INT64, ["batch", 1]),
        info("temperature", TensorProto.FLOAT, []),
        info("mask_temperature", TensorProto.FLOAT, []),
    ]
    results = [
        info("next_codes", TensorProto.INT64, ["batch", books, "frames"]),
        info("drawn_codes", TensorProto.INT64, ["batch", books, "frames"]),
        info("confidence", TensorProto.FLOAT, ["batch", predicted, "frames"]),
    ]
    graph.name = "vampnet_step"
    graph.input.extend(noise)
    del graph.output[:]  # the logits stay inside
    graph.output.extend(results)
    constants = {"step.mask": np.array(size), "step.books": np.array([books - predicted, predicted])}
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    graph.node.extend(_nodes([part.name for part in noise], given=books > predicted))
    model.functions.extend(functions.parse(functions.SAMPLE_STEP))
    save(model, target)


def _nodes(noise: list[str], *, given: bool) -> list[Any]:
    """The step, on the rows of codes that the network makes; rows that it is given stay as they are."""
    names = ("made", "next_made", "drawn_made") if given else ("codes", "next_codes", "drawn_codes")
    made, following, drawn = names
    step = helper.make_node(
        "SampleStep",
        [made, "step.mask", "logits", *noise],
        [following, drawn, "confidence"],
        name="step",
        domain=functions.DOMAIN,
    )
    if not given:
        return [step]
    split = helper.make_node("Split", ["codes", "step.books"], ["given", made], name="step.split", axis=1)
    joins = [
        helper.make_node("Concat", ["given", part], [whole], name=whole, axis=1)
        for part, whole in ((following, "next_codes"), (drawn, "drawn_codes"))
    ]
    return [split, step, *joins]
