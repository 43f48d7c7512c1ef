"""VampNet's network in torch, plainly: a bidirectional transformer over masked codes.

What the exported graphs are compared with, and a faster way to try something out on a GPU. The published
networks have no condition, so the original's FiLM layers are the identity.
Source: Garcia et al. 2023, "VampNet: Music generation via masked acoustic token modeling", arXiv 2307.04686.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from audiogen_onnx.exporter.config import NetworkConfig


class CodebookEmbedding(nn.Module):
    """Each code becomes the codec's own vector, a masked place that codebook's mask vector."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        rows = config.codebook_size + 1  # the last one is the mask's
        self.tables = nn.Parameter(torch.empty(config.codebooks, rows, config.codebook_dim))
        self.project = nn.Linear(config.codebooks * config.codebook_dim, config.width)

    def latents(self, codes: Tensor) -> Tensor:
        """(B, K, T) -> the vectors side by side (B, T, K*D)."""
        books = torch.arange(codes.shape[1], device=codes.device)[:, None]
        return self.tables[books, codes].transpose(1, 2).flatten(2)  # (B, K, T, D) -> (B, T, K*D)

    def forward(self, codes: Tensor) -> Tensor:
        out: Tensor = self.project(self.latents(codes))
        return out


class RMSNorm(nn.Module):
    """Each frame divided by its root mean square, times a weight."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.width))
        self.epsilon = config.epsilon

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon))


class PositionBias(nn.Module):
    """How much each head favours a distance between two frames: one table for all layers."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.buckets, config.heads))
        self.furthest, self.by_distance = config.furthest, config.by_distance

    def bucket(self, relative: Tensor) -> Tensor:
        """Key minus query -> bucket: half of them for keys to the right; near distances one each, far ones
        on a logarithmic scale up to `furthest`."""
        if self.by_distance:
            return relative.clamp(-self.furthest, self.furthest) + self.furthest
        half = self.weight.shape[0] // 2
        near = half // 2
        distance = relative.abs()
        share = torch.log(distance.clamp(min=1).float() / near) / math.log(self.furthest / near)
        far = near + (share * (half - near)).long()
        return half * (relative > 0) + torch.where(distance < near, distance, far.clamp(max=half - 1))

    def forward(self, frames: int) -> Tensor:
        """The bias to add to the scores of every layer: (H, T, T)."""
        places = torch.arange(frames, device=self.weight.device)
        bias: Tensor = self.weight[self.bucket(places[None] - places[:, None])]  # (T, T, H)
        return bias.permute(2, 0, 1)


class RelativeAttention(nn.Module):
    """Self-attention of all frames to all frames, with the position bias added to its scores."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.drop = nn.Dropout(0.0)
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.width, config.width, bias=False) for _ in range(4)
        )

    def split(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, H, T, D)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias  # (B, H, T, T)
        mixed = self.drop(scores.softmax(-1)) @ v
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, W)
        return out


class FeedForward(nn.Module):
    """A gated GELU (arXiv 2002.05202); the second half of the wide layer is the gate."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(2 * config.width, config.width, bias=False)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(self.drop(value * F.gelu(gate, approximate="tanh")))
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each on the normalised residual stream and added to it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config)
        self.attention = RelativeAttention(config)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = FeedForward(config)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.attention_norm(x), bias))
        out: Tensor = x + self.drop(self.feed_forward(self.feed_forward_norm(x)))
        return out


class VampNet(nn.Module):
    """Codes int64 (B, K, T), masked places holding the codebook size -> logits (B, P, T, N)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = CodebookEmbedding(config)
        self.position_bias = PositionBias(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config)
        self.classifier = nn.Linear(config.width, config.predicted_codebooks * config.codebook_size)

    def distance_table(self) -> Tensor:
        """Each head's bias for the distances -F to F, key minus query: (2*F+1, H). Further ones share."""
        furthest = self.config.furthest
        relative = torch.arange(-furthest, furthest + 1, device=self.position_bias.weight.device)
        return self.position_bias.weight[self.position_bias.bucket(relative)]

    def residuals(self, codes: Tensor) -> list[Tensor]:
        """The residual stream after each layer, each (B, T, W)."""
        x, bias = self.embedding(codes), self.position_bias(codes.shape[-1])
        stream = []
        for layer in self.layers:
            x = layer(x, bias)
            stream.append(x)
        return stream

    def forward(self, codes: Tensor) -> Tensor:
        x = self.norm(self.residuals(codes)[-1])
        shape = (*x.shape[:2], self.config.predicted_codebooks, self.config.codebook_size)
        out: Tensor = self.classifier(x).view(shape).transpose(1, 2)  # (B, T, P*N) -> (B, P, T, N)
        return out


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network ready to be built: its configuration, and every parameter of `VampNet` by name."""

    config: NetworkConfig
    tensors: dict[str, NDArray[np.float32]]


def runner(net: VampNet) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """A network as the sampling calls it: codes (B, K, T) in, logits (B, P, T, N) out."""

    def run(codes: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            made = net(torch.from_numpy(codes).to(net.classifier.weight.device))
        logits: NDArray[np.float32] = made.cpu().numpy()
        return logits

    return run


def build(checkpoint: Checkpoint) -> VampNet:
    """The network of a checkpoint, ready to be used; it shares the checkpoint's arrays."""
    with torch.device("meta"):
        net = VampNet(checkpoint.config)
    tensors = {name: torch.from_numpy(values) for name, values in checkpoint.tensors.items()}
    net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False)
