"""The names of tensors: how each published layout becomes ours, and ours fills the network.

Rules rename, split and drop tensors of a layout; they are data. `load_dit` then takes every parameter of the
network by its name and shape, and whatever is left over is an error. Tensors are read one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiogen_core.codecs.oobleck import IN_STABLE_AUDIO_TOOLS
from audiogen_core.errors import WeightsError
from audiogen_core.formats.rules import apply_rules
from audiogen_core.lora import Adapter, Place, Places, merged
from audiogen_core.weights import (
    Drop,
    Int8Rows,
    Network,
    Rename,
    Rules,
    StoredArray,
    Weights,
    read,
    read_network,
    read_networks,
)
from audiogen_mlx.nn import Pieces, load_strict
from audiogen_mlx.stable_audio.config import DitConfig
from audiogen_mlx.stable_audio.model import DiT

_ROTARY = Drop(r"transformer\.rotary_pos_emb\.inv_freq", "worked out from the width of a head")

STABLE_AUDIO_TOOLS: Rules = (
    _ROTARY,
    Rename(r"^timestep_features\.weight$", "time_frequencies"),
    Rename(r"^to_timestep_embed\.", "time_embed."),
    Rename(r"^to_cond_embed\.", "cond_embed."),
    Rename(r"^to_global_embed\.", "global_embed."),
    Rename(r"^(pre|post)process_conv\.", r"\1process."),
    Rename(r"^transformer\.global_cond_embedder\.", "modulation."),
    Rename(r"^transformer\.pos_emb\.emb\.weight$", "positions"),
    Rename(r"^transformer\.", ""),
    Rename(r"\.pre_norm\.", ".self_norm."),
    Rename(r"\.cross_attend_norm\.", ".cross_norm."),
    Rename(r"_norm\.gamma$", "_norm.weight"),
    Rename(r"_norm\.beta$", "_norm.bias"),
    Rename(r"_attn\.to_(qkv|q|kv|out)\.", r"_attn.\1."),
    Rename(r"\.ff\.ff\.0\.proj\.", ".ff.inner."),
    Rename(r"\.ff\.ff\.2\.", ".ff.out."),
    Rename(r"\.to_scale_shift_gate$", ".modulation"),
    Rename(r"\.(self|cross)_attn_scale\.scale$", r".\1_scale"),
    Rename(r"\.ff_scale\.scale$", ".ff_scale"),
    Rename(r"_embed\.0\.", "_embed.first."),
    Rename(r"_embed\.2\.", "_embed.second."),
    Rename(r"^modulation\.0\.", "modulation.first."),
    Rename(r"^modulation\.2\.", "modulation.second."),
)
"""Names of stable-audio-tools' DiffusionTransformer, after `model.model.`."""

DIFFUSERS: Rules = (
    Rename(r"^time_proj\.weight$", "time_frequencies"),
    Rename(r"^timestep_proj\.", "time_embed."),
    Rename(r"^cross_attention_proj\.", "cond_embed."),
    Rename(r"^global_proj\.", "global_embed."),
    Rename(r"^(pre|post)process_conv\.", r"\1process."),
    Rename(r"^proj_(in|out)\.", r"project_\1."),
    Rename(r"^transformer_blocks\.", "layers."),
    Rename(r"\.norm1\.", ".self_norm."),
    Rename(r"\.norm2\.", ".cross_norm."),
    Rename(r"\.norm3\.", ".ff_norm."),
    Rename(r"\.attn1\.", ".self_attn."),
    Rename(r"\.attn2\.", ".cross_attn."),
    Rename(r"_attn\.to_([qkv])\.", r"_attn.\1."),
    Rename(r"_attn\.to_out\.0\.", "_attn.out."),
    Rename(r"\.ff\.net\.0\.proj\.", ".ff.inner."),
    Rename(r"\.ff\.net\.2\.", ".ff.out."),
    Rename(r"_embed\.0\.", "_embed.first."),
    Rename(r"_embed\.2\.", "_embed.second."),
)
"""Names of diffusers' StableAudioDiTModel."""

EMBEDDERS: Rules = (
    Rename(r"\.embedder\.embedding\.0\.weights$", ".frequencies"),
    Rename(r"\.embedder\.embedding\.1\.", ".out."),
    Rename(r"\.int_embedder\.weight$", ".table"),
)
"""Names of stable-audio-tools' conditioners, after `conditioner.conditioners.`."""

DIFFUSERS_EMBEDDERS: Rules = (
    Rename(r"^text_projection\.", "prompt.proj_out."),
    Rename(r"^start_number_conditioner\.", "seconds_start."),
    Rename(r"^end_number_conditioner\.", "seconds_total."),
    Rename(r"\.time_positional_embedding\.0\.weights$", ".frequencies"),
    Rename(r"\.time_positional_embedding\.1\.", ".out."),
)
"""Names of diffusers' StableAudioProjectionModel."""

_DIT = Network(r"transformer\.layers\.", usual=tuple(f"{outer}model.model." for outer in Network.usual))
_CONDITIONERS = Network(r"\w+\.", below="conditioner.conditioners.")
_NETWORKS = {"dit": _DIT, "embedders": _CONDITIONERS, "vae": IN_STABLE_AUDIO_TOOLS}
"""The parts of a model in a checkpoint of stable-audio-tools."""

_IN_DIFFUSERS = {
    "transformer": Network(r"transformer_blocks\."),
    "projection_model": Network(r"\w+_conditioner\."),
}

SQUEEZED = ("preprocess.weight", "postprocess.weight", "time_frequencies")
"""Convolutions of one tap and a column, which some layouts store with a last axis of size one."""


ORIGINAL_MODULES: Rules = (
    Rename(r"^(layers|project_in|project_out)\b", r"transformer.\1"),
    Rename(r"^modulation\.", "transformer.global_cond_embedder."),
    Rename(r"\.modulation$", ".to_scale_shift_gate"),
    Rename(r"_attn\.(qkv|q|kv|out)$", r"_attn.to_\1"),
    Rename(r"\.ff\.inner$", ".ff.ff.0.proj"),
    Rename(r"\.ff\.out$", ".ff.ff.2"),
    Rename(r"^time_embed\.", "to_timestep_embed."),
    Rename(r"^(cond|global)_embed\.", r"to_\1_embed."),
    Rename(r"^(pre|post)process$", r"\1process_conv"),
    Rename(r"\.first$", ".0"),
    Rename(r"\.second$", ".2"),
)
"""Our modules that have a matrix -> those of stable-audio-tools, after `model.model.`."""

DIFFUSERS_MODULES: Rules = (
    Rename(r"^project_(in|out)$", r"proj_\1"),
    Rename(r"^layers\.", "transformer_blocks."),
    Rename(r"\.self_attn\.", ".attn1."),
    Rename(r"\.cross_attn\.", ".attn2."),
    Rename(r"(\.attn\d\.)([qkv])$", r"\1to_\2"),
    Rename(r"(\.attn\d)\.out$", r"\1.to_out.0"),
    Rename(r"\.ff\.inner$", ".ff.net.0.proj"),
    Rename(r"\.ff\.out$", ".ff.net.2"),
    Rename(r"^time_embed\.", "timestep_proj."),
    Rename(r"^cond_embed\.", "cross_attention_proj."),
    Rename(r"^global_embed\.", "global_proj."),
    Rename(r"^(pre|post)process$", r"\1process_conv"),
    Rename(r"\.first$", ".0"),
    Rename(r"\.second$", ".2"),
)
"""Our modules that have a matrix, or part of one -> those of diffusers."""


@dataclass(frozen=True)
class Tables:
    """The tensors of a checkpoint by part; names of `dit` and `embedders` are ours, of `vae` as stored.

    `embedders` and `vae` are None where a file holds a transformer alone.
    """

    dit: Weights
    embedders: Weights | None
    vae: Weights | None


def read_stable_audio_tools(path: Path) -> Tables:
    """A checkpoint of stable-audio-tools: a whole model, a training checkpoint, or a transformer alone.

    Raises WeightsError when no transformer is there, or tensors belong to no part of a model.
    """
    parts = stored_parts(path)
    embedders = parts.get("embedders")
    return Tables(
        parts["dit"].apply(STABLE_AUDIO_TOOLS),
        None if embedders is None else embedders.apply(EMBEDDERS),
        parts.get("vae"),
    )


def stored_parts(path: Path) -> dict[str, Weights]:
    """The same by part, in its names: "dit"; "embedders" and "vae" if they are there. Raises WeightsError."""
    found = read_networks(path, _NETWORKS)
    if "dit" not in found:
        raise WeightsError(
            f"{path}: {read(path).begins()}holds no Stable Audio transformer: no name starts with "
            "model.model.transformer.layers."
        )
    return {key: table.apply((Int8Rows(),)) for key, table in found.items()}


PREFIXES = {"dit": "model.model.", "embedders": _CONDITIONERS.below, "vae": "pretransform.model."}
"""What names of a part begin with in a whole model of stable-audio-tools."""


def read_diffusers(folder: Path) -> Tables:
    """The parts of a diffusers folder; its VAE is left to the reader of codecs."""
    return Tables(
        stored_diffusers(folder).apply(DIFFUSERS),
        read_network(folder / "projection_model", _IN_DIFFUSERS["projection_model"]).apply(
            DIFFUSERS_EMBEDDERS
        ),
        None,
    )


def stored_diffusers(folder: Path) -> Weights:
    """The network of a diffusers folder, in its names."""
    return read_network(folder / "transformer", _IN_DIFFUSERS["transformer"])


def pieces(config: DitConfig, weights: Weights) -> Pieces:
    """The matrices that are one in the network, and stored as several: in diffusers' layout, of `weights`."""
    apart = {}
    for index in range(config.depth):
        at = f"layers.{index}"
        apart[f"{at}.self_attn.qkv.weight"] = [f"{at}.self_attn.{one}.weight" for one in "qkv"]
        if index < config.cross_layers:
            apart[f"{at}.cross_attn.kv.weight"] = [f"{at}.cross_attn.{one}.weight" for one in "kv"]
    return {whole: parts for whole, parts in apart.items() if whole not in weights}


def with_adapters(config: DitConfig, weights: Weights, adapters: Sequence[Adapter]) -> Weights:
    """The network's tensors with adapters in them, whose modules are stable-audio-tools' or diffusers'.

    Raises WeightsError when one does not fit.
    """
    if not adapters:
        return weights
    for whole, parts in pieces(config, weights).items():
        weights = weights.joined(whole, parts)
    return merged(weights, adapters, matrices(weights))


def changed(config: DitConfig, stored: Weights, rules: Rules, adapters: Sequence[Adapter]) -> Weights:
    """As `with_adapters`, of a network in the names of its layout, which `rules` make ours."""
    ours = stored.apply(rules)
    merged, apart = with_adapters(config, ours, adapters), pieces(config, ours)
    new = {name: merged.stored(name) for name in merged if name in ours}
    for whole in (name for name in merged if name not in ours):
        rows = [ours.shape(part)[0] for part in apart[whole]]
        ends = np.cumsum(rows)
        for part, end, count in zip(apart[whole], ends, rows, strict=True):
            new[part] = _rows(merged.stored(whole), int(end) - count, int(end))
    named = {
        id(ours.stored(name)): name for name in ours
    }  # rules of these layouts rename, and change nothing
    return stored.replaced(
        {name: new[named[id(stored.stored(name))]] for name in stored if id(stored.stored(name)) in named}
    )


def _rows(stored: StoredArray, start: int, stop: int) -> StoredArray:
    shape = (stop - start, *stored.shape[1:])
    return StoredArray(shape, stored.dtype, lambda: stored.read()[start:stop])


def matrices(weights: Weights) -> Places:
    """Where the matrices of the network lie, by both names of their modules."""
    places: dict[str, Place] = {}
    for tensor in weights:
        module, _, leaf = tensor.rpartition(".")
        if leaf != "weight" or len(weights.shape(tensor)) < 2:
            continue
        places[f"model.model.{_called(module, ORIGINAL_MODULES)}"] = Place(tensor)
        stem, _, last = module.rpartition(".")
        parts = last if last in ("qkv", "kv") else (last,)
        for index, part in enumerate(parts):
            at = _called(f"{stem}.{part}" if stem else part, DIFFUSERS_MODULES)
            places[at] = Place(tensor, index, len(parts))
    return places


def _called(module: str, names: Rules) -> str:
    (name,) = apply_rules({module: StoredArray((), "float32", lambda: np.zeros(()))}, names)
    return name


def load_dit(config: DitConfig, weights: Weights, dtype: mx.Dtype = mx.float32) -> DiT:
    """The network with its parameters, all of them taken from `weights` and nothing left over.

    Raises WeightsError that lists what is missing, misshapen, unexpected or not finite.
    """
    model = DiT(config)
    load_strict(
        model,
        weights,
        pieces=pieces(config, weights),
        dtype=dtype,
        keep=lambda name: name == "time_frequencies",  # times are told apart by angles of many turns
        squeezed=SQUEEZED,
    )
    return model
