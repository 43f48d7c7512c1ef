"""The names of tensors: how each published layout becomes ours, and ours fills the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.codecs import same
from audiogen_core.codecs.oobleck import IN_STABLE_AUDIO_TOOLS
from audiogen_core.errors import WeightsError
from audiogen_core.weights import (
    Drop,
    Network,
    Rename,
    Rules,
    StoredArray,
    Weights,
    read,
    read_networks,
)
from audiogen_mlx.nn import load_strict, quantize
from audiogen_mlx.stable_audio import weights as open_
from audiogen_mlx.stable_audio_3.config import DitConfig
from audiogen_mlx.stable_audio_3.lora import Lora, merged
from audiogen_mlx.stable_audio_3.model import DiT

_LOCAL = Rename(r"\.to_local_embed\.", ".local_embed.")

STABLE_AUDIO_3: Rules = (_LOCAL, *open_.STABLE_AUDIO_TOOLS)
"""Names of stable-audio-3's DiffusionTransformer, after `model.model.`: Stable Audio Open's, and one more."""

_DIT = Network(r"transformer\.layers\.", usual=tuple(f"{outer}model.model." for outer in Network.usual))
_CONDITIONERS = Network(r"\w+\.", below="conditioner.conditioners.")
_NETWORKS = {"dit": _DIT, "embedders": _CONDITIONERS, "vae": IN_STABLE_AUDIO_TOOLS}
"""The parts of a model in a checkpoint of stable-audio-3."""

DIFFUSERS: Rules = (
    Rename(r"^transformer_blocks\.", "transformer.layers."),
    Rename(r"^proj_(in|out)\.", r"transformer.project_\1."),
    Rename(r"^(global_cond_embedder\.|memory_tokens$|rotary_pos_emb\.)", r"transformer.\1"),
    Rename(r"\.ff\.proj_in\.", ".ff.ff.0.proj."),
    Rename(r"\.ff\.proj_out\.", ".ff.ff.2."),
    *STABLE_AUDIO_3,
)
"""Names of diffusers' StableAudio3DiTModel."""

DIFFUSERS_EMBEDDERS: Rules = (
    Rename(r"^linear\.", "seconds_total.out."),
    Drop(r"freqs", "of the features of seconds, whose bits are known"),
)
"""Names of diffusers' StableAudio3DurationEmbedder."""

_PADDING = "prompt_padding_embedding"

SQUEEZED = ("preprocess.weight", "postprocess.weight")
"""Convolutions of one tap, which are matrices here."""


@dataclass(frozen=True)
class Tables:
    """The tensors of a checkpoint by part, in our names."""

    dit: Weights
    embedders: Weights
    vae: Weights


def with_loras(tables: Tables, loras: Sequence[Lora]) -> Tables:
    """The same with LoRAs merged into the network and the layer that makes a vector of seconds."""
    dit = merged(tables.dit, "dit", loras, STABLE_AUDIO_3)
    return Tables(dit, merged(tables.embedders, "embedders", loras, open_.EMBEDDERS), tables.vae)


def read_stable_audio_3(path: Path) -> Tables:
    """A checkpoint of stable-audio-3. Raises WeightsError when a part is missing, or a tensor of none."""
    found = read_networks(path, _NETWORKS)
    parts = {"dit": "model.model.", "embedders": _CONDITIONERS.below, "vae": "pretransform.model."}
    missing = [prefix for part, prefix in parts.items() if part not in found]
    if missing:
        raise WeightsError(
            f"{path}: {read(path).begins()}no whole Stable Audio 3: no name begins with "
            f"{' or '.join(missing)}"
        )
    return Tables(
        found["dit"].apply(STABLE_AUDIO_3),
        found["embedders"].apply(open_.EMBEDDERS),
        found["vae"].apply(same.STABLE_AUDIO_TOOLS),
    )


def read_diffusers(folder: Path) -> Tables:
    """The parts of a folder of diffusers. Raises WeightsError."""
    stored = read(folder / "transformer")
    seconds = read(folder / "duration_embedder").apply(DIFFUSERS_EMBEDDERS)
    padding = stored.stored(_PADDING)
    dit = stored.apply((Drop(_PADDING, "a conditioner's"), *DIFFUSERS))
    ordered = {name: _ordered(dit.stored(name)) for name in dit if name.endswith(".self_attn.qkv.weight")}
    return Tables(
        dit.replaced(ordered),
        seconds.replaced({"prompt.padding_embedding": padding}),
        read(folder / "vae").apply(same.DIFFUSERS),
    )


def _ordered(matrix: StoredArray) -> StoredArray:
    """Queries, keys and values in our order, where diffusers has both queries, then both keys."""

    def load() -> NDArray[Any]:
        query, second, key, other, value = np.split(matrix.read(), 5)
        return np.concatenate([query, key, value, second, other])

    return StoredArray(matrix.shape, matrix.dtype, load)


def load_dit(
    config: DitConfig, weights: Weights, dtype: mx.Dtype = mx.float32, bits: int | None = None
) -> DiT:
    """The network with its parameters, all of them taken from `weights` and nothing left over.

    Raises WeightsError that lists what is missing, misshapen, unexpected or not finite.
    """
    model = DiT(config)
    if bits is not None:
        quantize(model, bits, biased=True)
    load_strict(model, weights, dtype=dtype, squeezed=SQUEEZED)
    return model
