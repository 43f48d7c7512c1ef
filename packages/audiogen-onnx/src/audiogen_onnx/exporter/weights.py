"""Upstream's checkpoints -> the tensors of `model.VampNet`, strictly.

The original adds its low-rank updates to the weights whenever a model is put to use, so what sounds like the
original is W + B A / 8 for every checkpoint, the base ones included. A `lora.pth` holds what training made of
B and A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiogen_core import weights
from audiogen_core.codec import Codec
from audiogen_core.codecs import dac
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.lora import Asked
from audiogen_core.ops import resolve
from audiogen_core.weights import Drop, FuseWeightNorm, Network, Rename, Rules, StoredArray, Weights
from audiogen_onnx.exporter.config import LORA_RANK, NetworkConfig, from_metadata
from audiogen_onnx.exporter.model import Checkpoint, VampNet
from audiogen_onnx.vampnet.lora import upstream_name

Array = NDArray[np.float32]
Updates = Mapping[str, tuple[Array, Array]]
"""Matrix -> A (8, in), B (out, 8)."""

NETWORK = Network(r"(embedding|transformer|classifier)\.")
"""How the tensors of a network's checkpoint are known, and those of a lora.pth."""

NAMES: Rules = (
    FuseWeightNorm(r"classifier\.layers\.0"),
    Rename(r"^classifier\.layers\.0\.", "classifier."),
    Rename(r"^embedding\.special\.MASK$", "embedding.mask"),
    Rename(r"^embedding\.out_proj\.", "embedding.project."),
    Rename(r"^transformer\.layers\.0\.self_attn\.relative_attention_bias\.", "position_bias."),
    Rename(r"^transformer\.", ""),
    Rename(r"\.norm_1\.", ".attention_norm."),
    Rename(r"\.norm_3\.", ".feed_forward_norm."),
    Rename(r"\.self_attn\.", ".attention."),
    Rename(r"\.attention\.w_qs\.", ".attention.query."),
    Rename(r"\.attention\.w_ks\.", ".attention.key."),
    Rename(r"\.attention\.w_vs\.", ".attention.value."),
    Rename(r"\.attention\.fc\.", ".attention.output."),
    Rename(r"\.feed_forward\.w_1\.", ".feed_forward.up."),
    Rename(r"\.feed_forward\.w_2\.", ".feed_forward.down."),
    Drop(r"ctrl_encoder\..*", "controls: the original never passes any when it generates"),
)
"""Upstream's names -> ours, for a network's checkpoint and for a lora.pth."""

_LORA = re.compile(r"(.*)\.lora_([AB])")


def load(path: str | Path, vectors: Array, lora: str | Path | None = None) -> Checkpoint:
    """A network from coarse.pth, c2f.pth or a fine-tune of one, with its low-rank updates in its weights.

    vectors  the codec's, float32 (codebooks, codebook_size, dimension); the network reads the first K
    lora     a lora.pth to put in place of the checkpoint's own low-rank updates, or PATH:STRENGTH: at 1
             wholly, at 0 not at all, and between as far on the way from the one to the other

    Raises ModelError when the file is another kind of model or does not fit the codec, WeightsError when a
    tensor is missing, left over, misshapen or not finite, in the file or in the lora.pth.
    """
    return merged(*load_apart(path, vectors), lora)


def merged(checkpoint: Checkpoint, updates: Updates, lora: str | Path | None = None) -> Checkpoint:
    """A network whose low-rank updates, or a lora.pth in their place, are added to its weights; as `load`."""
    deltas = {name: b @ a / np.float32(LORA_RANK) for name, (a, b) in updates.items()}
    if lora is not None:
        asked = Asked.of(str(lora))
        strength = np.float32(asked.strength)
        for name, (a, b) in _overlay(
            asked.path, {name: values.shape for name, values in checkpoint.tensors.items()}
        ).items():
            own = (1 - strength) * deltas.get(name, np.zeros((), np.float32))
            deltas[name] = own + strength * (b @ a / np.float32(LORA_RANK))
    return _plus(checkpoint, deltas)


def apart(checkpoint: Checkpoint, path: Path) -> tuple[Checkpoint, Updates]:
    """A network without the low-rank updates that are in its weights, and these, as `save_updates` wrote them
    to `path`: what `merged` put together, but for rounding. Raises WeightsError."""
    updates = _overlay(path, {name: values.shape for name, values in checkpoint.tensors.items()})
    less = {name: b @ a / np.float32(-LORA_RANK) for name, (a, b) in updates.items()}
    return _plus(checkpoint, less), updates


def _plus(checkpoint: Checkpoint, deltas: Mapping[str, Array]) -> Checkpoint:
    """The network, its matrices changed."""
    for name, delta in deltas.items():
        checkpoint.tensors[f"{name}.weight"] = checkpoint.tensors[f"{name}.weight"] + delta
    return checkpoint


def load_apart(path: str | Path, vectors: Array) -> tuple[Checkpoint, Updates]:
    """A network without its low-rank updates, and these: matrix -> A (8, in), B (out, 8). Raises as load."""
    config = from_metadata(metadata(path), str(path))
    check_codec(config, vectors, str(path))
    shapes = _shapes(config)
    stored = weights.read_network(path, NETWORK).apply(NAMES)
    updates = _updates(stored, shapes)
    tensors = stored.take_all(shapes)
    stored.finish()
    masks = tensors.pop("embedding.mask")
    tables = np.concatenate([vectors[: config.codebooks], masks[:, None]], axis=1)
    tensors["embedding.tables"] = np.ascontiguousarray(tables, np.float32)
    tensors["embedding.project.weight"] = tensors["embedding.project.weight"][..., 0]
    tensors["classifier.weight"] = _by_codebook(tensors["classifier.weight"][..., 0], config)
    tensors["classifier.bias"] = _by_codebook(tensors["classifier.bias"], config)
    return Checkpoint(config, tensors), updates


def save_updates(updates: Updates, path: Path) -> Path:
    """Write low-rank updates by the names of a lora.pth, which takes their place later. Returns the path."""
    named = {
        f"{upstream_name(name)}.lora_{half}": StoredArray.of(value)
        for name, both in sorted(updates.items())
        for half, value in zip("AB", both, strict=True)
    }
    write_safetensors(path, named)
    return path


def load_codec(path: str | Path, ops: str = "torch") -> Codec:
    """The codec of codec.pth, over some ops.

    Raises ModelError or WeightsError for anything but LAC of one channel with codebooks of one width: a
    network's checkpoint, or the codec LAC descends from, DAC.
    """
    facts = metadata(path)
    if "encoder_rates" not in facts:
        raise ModelError(f"{path}: is no codec, but VampNet's codec.pth belongs here")
    widths = facts.get("codebook_dim")
    if isinstance(widths, list | tuple) and len(set(widths)) > 1:
        raise ModelError(f"{path}: has codebooks of different widths, which VampNet cannot read")
    return dac.load_audiotools(Path(path), resolve(ops), family="lac")


def metadata(path: str | Path) -> Mapping[str, Any]:
    """The settings a checkpoint was built with (`metadata.kwargs`). Raises ModelError when it has none."""
    tree = weights.setting(weights.read_checkpoint(path), "metadata")
    facts = tree.get("kwargs") if isinstance(tree, dict) else None
    if not isinstance(facts, dict):
        raise ModelError(
            f"{path}: {weights.read(path).begins()}carries no settings (metadata.kwargs), so it is no "
            "checkpoint of VampNet"
        )
    return facts


def _shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint must hold, but for low-rank updates."""
    with torch.device("meta"):  # one layer shows the shapes of all, however many a damaged file claims
        net = VampNet(replace(config, layers=1))
    shapes = {
        name.replace("layers.0.", f"layers.{layer}."): tuple(values.shape)
        for layer in range(config.layers)
        for name, values in net.named_parameters()
    }
    # The codec's vectors are no part of a network's checkpoint, which adds the ones of masked places.
    del shapes["embedding.tables"]
    shapes["embedding.mask"] = (config.codebooks, config.codebook_dim)
    for name in ("embedding.project.weight", "classifier.weight"):  # upstream: convolutions of one tap
        shapes[name] = (*shapes[name], 1)
    return shapes


def _updates(tensors: Weights, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Array, Array]]:
    """Matrix -> (A (8, in), B (out, 8)) for each pair of low-rank factors. Raises WeightsError."""
    updates = {}
    for name in {match[1] for match in map(_LORA.fullmatch, tensors) if match}:
        shape = shapes.get(f"{name}.weight", ())
        if not name.startswith("layers.") or len(shape) != 2:
            raise WeightsError(
                f"{tensors.source}: a low-rank update of {name}, which this network does not have"
            )
        rows, columns = shape
        a = tensors.take(f"{name}.lora_A", (LORA_RANK, columns))
        updates[name] = (a, tensors.take(f"{name}.lora_B", (rows, LORA_RANK)))
    return updates


def _overlay(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Array, Array]]:
    """The updates of a lora.pth, which holds nothing else."""
    tensors = weights.read_network(path, NETWORK).apply([rule for rule in NAMES if isinstance(rule, Rename)])
    others = [name for name in tensors if not _LORA.fullmatch(name)]
    if others:
        raise WeightsError(
            f"{path}: holds more than low-rank updates ({others[0]}); a whole fine-tune takes the place of "
            "coarse.pth or c2f.pth itself"
        )
    return _updates(tensors, shapes)


def _by_codebook(values: Array, config: NetworkConfig) -> Array:
    """Rows ordered (code, codebook), as upstream keeps them -> (codebook, code)."""
    shape = (config.codebook_size, config.predicted_codebooks, *values.shape[1:])
    return np.ascontiguousarray(values.reshape(shape).swapaxes(0, 1).reshape(values.shape))


def check_codec(config: NetworkConfig, vectors: Array, where: str) -> None:
    """Raise ModelError unless a codec's vectors are those a network reads; `where` names it."""
    count, size, dim = vectors.shape
    if size != config.codebook_size or dim != config.codebook_dim or count < config.codebooks:
        raise ModelError(
            f"{where}: reads {config.codebooks} codebooks of {config.codebook_size} x {config.codebook_dim}, "
            f"the codec has {count} of {size} x {dim}; the files do not belong together"
        )
