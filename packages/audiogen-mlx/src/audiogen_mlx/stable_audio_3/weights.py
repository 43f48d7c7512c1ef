"""The names of tensors: how each published layout becomes ours, and ours fills the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from audiogen_core.codecs.oobleck import IN_STABLE_AUDIO_TOOLS
from audiogen_core.errors import WeightsError
from audiogen_core.weights import Network, Rename, Rules, Weights, read, read_networks
from audiogen_mlx.nn import load_strict, quantize
from audiogen_mlx.stable_audio import weights as open_
from audiogen_mlx.stable_audio_3.config import DitConfig
from audiogen_mlx.stable_audio_3.model import DiT

_LOCAL = Rename(r"\.to_local_embed\.", ".local_embed.")

STABLE_AUDIO_3: Rules = (_LOCAL, *open_.STABLE_AUDIO_TOOLS)
"""Names of stable-audio-3's DiffusionTransformer, after `model.model.`: Stable Audio Open's, and one more."""

_DIT = Network(r"transformer\.layers\.", usual=tuple(f"{outer}model.model." for outer in Network.usual))
_CONDITIONERS = Network(r"\w+\.", below="conditioner.conditioners.")
_NETWORKS = {"dit": _DIT, "embedders": _CONDITIONERS, "vae": IN_STABLE_AUDIO_TOOLS}
"""The parts of a model in a checkpoint of stable-audio-3."""

SQUEEZED = ("preprocess.weight", "postprocess.weight")
"""Convolutions of one tap, which are matrices here."""


@dataclass(frozen=True)
class Tables:
    """The tensors of a checkpoint by part; names of `dit` and `embedders` are ours, of `vae` as stored."""

    dit: Weights
    embedders: Weights
    vae: Weights


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
    return Tables(found["dit"].apply(STABLE_AUDIO_3), found["embedders"].apply(open_.EMBEDDERS), found["vae"])


def load_dit(
    config: DitConfig, weights: Weights, dtype: mx.Dtype = mx.float32, bits: int | None = None
) -> DiT:
    """The network with its parameters, all of them taken from `weights` and nothing left over.

    Raises WeightsError that lists what is missing, misshapen, unexpected or not finite.
    """
    model = DiT(config)
    if bits is not None:
        quantize(model, bits)
    load_strict(model, weights, dtype=dtype, squeezed=SQUEEZED)
    return model
