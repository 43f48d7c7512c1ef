"""The diffusion transformer: noisy latents, a time and conditioning in; a velocity out.

Everything that does not change during a run is worked out once, by `DiT.condition`: projected tokens,
their keys and values in every layer, the global token, the rotary tables. A step is then the network alone.

B items, T latent frames, C latent channels, L = T plus the positions before them, S tokens, E the width of
the network, K that of projected tokens, H heads of D.

Source: stable-audio-tools, models/dit.py and models/transformer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mlx.core as mx
from mlx.nn.layers.activations import silu
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from audiogen_mlx import cpu
from audiogen_mlx.nn import Module
from audiogen_mlx.stable_audio.config import DitConfig

TIME_FEATURES = 256
QK_NORM_EPS = 1e-6
ROTARY_BASE = 10_000.0

Rotary = tuple[mx.array, mx.array]  # cosines and sines, (L, rotary / 2) each
Attended = tuple[mx.array, mx.array, mx.array | None]  # keys, values, bias of the scores


@dataclass
class Run:
    """What a run holds fixed for its B items.

    keys, values  of the tokens, for each layer that attends to them: (A, H, S, D). Only the first
                  A <= B items have tokens; for the others that attention adds nothing
    bias          added to the scores of tokens, (1, 1, 1, S), or None
    token         the global token without its time, (B, E), or None
    concat        channels beside the latents, (B, T, n), or None
    rotary        tables for every position
    times         global tokens by time, filled as times come up
    """

    keys: list[mx.array]
    values: list[mx.array]
    bias: mx.array | None
    token: mx.array | None
    concat: mx.array | None
    rotary: Rotary
    times: dict[float, mx.array] = field(default_factory=dict)

    def first(self, items: int) -> Run:
        """The same for the first items alone."""
        return Run(
            keys=[key[:items] for key in self.keys],
            values=[value[:items] for value in self.values],
            bias=self.bias,
            token=None if self.token is None else self.token[:items],
            concat=None if self.concat is None else self.concat[:items],
            rotary=self.rotary,
        )


class Mlp(Module):
    """Linear, SiLU, linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__()
        self.first = Linear(inputs, hidden, bias=bias)
        self.second = Linear(hidden, outputs, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.second(silu(self.first(x)))


class QkNorm(Module):
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
            exact = x.astype(mx.float32)  # squares of half precision overflow
            length = mx.sqrt(mx.sum(exact * exact, axis=-1, keepdims=True))
            return (exact / mx.maximum(length, 1e-12)).astype(x.dtype)
        return x


class SelfAttention(Module):
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
        return self.out(attend(query, key, value, None))


class CrossAttention(Module):
    """Attention to tokens, whose keys and values are given. Fewer key heads than query heads are shared."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads, self.context_heads = config.heads, config.context_heads
        self.q = Linear(width, width, bias=False)
        self.kv = Linear(config.context_dim, 2 * config.context_dim, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = QkNorm(config.qk_norm, config.head_dim)
        self.k_norm = QkNorm(config.qk_norm, config.head_dim)

    def keys_values(self, context: mx.array) -> tuple[mx.array, mx.array]:
        """(B, S, K) -> keys and values (B, context_heads, S, D)."""
        key, value = (
            split_heads(part, self.context_heads) for part in mx.split(self.kv(context), 2, axis=-1)
        )
        return self.k_norm(key), value

    def __call__(self, x: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
        query = self.q_norm(split_heads(self.q(x), self.heads))
        return self.out(attend(query, key, value, bias))


class FeedForward(Module):
    """Two parallel projections, the second a gate through SiLU; and one back."""

    def __init__(self, width: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.inner = Linear(width, 2 * hidden)
        self.out = Linear(hidden, width, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.inner(x), 2, axis=-1)
        return self.out(cpu.silu_gated(value, gate))


class Block(Module):
    """Attention among positions, attention to tokens, feed-forward; each added to what came in."""

    def __init__(self, config: DitConfig, index: int) -> None:
        super().__init__()
        width = config.embed_dim
        self.self_norm = LayerNorm(width, eps=config.norm_eps)
        self.self_attn = SelfAttention(config)
        if index < config.cross_layers:
            self.cross_norm = LayerNorm(width, eps=config.norm_eps)
            self.cross_attn = CrossAttention(config)
        self.ff_norm = LayerNorm(width, eps=config.norm_eps)
        self.ff = FeedForward(width, config.ff_dim, bias=config.ff_out_bias)
        if config.adaptive_norm:
            self.modulation = mx.zeros((6 * width,))
        if config.layer_scale:
            self.self_scale, self.ff_scale = mx.ones((width,)), mx.ones((width,))
            if index < config.cross_layers:
                self.cross_scale = mx.ones((width,))

    def __call__(
        self, x: mx.array, rotary: Rotary, tokens: Attended | None, modulation: mx.array | None
    ) -> mx.array:
        """(B, L, E); `tokens` are keys, values and bias; `modulation` (B, 6 E) steers adaptive norms."""
        # Scale, shift and gate of attention, then of the feed-forward part: (B, 1, E) each.
        steering: list[mx.array | None] = [None] * 6
        if modulation is not None:
            steering = list(mx.split((self.modulation + modulation)[:, None], 6, axis=-1))
        inner = self.self_attn(modulated(self.self_norm(x), steering[0], steering[1]), rotary)
        x = x + self._scaled(gated(inner, steering[2]), "self_scale")
        if tokens is not None:
            x = self._attend_tokens(x, *tokens)
        inner = self.ff(modulated(self.ff_norm(x), steering[3], steering[4]))
        return x + self._scaled(gated(inner, steering[5]), "ff_scale")

    def _attend_tokens(self, x: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
        active = key.shape[0]  # the items after these have no tokens, and skip this attention
        having = x[:active]
        inner = self.cross_attn(self.cross_norm(having), key, value, bias)
        having = having + self._scaled(inner, "cross_scale")
        return having if active == x.shape[0] else mx.concatenate([having, x[active:]])

    def _scaled(self, x: mx.array, name: str) -> mx.array:
        return x * self[name] if name in self else x


class DiT(Module):
    """The network. Latents are (B, C, T) outside and channels last within; weights have one dtype."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.time_frequencies = mx.zeros((TIME_FEATURES // 2,))
        self.time_embed = Mlp(TIME_FEATURES, width, width, bias=True)
        if config.cond_token_dim:
            self.cond_embed = Mlp(config.cond_token_dim, config.context_dim, config.context_dim)
        if config.global_cond_dim:
            self.global_embed = Mlp(config.global_cond_dim, width, width)
        self.preprocess = Linear(config.input_channels, config.input_channels, bias=False)
        self.postprocess = Linear(config.io_channels, config.io_channels, bias=False)
        self.project_in = Linear(config.input_channels * config.patch_size, width, bias=False)
        self.project_out = Linear(width, config.io_channels * config.patch_size, bias=False)
        if config.memory_tokens:
            self.memory_tokens = mx.zeros((config.memory_tokens, width))
        if config.positions:
            self.positions = mx.zeros((config.positions, width))
        if config.adaptive_norm:
            self.modulation = Mlp(width, width, 6 * width, bias=True)
        self.layers = [Block(config, index) for index in range(config.depth)]

    @property
    def dtype(self) -> mx.Dtype:
        return self.project_in.weight.dtype

    def condition(
        self,
        tokens: mx.array | None,
        global_: mx.array | None,
        frames: int,
        *,
        concat: mx.array | None = None,
        bias: mx.array | None = None,
    ) -> Run:
        """What stays the same over all steps for latents of `frames` frames.

        tokens   (A, S, cond_token_dim), of the first A items; the others attend to nothing
        global_  (B, global_cond_dim)
        concat   (B, n, T) channels beside the latents
        bias     (S,) added to the scores of tokens
        """
        pairs = []
        if tokens is not None:
            context = self.cond_embed(tokens.astype(self.dtype))  # (A, S, K)
            layers = self.layers[: self.config.cross_layers]
            pairs = [layer.cross_attn.keys_values(context) for layer in layers]
        run = Run(
            keys=[key for key, _ in pairs],
            values=[value for _, value in pairs],
            bias=None if bias is None else bias.astype(self.dtype)[None, None, None],
            token=None if global_ is None else self.global_embed(global_.astype(self.dtype)),
            concat=None if concat is None else concat.transpose(0, 2, 1).astype(self.dtype),
            rotary=rotary_tables(self.config.lead + frames // self.config.patch_size, self.config.rotary_dim),
        )
        single = [array for array in (run.bias, run.token, run.concat) if array is not None]
        mx.eval(*run.keys, *run.values, *single, *run.rotary)
        return run

    def time_features(self, t: mx.array) -> mx.array:
        """Cosines, then sines of 2 pi t w, float32: (B,) -> (B, 256)."""
        angles = (2 * math.pi) * t.astype(mx.float32)[:, None] * self.time_frequencies.astype(mx.float32)
        return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)

    def global_token(self, t: float | mx.array, run: Run) -> mx.array:
        """Global conditioning plus time, (1 or B, E). `t` is one number, then kept in `run`, or (B,)."""
        if isinstance(t, float) and t in run.times:
            return run.times[t]
        times = mx.array([t]) if isinstance(t, float) else t
        token = self.time_embed(self.time_features(times).astype(self.dtype))
        token = token if run.token is None else run.token + token
        if isinstance(t, float):
            mx.eval(token)
            run.times[t] = token
        return token

    def __call__(self, x: mx.array, t: float | mx.array, run: Run) -> mx.array:
        """The velocity, float32 (B, C, T). `t` is one number, or an array (B,)."""
        return self.step(x, self.global_token(t, run), run)

    def step(self, x: mx.array, token: mx.array, run: Run) -> mx.array:
        """The network alone: latents (B, C, T) and the global token of their time, (1 or B, E)."""
        config = self.config
        x = x.transpose(0, 2, 1).astype(self.dtype)  # (B, T, C)
        if run.concat is not None:
            x = mx.concatenate([x, run.concat], axis=-1)
        x = self.project_in(patch(x + self.preprocess(x), config.patch_size))
        token = mx.broadcast_to(token, (x.shape[0], token.shape[-1]))
        lead = [] if config.adaptive_norm else [token[:, None]]
        if config.memory_tokens:
            lead.insert(0, mx.broadcast_to(self.memory_tokens, (x.shape[0], *self.memory_tokens.shape)))
        x = mx.concatenate([*lead, x], axis=1)  # (B, L, E)
        if config.positions:
            x = x + self.positions[: x.shape[1]] * config.embed_dim**-0.5
        modulation = self.modulation(token) if config.adaptive_norm else None
        for index, layer in enumerate(self.layers):
            tokens = (run.keys[index], run.values[index], run.bias) if index < len(run.keys) else None
            x = layer(x, run.rotary, tokens, modulation)
        x = unpatch(self.project_out(x[:, config.lead :]), config.patch_size)
        return (x + self.postprocess(x)).transpose(0, 2, 1).astype(mx.float32)


def modulated(x: mx.array, scale: mx.array | None, shift: mx.array | None) -> mx.array:
    """A normalised input under adaptive norms; as it is without them."""
    return x if scale is None or shift is None else x * (1 + scale) + shift


def gated(x: mx.array, gate: mx.array | None) -> mx.array:
    """The output of a branch under adaptive norms; upstream's gate is open where its number is low."""
    return x if gate is None else x * mx.sigmoid(1 - gate)


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, L, H * D) -> (B, H, L, D)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attend(query: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
    """Softmax attention, (B, H, L, D) -> (B, L, H * D)."""
    scale = query.shape[-1] ** -0.5
    mixed = cpu.attention(query, key, value, scale=scale, bias=bias)
    return mixed.transpose(0, 2, 1, 3).reshape(query.shape[0], query.shape[2], -1)


def rotary_tables(positions: int, rotary_dim: int) -> Rotary:
    """Cosines and sines of position x frequency, float32."""
    frequencies = ROTARY_BASE ** (-mx.arange(0, rotary_dim, 2).astype(mx.float32) / rotary_dim)
    angles = mx.arange(positions).astype(mx.float32)[:, None] * frequencies
    return mx.cos(angles), mx.sin(angles)


def rotate(x: mx.array, rotary: Rotary) -> mx.array:
    """The first channels of each head turned by position, half against half, in float32; (B, H, L, D)."""
    cosine, sine = rotary
    half = cosine.shape[-1]
    first, second, rest = mx.split(x, [half, 2 * half], axis=-1)
    first, second = first.astype(mx.float32), second.astype(mx.float32)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return mx.concatenate([*(part.astype(x.dtype) for part in turned), rest], axis=-1)


def patch(x: mx.array, size: int) -> mx.array:
    """(B, T, C) -> (B, T / size, C * size), channels slowest."""
    if size == 1:
        return x
    batch, frames, channels = x.shape
    return x.reshape(batch, frames // size, size, channels).swapaxes(2, 3).reshape(batch, frames // size, -1)


def unpatch(x: mx.array, size: int) -> mx.array:
    """(B, T / size, C * size) -> (B, T, C)."""
    if size == 1:
        return x
    batch, patches, wide = x.shape
    return x.reshape(batch, patches, wide // size, size).swapaxes(2, 3).reshape(batch, patches * size, -1)
