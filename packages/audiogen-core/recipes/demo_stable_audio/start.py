"""Begin with what a folder that `export.py` wrote has learned, in a network that may be wider.

What is new says nothing yet: no part that was there reads it, so the network gives what it gave. Only norms
are taken over more channels than before; their gains are set so that they give what they gave, on average.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from beats import keep_time
from data import Batch
from export import model_weights, text_weights
from network import Network, Norm
from numpy.typing import NDArray
from safetensors.numpy import load
from tokenizers import Tokenizer
from torch import Tensor

WORDS = "text.shared.weight"
PARTS = {"to_qkv": 3, "to_kv": 2, "proj": 2, "to_scale_shift_gate": 6, "global_cond_embedder.2": 6}
"""Tensors in which several stand one after another."""

INNER = ("to_qkv", "to_q", "to_kv", "proj", "embed.0", "embedder.0", "gamma")
"""What in new channels begins as it was drawn; everything else begins with zeros there."""


@torch.no_grad()
def begin(network: Network, folder: Path, words: Tokenizer, batch: Batch) -> None:
    """Fill a network with the weights of a folder, and let it keep time if its settings have a clock.

    words  those that the network is to know
    batch  windows on which the norms are set
    """
    known = network.state_dict()
    own = {name: name for name in known}
    for path, named in ((folder, model_weights(own)), (folder / "t5", text_weights(own))):
        stored = load((path / "model.safetensors").read_bytes())
        for theirs, name in named.items():
            if theirs in stored and name != WORDS:
                _fit(known[name], _plain(stored, theirs), name)
    rows = _plain(stored, WORDS.removeprefix("text."))
    before = Tokenizer.from_file(str(folder / "t5" / "tokenizer.json")).get_vocab()
    for word, index in words.get_vocab().items():
        if word in before:
            known[WORDS][index] = rows[before[word]]
    transformer = network.dit.transformer
    width = int((transformer.project_in.weight != 0).any(dim=1).sum())
    level = _level(network, batch, width)
    if network.settings.model.clock:
        keep_time(network, words, level)
    _balance(network, batch, width, level)


def _fit(new: Tensor, old: Tensor, name: str) -> None:
    """Put a tensor into the first channels of a larger one."""
    stem = name.removesuffix(".weight").removesuffix(".bias")
    parts = next((count for ending, count in PARTS.items() if stem.endswith(ending)), 1)
    new, old = (each.view(parts, -1, *each.shape[1:]) for each in (new, old))
    first = new[:, : old.shape[1]]
    if not stem.endswith(INNER):
        new.zero_()
    if new.ndim > 2:
        first.zero_()
        first = first[:, :, : old.shape[2]]
    first.copy_(old)


def _level(network: Network, batch: Batch, width: int) -> float:
    """How large what comes into the first layer is, in its first channels."""
    seen: list[Tensor] = []
    first = network.dit.transformer.layers[0].pre_norm
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0][..., :width].std()))
    _run(network, batch)
    hook.remove()
    return float(seen[0])


def _balance(network: Network, batch: Batch, width: int, level: float) -> None:
    """Let norms give in their first channels what those alone would give; in others, values of about 1."""

    def balance(norm: Norm, given: tuple[Tensor]) -> None:
        whole, old = (x.var(dim=-1).mean().sqrt() for x in (given[0], given[0][..., :width]))
        norm.gamma[:width] *= whole / old
        norm.gamma[width:] *= whole / level

    norms = [each for each in network.dit.transformer.modules() if isinstance(each, Norm)]
    hooks = [norm.register_forward_pre_hook(balance) for norm in norms]
    _run(network, batch)
    for hook in hooks:
        hook.remove()


def _run(network: Network, batch: Batch) -> None:
    """Once, with noise of all levels."""
    t = (torch.arange(len(batch.told)) + 0.5) / len(batch.told)
    level, draws = t[:, None, None], torch.Generator().manual_seed(0)
    x = (1 - level) * batch.latents + level * torch.randn(batch.latents.shape, generator=draws)
    network(x, t, batch.beside, network.condition(batch.ids, batch.mask, batch.seconds, batch.told))


def _plain(stored: dict[str, NDArray[Any]], name: str) -> Tensor:
    array = stored[name].astype(np.float32)
    scale = stored.get(f"{name}.scale")
    if scale is not None:
        array *= scale.astype(np.float32).reshape(-1, *(1,) * (array.ndim - 1))
    return torch.from_numpy(array)
