"""The parts of a transformer block: attention over positions and over tokens, gated feed-forward."""

from __future__ import annotations

import mlx.core as mx
from mlx.nn.layers.activations import silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

from audiogen_mlx.stable_audio import pointwise
from audiogen_mlx.stable_audio.config import DitConfig

QK_NORM_EPS = 1e-6
ROTARY_BASE = 10_000.0

Rotary = tuple[mx.array, mx.array]  # cosines and sines, (positions, rotary / 2) each


class Part(Module):
    """A module of mlx; the one place where its untyped constructor is called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


class Mlp(Part):
    """Linear, SiLU, linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__()
        self.first = Linear(inputs, hidden, bias=bias)
        self.second = Linear(hidden, outputs, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.second(silu(self.first(x)))


class QkNorm(Part):
    """What is done to the queries or keys of each head before attention: "none", "ln" or "l2"."""

    def __init__(self, kind: str, head_dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "ln":
            self.weight = mx.ones((head_dim,))
            self.bias = mx.zeros((head_dim,))

    def __call__(self, x: mx.array) -> mx.array:
        if self.kind == "ln":
            return mx.fast.layer_norm(x, self.weight, self.bias, QK_NORM_EPS)
        if self.kind == "l2":
            exact = x.astype(mx.float32)
            length = mx.sqrt(mx.sum(exact * exact, axis=-1, keepdims=True))
            return (exact / mx.maximum(length, 1e-12)).astype(x.dtype)
        return x


class SelfAttention(Part):
    """Attention among positions, with rotary positions."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads = config.heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = QkNorm(config.qk_norm, config.head_dim)
        self.k_norm = QkNorm(config.qk_norm, config.head_dim)

    def __call__(self, x: mx.array, rotary: Rotary) -> mx.array:
        query, key, value = (split_heads(part, self.heads) for part in mx.split(self.qkv(x), 3, axis=-1))
        query, key = rotate(self.q_norm(query), rotary), rotate(self.k_norm(key), rotary)
        return self.out(_attend(query, key, value, None))


class CrossAttention(Part):
    """Attention to tokens, whose keys and values are given. Fewer key heads than query heads are shared."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads, self.context_heads = config.heads, config.context_heads
        self.query = Linear(width, width, bias=False)
        self.key_value = Linear(config.context_dim, 2 * config.context_dim, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = QkNorm(config.qk_norm, config.head_dim)
        self.k_norm = QkNorm(config.qk_norm, config.head_dim)

    def keys_values(self, context: mx.array) -> tuple[mx.array, mx.array]:
        """(B, S, K) -> keys and values (B, context_heads, S, head_dim)."""
        key, value = (
            split_heads(part, self.context_heads) for part in mx.split(self.key_value(context), 2, axis=-1)
        )
        return self.k_norm(key), value

    def __call__(self, x: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
        return self.out(_attend(self.q_norm(split_heads(self.query(x), self.heads)), key, value, bias))


class FeedForward(Part):
    """Two parallel projections, the second a gate through SiLU; and one back."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.inner = Linear(config.embed_dim, 2 * config.ff_dim)
        self.out = Linear(config.ff_dim, config.embed_dim, bias=config.ff_out_bias)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.inner(x), 2, axis=-1)
        return self.out(pointwise.silu_gated(value, gate))


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, L, heads * D) -> (B, heads, L, D)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _attend(query: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
    """Softmax attention, (B, heads, L, D) -> (B, L, heads * D)."""
    scale = query.shape[-1] ** -0.5
    mixed = pointwise.attention(query, key, value, scale=scale, bias=bias)
    return mixed.transpose(0, 2, 1, 3).reshape(query.shape[0], query.shape[2], -1)


def rotary_tables(positions: int, rotary_dim: int) -> Rotary:
    """Cosines and sines of position x frequency, float32."""
    frequencies = ROTARY_BASE ** (-mx.arange(0, rotary_dim, 2).astype(mx.float32) / rotary_dim)
    angles = mx.arange(positions).astype(mx.float32)[:, None] * frequencies
    return mx.cos(angles), mx.sin(angles)


def rotate(x: mx.array, rotary: Rotary) -> mx.array:
    """The first channels of each head turned by position, half against half, in float32; (B, heads, L, D)."""
    cosine, sine = rotary
    half = cosine.shape[-1]
    first, second, rest = mx.split(x, [half, 2 * half], axis=-1)
    first, second = first.astype(mx.float32), second.astype(mx.float32)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return mx.concatenate([*(part.astype(x.dtype) for part in turned), rest], axis=-1)
