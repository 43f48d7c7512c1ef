"""The diffusion transformer: noisy latents, a time and conditioning in; a velocity out.

Everything that does not change during a run is worked out once, by `DiT.condition`: projected tokens,
their keys and values in every layer, the global token, the rotary tables. A step is then the network alone.

Source: stable-audio-tools, models/dit.py and models/transformer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from audiogen_mlx.stable_audio.config import DitConfig
from audiogen_mlx.stable_audio.layers import (
    CrossAttention,
    FeedForward,
    Mlp,
    Part,
    Rotary,
    SelfAttention,
    rotary_tables,
)

TIME_FEATURES = 256

Attended = tuple[mx.array, mx.array, mx.array | None]  # keys, values, bias of the scores


@dataclass
class Run:
    """What a run holds fixed for its B items.

    keys, values  of the tokens, for each layer that attends to them: (A, heads, S, D). Only the first
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

    def arrays(self) -> list[mx.array]:
        """All of them, to be evaluated at once."""
        single = [array for array in (self.bias, self.token, self.concat) if array is not None]
        return [*self.keys, *self.values, *single, *self.rotary]


class Block(Part):
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
        self.ff = FeedForward(config)
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
        parts: list[mx.array | None] = [None] * 6
        if modulation is not None:
            parts = list(mx.split((self.modulation + modulation)[:, None], 6, axis=-1))
        inner = self.self_attn(_modulated(self.self_norm(x), parts[0], parts[1]), rotary)
        x = x + self._scaled(_gated(inner, parts[2]), "self_scale")
        if tokens is not None:
            x = self._attend_tokens(x, *tokens)
        inner = self.ff(_modulated(self.ff_norm(x), parts[3], parts[4]))
        return x + self._scaled(_gated(inner, parts[5]), "ff_scale")

    def _attend_tokens(self, x: mx.array, key: mx.array, value: mx.array, bias: mx.array | None) -> mx.array:
        active = key.shape[0]
        having = x[:active]
        inner = self.cross_attn(self.cross_norm(having), key, value, bias)
        having = having + self._scaled(inner, "cross_scale")
        return having if active == x.shape[0] else mx.concatenate([having, x[active:]])

    def _scaled(self, x: mx.array, name: str) -> mx.array:
        return x * self[name] if name in self else x


class DiT(Part):
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
            rotary=rotary_tables(self._lead + frames // self.config.patch_size, self.config.rotary_dim),
        )
        mx.eval(run.arrays())
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
        x = x.transpose(0, 2, 1).astype(self.dtype)  # (B, T, C)
        if run.concat is not None:
            x = mx.concatenate([x, run.concat], axis=-1)
        x = self.project_in(_patch(x + self.preprocess(x), self.config.patch_size))
        token = mx.broadcast_to(token, (x.shape[0], token.shape[-1]))
        modulation = self.modulation(token) if self.config.adaptive_norm else None
        x = self._blocks(self._with_lead(x, token), modulation, run)
        x = _unpatch(self.project_out(x[:, self._lead :]), self.config.patch_size)
        return (x + self.postprocess(x)).transpose(0, 2, 1).astype(mx.float32)

    @property
    def _lead(self) -> int:
        """Positions before the latents: memory tokens, then the global token."""
        return self.config.memory_tokens + (0 if self.config.adaptive_norm else 1)

    def _with_lead(self, x: mx.array, token: mx.array) -> mx.array:
        parts = [x] if self.config.adaptive_norm else [token[:, None], x]
        if self.config.memory_tokens:
            parts.insert(0, mx.broadcast_to(self.memory_tokens, (x.shape[0], *self.memory_tokens.shape)))
        return mx.concatenate(parts, axis=1)

    def _blocks(self, x: mx.array, modulation: mx.array | None, run: Run) -> mx.array:
        for index, layer in enumerate(self.layers):
            tokens = (run.keys[index], run.values[index], run.bias) if index < len(run.keys) else None
            x = layer(x, run.rotary, tokens, modulation)
        return x


def _modulated(x: mx.array, scale: mx.array | None, shift: mx.array | None) -> mx.array:
    return x if scale is None or shift is None else x * (1 + scale) + shift


def _gated(x: mx.array, gate: mx.array | None) -> mx.array:
    return x if gate is None else x * mx.sigmoid(1 - gate)


def _patch(x: mx.array, size: int) -> mx.array:
    """(B, T, C) -> (B, T / size, C * size), channels slowest."""
    if size == 1:
        return x
    batch, frames, channels = x.shape
    return x.reshape(batch, frames // size, size, channels).swapaxes(2, 3).reshape(batch, frames // size, -1)


def _unpatch(x: mx.array, size: int) -> mx.array:
    """The other way round."""
    if size == 1:
        return x
    batch, patches, wide = x.shape
    return x.reshape(batch, patches, wide // size, size).swapaxes(2, 3).reshape(batch, patches * size, -1)
