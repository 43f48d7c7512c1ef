"""Keys and values in 8 bits: what reading them costs grows with every step, and soon exceeds the weights.

Each channel of a head has a scale, found by letting the model make some music and looking at the widest keys
and values. What is wider later is cut off at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import onnx
from audiogen_core import patterns
from audiogen_core.musicgen.conditioning import Rows, combined
from audiogen_core.musicgen.config import Config
from audiogen_core.ops import Float
from audiogen_core.sampling import Sampling
from audiogen_onnx.exporter.graph import save
from audiogen_onnx.musicgen.decoder import Decoder
from audiogen_onnx.musicgen.sampling import Sampler
from onnx import TensorProto, helper, numpy_helper

PROMPTS = (
    "a calm piece for piano and strings",
    "fast electronic dance music with heavy drums and a synthesizer",
    "a rock song with distorted guitars",
)
"""What is made to see how wide keys and values are."""

FRAMES = 150
"""Of each."""

GUIDANCE = 3.0

MARGIN = 1.5
"""How much wider than what was seen the range is: cutting off costs more than a coarser scale."""

_WIDEST = 127


def widest(network: Decoder, texts: Sequence[Float], clip: Float | None) -> dict[str, Float]:
    """The largest magnitudes of keys and values by layer, head and channel, with and without a text.

    texts  vectors (L, width) of each prompt
    clip   of a model that has one, the vectors of no clip, (P, width)
    """
    config, count = network.config, len(texts)
    drafts = [patterns.template(FRAMES, config.delays, config.special)] * count
    tokens = np.pad(np.stack(drafts), ((0, 0), (0, 0), (1, 0)), constant_values=config.special)
    rows = _rows(config, texts, clip)
    sampler = Sampler(Sampling(), config.codebooks, range(count), tokens.shape[2])
    run, current = network.run(rows, tokens.shape[2]), tokens[:, :, :1]
    for step in range(1, tokens.shape[2]):
        logits = combined(run(np.concatenate([current, current]), last=True), GUIDANCE)[:, :, 0]
        drawn = sampler(logits, step)
        wanted = tokens[:, :, step]
        current = np.where(wanted == patterns.UNKNOWN, drawn, wanted)[:, :, None].astype(np.int32)
    found = {name: np.abs(values).max(axis=(0, 2)) for name, values in run.cache.items()}
    run.close()
    return found


def _rows(config: Config, texts: Sequence[Float], clip: Float | None) -> Rows:
    longest = max(map(len, texts))
    padded = [np.pad(text, ((0, longest - len(text)), (0, 0))) for text in texts]
    real = np.arange(longest) < np.array([len(text) for text in texts])[:, None]
    count = 2 * len(texts)
    if not config.text_in_prefix:
        prefix = None if clip is None else np.stack([clip] * count)
        return Rows(count, prefix=prefix, text=np.stack(padded), mask=real)
    before = np.zeros((0, config.width), np.float32) if clip is None else clip
    blank = np.zeros((longest, config.width), np.float32)
    rows = [np.concatenate([before, text]) for text in (*padded, *[blank] * len(texts))]
    return Rows(count, prefix=np.stack(rows))


def shrink(path: Path, found: dict[str, Float]) -> None:
    """Let the graph of a decoder keep keys and values in 8 bits; `found` as `widest` gives it."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for end in (*graph.input, *graph.output):
        if end.name.removeprefix("past_") in found:
            end.type.tensor_type.elem_type = TensorProto.INT8
    for name, widths in found.items():
        scale = np.where(widths > 0, widths, 1) * np.float32(MARGIN / _WIDEST)
        tensor = numpy_helper.from_array(scale.astype(np.float32)[None, :, None, :], f"scale.{name}")
        graph.initializer.append(tensor)
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            keys, values = node.output[1:]
            node.input.extend(["", "", "", "", "", f"scale.{keys}", f"scale.{values}"])
            how = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in how.items())
    save(model, path)
