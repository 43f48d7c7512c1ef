"""The diffusion transformer: noisy latents, a time and conditioning in; a velocity out.

As in Stable Audio Open's, what does not change during a run is worked out once, by `DiT.condition`.

B items, T latent frames, C latent channels, L = T plus the memory tokens before them, S tokens, E the width
of the network, H heads of D.

Source: stable-audio-3, models/dit.py and models/transformer.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import RMSNorm

from audiogen_mlx.nn import Module
from audiogen_mlx.stable_audio.model import (
    FeedForward,
    Mlp,
    Rotary,
    attend,
    gated,
    modulated,
    rotary_tables,
    rotate,
    split_heads,
)
from audiogen_mlx.stable_audio_3.conditioning import FEATURES, features
from audiogen_mlx.stable_audio_3.config import DitConfig

QK_NORM_EPS = 1e-6

Pair = tuple[mx.array, mx.array]


@dataclass
class Run:
    """What a run holds fixed for its B items.

    keys     of the tokens, for each layer: (A, H, S, D), once more where attention is differential. Only the
             first A <= B items have tokens; for the others that attention adds nothing
    values   of the tokens, for each layer
    bias     added to the scores of tokens, (1, 1, 1, S), or None
    token    the global token without its time, (B, E)
    local    what each layer adds to the latents, (B or 1, T or 1, E); none where there is no such condition
    rotary   tables for every position
    lead     memory tokens, which are before the latents
    heard    (B, 1, L, 1), 0 where the values of a position count for nothing; or None
    times    global tokens by time, filled as times come up
    """

    keys: list[list[mx.array]]
    values: list[mx.array]
    bias: mx.array | None
    token: mx.array
    local: list[mx.array]
    rotary: Rotary
    lead: int
    heard: mx.array | None
    times: dict[float, mx.array] = field(default_factory=dict)

    def first(self, items: int) -> Run:
        """The same for the first items alone."""
        return Run(
            keys=[[key[:items] for key in keys] for keys in self.keys],
            values=[value[:items] for value in self.values],
            bias=self.bias,
            token=self.token[:items],
            local=[one[:items] for one in self.local],
            rotary=self.rotary,
            lead=self.lead,
            heard=None if self.heard is None else self.heard[:items],
        )


class SelfAttention(Module):
    """Attention among positions, with rotary positions; or the difference of two."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads, self.differential = config.heads, config.differential
        self.qkv = Linear(width, (5 if config.differential else 3) * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, eps=QK_NORM_EPS)
        self.k_norm = RMSNorm(config.head_dim, eps=QK_NORM_EPS)

    def __call__(self, x: mx.array, rotary: Rotary, heard: mx.array | None) -> mx.array:
        parts = mx.split(self.qkv(x), 5 if self.differential else 3, axis=-1)
        query, key, value, *second = (split_heads(part, self.heads) for part in parts)
        if heard is not None:
            value = value * heard
        mixed = self._attend(query, key, value, rotary)
        if self.differential:
            mixed = mixed - self._attend(second[0], second[1], value, rotary)
        return self.out(mixed)

    def _attend(self, query: mx.array, key: mx.array, value: mx.array, rotary: Rotary) -> mx.array:
        return attend(rotate(self.q_norm(query), rotary), rotate(self.k_norm(key), rotary), value, None)


class CrossAttention(Module):
    """Attention to tokens, whose keys and values are given."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width, times = config.embed_dim, 2 if config.differential else 1
        self.heads, self.times = config.heads, times
        self.q = Linear(width, times * width, bias=False)
        self.kv = Linear(width, (1 + times) * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, eps=QK_NORM_EPS)
        self.k_norm = RMSNorm(config.head_dim, eps=QK_NORM_EPS)

    def keys_values(self, context: mx.array) -> tuple[list[mx.array], mx.array]:
        """(B, S, E) -> keys, one or two, and values: (B, H, S, D)."""
        *keys, value = (
            split_heads(part, self.heads) for part in mx.split(self.kv(context), self.times + 1, axis=-1)
        )
        return [self.k_norm(key) for key in keys], value

    def __call__(self, x: mx.array, keys: list[mx.array], value: mx.array, bias: mx.array | None) -> mx.array:
        mixed = [
            attend(self.q_norm(split_heads(query, self.heads)), key, value, bias)
            for query, key in zip(mx.split(self.q(x), self.times, axis=-1), keys, strict=True)
        ]
        return self.out(mixed[0] if self.times == 1 else mixed[0] - mixed[1])


class Block(Module):
    """Attention among positions, attention to tokens, the local condition, feed-forward."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.self_norm = RMSNorm(width, eps=config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.cross_norm = RMSNorm(width, eps=config.norm_eps)
        self.cross_attn = CrossAttention(config)
        self.local_embed = Mlp(config.local_channels, width, width, bias=True)
        self.ff_norm = RMSNorm(width, eps=config.norm_eps)
        self.ff = FeedForward(width, config.ff_dim)
        self.modulation = mx.zeros((6 * width,))

    def __call__(self, x: mx.array, modulation: mx.array, run: Run, index: int) -> mx.array:
        """(B, L, E); `modulation` (B or 1, 6 E) steers the norms."""
        # Scale, shift and gate of attention, then of the feed-forward part: (B, 1, E) each.
        steering = mx.split((self.modulation + modulation)[:, None], 6, axis=-1)
        inner = self.self_attn(modulated(self.self_norm(x), steering[0], steering[1]), run.rotary, run.heard)
        x = x + gated(inner, steering[2])
        active = run.values[index].shape[0] if run.values else 0  # the items after these have no tokens
        if active:
            having = x[:active]
            inner = self.cross_attn(self.cross_norm(having), run.keys[index], run.values[index], run.bias)
            x = mx.concatenate([having + inner, x[active:]]) if active < len(x) else having + inner
        if run.local:
            x = mx.concatenate([x[:, : run.lead], x[:, run.lead :] + run.local[index]], axis=1)
        inner = self.ff(modulated(self.ff_norm(x), steering[3], steering[4]))
        return x + gated(inner, steering[5])


class DiT(Module):
    """The network. Latents are (B, C, T) outside and channels last within; weights have one dtype."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.time_embed = Mlp(FEATURES, width, width, bias=True)
        self.cond_embed = Mlp(config.cond_dim, width, width)
        self.global_embed = Mlp(config.cond_dim, width, width)
        self.preprocess = Linear(config.io_channels, config.io_channels, bias=False)
        self.postprocess = Linear(config.io_channels, config.io_channels, bias=False)
        self.project_in = Linear(config.io_channels, width, bias=False)
        self.project_out = Linear(width, config.io_channels, bias=False)
        self.memory_tokens = mx.zeros((config.memory_tokens, width))
        self.modulation = Mlp(width, width, 6 * width, bias=True)
        self.layers = [Block(config) for _ in range(config.depth)]

    @property
    def dtype(self) -> mx.Dtype:
        return self.memory_tokens.dtype

    def condition(
        self,
        tokens: mx.array | None,
        global_: mx.array,
        frames: int,
        *,
        local: mx.array | None,
        bias: mx.array | None = None,
        valid: mx.array | None = None,
    ) -> Run:
        """What stays the same over all steps for latents of `frames` frames.

        tokens   (A, S, cond_dim), of the first A items; the others attend to nothing
        global_  (B, cond_dim)
        local    (B or 1, 1 + C, T or 1), what is kept and its latents; all zeros is not the same as None
        bias     (S,) added to the scores of tokens
        valid    (B, T), where it is 0 the values of attention are zeros, though the keys count
        """
        pairs = []
        if tokens is not None:
            context = self.cond_embed(tokens.astype(self.dtype))  # (A, S, E)
            pairs = [layer.cross_attn.keys_values(context) for layer in self.layers]
        beside = None if local is None else local.swapaxes(1, 2).astype(self.dtype)
        heard = None
        if valid is not None:
            memory = mx.ones((valid.shape[0], self.config.memory_tokens))
            heard = mx.concatenate([memory, valid], axis=1).astype(self.dtype)[:, None, :, None]
        run = Run(
            keys=[keys for keys, _ in pairs],
            values=[value for _, value in pairs],
            bias=None if bias is None else bias.astype(self.dtype)[None, None, None],
            token=self.global_embed(global_.astype(self.dtype)),
            local=[] if beside is None else [layer.local_embed(beside) for layer in self.layers],
            lead=self.config.memory_tokens,
            rotary=rotary_tables(self.config.memory_tokens + frames, self.config.turned),
            heard=heard,
        )
        mx.eval(run.keys, run.values, run.token, run.local, run.rotary)
        return run

    def global_token(self, t: float | mx.array, run: Run) -> mx.array:
        """Global conditioning plus time, (B, E). `t` is one number, then kept in `run`, or (B,)."""
        if isinstance(t, float) and t in run.times:
            return run.times[t]
        exact = mx.array(features(np.array(t, np.float32).reshape(-1)))
        token = run.token + self.time_embed(exact.astype(self.dtype))
        if isinstance(t, float):
            mx.eval(token)
            run.times[t] = token
        return token

    def __call__(self, x: mx.array, t: float | mx.array, run: Run) -> mx.array:
        """The velocity, float32 (B, C, T). `t` is one number, or an array (B,)."""
        return self.step(x, self.global_token(t, run), run)

    def step(self, x: mx.array, token: mx.array, run: Run) -> mx.array:
        """The network alone: latents (B, C, T) and the global token of their time, (B, E)."""
        x = x.swapaxes(1, 2).astype(self.dtype)  # (B, T, C)
        x = self.project_in(x + self.preprocess(x))
        memory = mx.broadcast_to(self.memory_tokens, (x.shape[0], *self.memory_tokens.shape))
        x = mx.concatenate([memory, x], axis=1)  # (B, L, E)
        modulation = self.modulation(token)
        for index, layer in enumerate(self.layers):
            x = layer(x, modulation, run, index)
        x = self.project_out(x[:, run.lead :])
        return (x + self.postprocess(x)).swapaxes(1, 2).astype(mx.float32)
