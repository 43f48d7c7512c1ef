"""A VampNet that learns: the frozen network in torch, with low-rank updates beside some of its matrices.

What the original's training does: masked codes are guessed, and the updates that every checkpoint has go on
from where they were. Source: hugofloresgarcia/vampnet, scripts/exp/train.py with conf/lora/lora.yml.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiogen_core.files import atomic_path
from audiogen_onnx.exporter.config import LORA_RANK
from audiogen_onnx.exporter.model import Checkpoint, VampNet, build
from audiogen_onnx.exporter.weights import Array, Updates
from audiogen_onnx.vampnet import lora

SMOOTHING = 0.1
DROPOUT = 0.1
CLIP = 5.0
WARM_UP = 500
NOAM_FACTOR = 2.0

UPSTREAM = {name: upstream for name, upstream in lora.UPSTREAM.items() if name != "attention.key"}
"""The matrices of a layer that are adapted -> what they are called in a lora.pth."""


class LowRank(nn.Module):
    """A linear layer that stays as it is, and what is learned beside it: x W' + (x A') B' / 8."""

    def __init__(
        self, base: nn.Linear, update: tuple[Array, Array] | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base = base
        if update is None:  # as loralib begins
            bound = 1 / math.sqrt(base.in_features)
            down = torch.empty(LORA_RANK, base.in_features).uniform_(-bound, bound, generator=generator)
            up = torch.zeros(base.out_features, LORA_RANK)
        else:
            down, up = (torch.from_numpy(each.copy()) for each in update)
        self.lora_A, self.lora_B = nn.Parameter(down), nn.Parameter(up)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.base(x) + (x @ self.lora_A.T) @ self.lora_B.T / LORA_RANK
        return made


def adapted(checkpoint: Checkpoint, updates: Updates, *, dropout: float = DROPOUT, seed: int = 0) -> VampNet:
    """A network in training mode, whose low-rank updates alone have gradients.

    checkpoint  without its updates
    updates     it goes on from; where there is none, from one that changes nothing
    """
    net, generator = build(checkpoint), torch.Generator().manual_seed(seed)
    for index, layer in enumerate(net.layers):
        for name in UPSTREAM:
            owner, leaf = name.split(".")
            part = getattr(layer, owner)
            update = updates.get(f"layers.{index}.{name}")
            setattr(part, leaf, LowRank(getattr(part, leaf), update, generator))
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return net.train()


def factors(net: VampNet) -> Iterator[tuple[str, nn.Parameter]]:
    """What is learned, by the names of a lora.pth."""
    for index, layer in enumerate(net.layers):
        for name, upstream in UPSTREAM.items():
            owner, leaf = name.split(".")
            part = getattr(getattr(layer, owner), leaf)
            for half in ("lora_A", "lora_B"):
                yield f"transformer.layers.{index}.{upstream}.{half}", getattr(part, half)


def masked(r: Tensor, codes: Tensor, given: int, generator: torch.Generator | None = None) -> Tensor:
    """Which codes (B, K, T) are to be guessed: each with the probability cos(pi r / 2), r (B,) in [0, 1].

    given  codebooks that never are
    """
    likely = torch.cos(r * math.pi / 2).clamp(1e-10, 1)[:, None, None].expand(codes.shape)
    mask = torch.bernoulli(likely, generator=generator).bool()
    mask[:, :given] = False
    return mask


def cost(net: VampNet, codes: Tensor, mask: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """How badly masked codes (B, K, T) are guessed: cross entropy of smoothed labels, summed over them."""
    config = net.config
    logits = net(codes.masked_fill(mask, config.codebook_size))  # (B, P, T, N)
    given = config.conditioning_codebooks
    targets = codes.masked_fill(~mask, -100)[:, given:]
    return F.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), label_smoothing=smoothing, reduction="sum"
    )


def loss(net: VampNet, codes: Tensor, mask: Tensor) -> Tensor:
    """Its mean over all masked codes of a batch, as the original has it."""
    return cost(net, codes, mask) / mask.sum().clamp(min=1)


def noam(step: int, width: int, warm_up: int = WARM_UP) -> float:
    """The learning rate of a step, counted from 1."""
    return NOAM_FACTOR / math.sqrt(width) * min(1 / math.sqrt(step), step / math.pow(warm_up, 1.5))


def save(net: VampNet, path: str | Path) -> None:
    """Write what was learned as a lora.pth, which the original and `export` read."""
    buffer = io.BytesIO()  # torch would put the name of a file into it
    torch.save({name: value.detach().cpu().clone() for name, value in factors(net)}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
