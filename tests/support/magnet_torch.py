"""MAGNeT's network in torch, as audiocraft runs it but for the mask, which stages after the first need.

Written from the paper (arXiv 2401.04577) and audiocraft's names of tensors. Keys and values of the text are
made anew in every pass, and all heads are computed, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiogen_onnx.magnet.config import MagnetConfig


class TorchMagnet:
    """The network, out of tensors by audiocraft's names; `take` gives one of a shape."""

    def __init__(self, config: MagnetConfig, take: Callable[[str, tuple[int, ...]], np.ndarray]) -> None:
        self.config = config
        net = config.network
        width, hidden, size = net.width, net.hidden, net.codebook_size

        def tensor(name: str, *shape: int) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(take(name, shape)))

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return tensor(f"{name}.weight", width), tensor(f"{name}.bias", width)

        books = range(net.codebooks)
        self.embeddings = [tensor(f"emb.{book}.weight", size + 1, width) for book in books]
        self.heads = [tensor(f"linears.{book}.weight", size, width) for book in books]
        self.out_norm = norm("out_norm")
        self.layers: list[dict[str, Any]] = []
        for index in range(net.layers):
            name = f"transformer.layers.{index}"
            self.layers.append(
                {
                    "norm1": norm(f"{name}.norm1"),
                    "norm_cross": norm(f"{name}.norm_cross"),
                    "norm2": norm(f"{name}.norm2"),
                    "self_in": tensor(f"{name}.self_attn.in_proj_weight", 3 * width, width),
                    "self_out": tensor(f"{name}.self_attn.out_proj.weight", width, width),
                    "cross_in": tensor(f"{name}.cross_attention.in_proj_weight", 3 * width, width),
                    "cross_out": tensor(f"{name}.cross_attention.out_proj.weight", width, width),
                    "linear1": tensor(f"{name}.linear1.weight", hidden, width),
                    "linear2": tensor(f"{name}.linear2.weight", width, hidden),
                }
            )

    @torch.inference_mode()
    def __call__(self, codes: Tensor, text: Tensor, stage: int) -> Tensor:
        """Codes (R, K, T) and a text (R, L, width) -> logits (R, K, T, N)."""
        width, frames = self.config.network.width, codes.shape[2]
        x = sum(F.embedding(codes[:, book], table) for book, table in enumerate(self.embeddings))
        x = x + _positions(frames, width)
        places = torch.arange(frames)
        seen = None
        if stage and self.config.context >= 0:
            seen = (places[:, None] - places).abs() <= self.config.context
        for layer in self.layers:
            y = F.layer_norm(x, (width,), *layer["norm1"])
            query, keys, values = F.linear(y, layer["self_in"]).chunk(3, dim=-1)
            x = x + F.linear(self._attend(query, keys, values, seen), layer["self_out"])
            y = F.layer_norm(x, (width,), *layer["norm_cross"])
            query_of, keys_of, values_of = layer["cross_in"].chunk(3)
            heard = self._attend(F.linear(y, query_of), F.linear(text, keys_of), F.linear(text, values_of))
            x = x + F.linear(heard, layer["cross_out"])
            y = F.layer_norm(x, (width,), *layer["norm2"])
            x = x + F.linear(F.gelu(F.linear(y, layer["linear1"])), layer["linear2"])
        x = F.layer_norm(x, (width,), *self.out_norm)
        return torch.stack([F.linear(x, head) for head in self.heads], dim=1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None) -> Tensor:
        heads = self.config.network.heads
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, keys, values))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)


def _positions(frames: int, width: int) -> Tensor:
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half) / (half - 1))
    angles = torch.arange(frames)[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
