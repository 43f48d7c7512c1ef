"""The facts of VampNet's two networks, and what a checkpoint must be to be one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.errors import ModelError

COARSE_SECONDS = 10.0
FINE_SECONDS = 3.0
"""How much sound the networks saw at a time when they were trained (conf/vampnet.yml, conf/c2f.yml)."""

LORA_RANK = 8
"""Rank of the low-rank updates in every checkpoint; they are scaled by 1 / rank (loralib, alpha 1)."""


@dataclass(frozen=True)
class NetworkConfig:
    """One network.

    width           of the residual stream; the feed-forward part is four times wider inside, in two halves
    codebooks       K, rows of codes it reads
    conditioning_codebooks  the first rows, which it never makes; it predicts the other P
    codebook_size   N; the code N stands for a masked place
    codebook_dim    length of a codec's vector
    by_distance     each distance up to `furthest` has a bias of its own, as in exported graphs; else they
                    share `buckets`
    """

    layers: int
    heads: int
    width: int
    codebooks: int
    conditioning_codebooks: int
    codebook_size: int
    codebook_dim: int

    # Relative positions as in T5 (arXiv 1910.10683): near ones each have a bucket, far ones share.
    buckets: int = 32
    furthest: int = 128
    epsilon: float = 1e-6
    by_distance: bool = False

    @property
    def predicted_codebooks(self) -> int:
        return self.codebooks - self.conditioning_codebooks

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def from_metadata(facts: Mapping[str, Any], where: str) -> NetworkConfig:
    """The configuration in `metadata.kwargs` of an upstream checkpoint; `where` names the file.

    Raises ModelError for what is no VampNet, or one that this package cannot run, and says why.
    """
    if "encoder_rates" in facts or "decoder_rates" in facts:
        raise ModelError(f"{where}: is a codec, but a VampNet network belongs here")
    counts: dict[str, Any] = {name: _count(facts, field, where) for name, field in _COUNTS.items()}
    if facts.get("flash_attn", True):
        raise ModelError(
            f"{where}: was trained with flash attention, which has no relative positions and other weights; "
            "only checkpoints with flash_attn false can be used"
        )
    if facts.get("r_cond_dim") or facts.get("cond_dim"):
        raise ModelError(f"{where}: is conditioned on more than codes, which is not supported")
    if facts.get("noise_mode", "mask") != "mask":
        raise ModelError(f"{where}: has noise mode {facts['noise_mode']!r}; VampNet has only 'mask'")
    config = NetworkConfig(**counts)
    if config.width % config.heads:
        raise ModelError(f"{where}: {config.width} channels cannot be split into {config.heads} heads")
    if config.conditioning_codebooks >= config.codebooks:
        raise ModelError(
            f"{where}: all {config.codebooks} codebooks are conditioning, so nothing is predicted"
        )
    return config


_COUNTS = {
    "layers": "n_layers",
    "heads": "n_heads",
    "width": "embedding_dim",
    "codebooks": "n_codebooks",
    "conditioning_codebooks": "n_conditioning_codebooks",
    "codebook_size": "vocab_size",
    "codebook_dim": "latent_dim",
}
_LARGEST = 1 << 16


def _count(facts: Mapping[str, Any], field: str, where: str) -> int:
    value = facts.get(field)
    least = 0 if field == "n_conditioning_codebooks" else 1
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise ModelError(f"{where}: is no VampNet checkpoint: its {field} is {value!r}")
    return value
