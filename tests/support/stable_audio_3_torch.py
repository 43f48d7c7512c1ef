"""Stable Audio 3's transformer and the decoder of SAME-S in torch, with the original's names of tensors.

What the benchmark runs ours beside, written from the published description of both. Attention is torch's own
fused one, and what an original works out anew in every pass is worked out anew here too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY = 32  # channels of a head that are turned by position


def turned(x: Tensor) -> Tensor:
    """Queries or keys (B, H, L, D), the first channels of each turned by position."""
    half = ROTARY // 2
    speeds = 10_000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    head, rest = x[..., :ROTARY], x[..., ROTARY:]
    swapped = torch.cat([-head[..., half:], head[..., :half]], dim=-1)
    return torch.cat([head * cos + swapped * sin, rest], dim=-1)


def split(x: Tensor, heads: int) -> Tensor:
    """(B, L, E) -> (B, H, L, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, E)."""
    return x.transpose(1, 2).flatten(2)


class Rms(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.gamma, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.gamma.shape, self.gamma, self.eps)


def mlp(inputs: int, hidden: int, outputs: int, *, bias: bool) -> nn.Sequential:
    """Linear, SiLU, linear."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=bias), nn.SiLU(), nn.Linear(hidden, outputs, bias=bias)
    )


class Attention(nn.Module):
    """Among positions, or to tokens."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.heads, self.cross = heads, cross
        if cross:
            self.to_q = nn.Linear(width, width, bias=False)
            self.to_kv = nn.Linear(width, 2 * width, bias=False)
        else:
            self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = Rms(width // heads, 1e-6), Rms(width // heads, 1e-6)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        parts = (
            self.to_qkv(x).chunk(3, -1)
            if tokens is None
            else (self.to_q(x), *self.to_kv(tokens).chunk(2, -1))
        )
        q, k, v = (split(part, self.heads) for part in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        if not self.cross:
            q, k = turned(q), turned(k)
        return self.to_out(joined(F.scaled_dot_product_attention(q, k, v)))


class Gated(nn.Module):
    """Two parallel projections, the second a gate; and one back."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(width, 2 * hidden)
        self.ff = nn.ModuleList([first, nn.Identity(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor, *, sine: bool = False) -> Tensor:
        value, gate = self.ff[0].proj(x).chunk(2, -1)
        return self.ff[2](value * (torch.sin(3.14159265359 * gate) if sine else F.silu(gate)))


class Block(nn.Module):
    """Attention twice, the local condition, feed-forward."""

    def __init__(self, width: int, heads: int, local: int) -> None:
        super().__init__()
        self.pre_norm, self.self_attn = Rms(width, 1e-5), Attention(width, heads, cross=False)
        self.cross_attend_norm, self.cross_attn = Rms(width, 1e-5), Attention(width, heads, cross=True)
        self.to_local_embed = mlp(local, width, width, bias=True)
        self.ff_norm, self.ff = Rms(width, 1e-5), Gated(width, 4 * width)
        self.to_scale_shift_gate = nn.Parameter(torch.zeros(6 * width))

    def forward(self, x: Tensor, tokens: Tensor, steering: Tensor, local: Tensor, lead: int) -> Tensor:
        scale, shift, gate, scale_ff, shift_ff, gate_ff = (self.to_scale_shift_gate + steering)[
            :, None
        ].chunk(6, -1)
        inner = self.self_attn(self.pre_norm(x) * (1 + scale) + shift)
        x = x + torch.sigmoid(1 - gate) * inner
        x = x + self.cross_attn(self.cross_attend_norm(x), tokens)
        x = torch.cat([x[:, :lead], x[:, lead:] + self.to_local_embed(local)], dim=1)
        inner = self.ff(self.ff_norm(x) * (1 + scale_ff) + shift_ff)
        return x + torch.sigmoid(1 - gate_ff) * inner


class Transformer(nn.Module):
    """The blocks and what is around them."""

    def __init__(self, width: int, depth: int, heads: int, latents: int, memory: int) -> None:
        super().__init__()
        self.memory_tokens = nn.Parameter(torch.zeros(memory, width))
        self.project_in = nn.Linear(latents, width, bias=False)
        self.project_out = nn.Linear(width, latents, bias=False)
        self.global_cond_embedder = mlp(width, width, 6 * width, bias=True)
        self.layers = nn.ModuleList([Block(width, heads, latents + 1) for _ in range(depth)])


class Network(nn.Module):
    """The diffusion transformer of small."""

    def __init__(self, width: int, depth: int, heads: int, latents: int, tokens: int, memory: int) -> None:
        super().__init__()
        self.to_timestep_embed = mlp(256, width, width, bias=True)
        self.to_cond_embed = mlp(tokens, width, width, bias=False)
        self.to_global_embed = mlp(tokens, width, width, bias=False)
        self.preprocess_conv = nn.Conv1d(latents, latents, 1, bias=False)
        self.postprocess_conv = nn.Conv1d(latents, latents, 1, bias=False)
        self.transformer = Transformer(width, depth, heads, latents, memory)

    def forward(self, x: Tensor, features: Tensor, tokens: Tensor, global_: Tensor, local: Tensor) -> Tensor:
        """Latents (B, C, T), features of the time (B, 256), tokens, global vector, local (B, T, 1 + C)."""
        inner, lead = self.transformer, len(self.transformer.memory_tokens)
        context = self.to_cond_embed(tokens)
        steering = inner.global_cond_embedder(
            self.to_global_embed(global_) + self.to_timestep_embed(features)
        )
        y = inner.project_in((self.preprocess_conv(x) + x).transpose(1, 2))
        y = torch.cat([inner.memory_tokens.expand(len(y), -1, -1), y], dim=1)
        for layer in inner.layers:
            y = layer(y, context, steering, local, lead)
        y = inner.project_out(y[:, lead:]).transpose(1, 2)
        return self.postprocess_conv(y) + y


class Squash(nn.Module):
    """gamma tanh(alpha x) + beta."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * torch.tanh(self.alpha * x) + self.beta


class Difference(nn.Module):
    """Of two attentions to the same values one is taken from the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 5 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = Squash(width // heads), Squash(width // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, q2, k2 = (split(part, self.heads) for part in self.to_qkv(x).chunk(5, -1))
        first = F.scaled_dot_product_attention(turned(self.q_norm(q)), turned(self.k_norm(k)), v)
        second = F.scaled_dot_product_attention(turned(self.q_norm(q2)), turned(self.k_norm(k2)), v)
        return self.to_out(joined(first - second))


class SameBlock(nn.Module):
    """Differential attention, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pre_norm, self.self_attn = Squash(width), Difference(width, heads)
        self.ff_norm, self.ff = Squash(width), Gated(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.pre_norm(x))
        return x + self.ff(self.ff_norm(x))


class Stage(nn.Module):
    """Tokens of latents become patches: blocks over segments, the second half of them shifted."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, group: int, segment: int) -> None:
        super().__init__()
        self.group, self.segment = group, segment
        self.new_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.transformers = nn.ModuleList([SameBlock(width, heads) for _ in range(depth)])
        self.mapping = nn.utils.weight_norm(nn.Conv1d(width, patch, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, patch, T group)."""
        batch, frames, width = x.shape
        empty = self.new_tokens.expand(batch * frames, self.group, width)
        x = torch.cat([x.reshape(-1, 1, width), empty], dim=1).reshape(batch, -1, width)
        half, shift = len(self.transformers) // 2, self.segment // 2
        x = self._blocks(x, 0, half)
        x = torch.cat([x[:, :shift], x, x[:, -shift:]], dim=1)
        x = self._blocks(x, half, 2 * half)[:, shift:-shift]
        x = x.reshape(-1, self.group + 1, width)[:, 1:].reshape(batch, -1, width)
        return self.mapping(x.transpose(1, 2))

    def _blocks(self, x: Tensor, first: int, last: int) -> Tensor:
        parts = x.reshape(-1, self.segment, x.shape[-1])
        for block in self.transformers[first:last]:
            parts = block(parts)
        return parts.reshape(x.shape)


class Decoder(nn.Module):
    """SAME-S: latents (B, C, T), T even, -> sound (B, 2, samples)."""

    def __init__(self, latents: int, width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        stage = Stage(width, depth, heads, 2 * patch, 16, 34)
        self.layers = nn.ModuleList([nn.Identity(), nn.Linear(latents, width), nn.Identity(), stage])

    def forward(self, z: Tensor) -> Tensor:
        patches = self.layers[3](self.layers[1](z.transpose(1, 2)))
        return patches.unflatten(1, (2, -1)).transpose(2, 3).flatten(2)
