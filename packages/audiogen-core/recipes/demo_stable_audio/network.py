"""The diffusion transformer and its conditioners as torch trains them.

Arithmetic and names of parameters are those of stable-audio-tools, as `audiogen_mlx.stable_audio` runs them:
norms steered by time and seconds (adaLN), norms of queries and keys, rotary positions and learned ones,
memory tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from settings import Settings
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

TIME_FEATURES = 256
NUMBER_FREQUENCIES = 128
ROTARY_BASE = 10_000.0
NUMBERS = ("seconds_start", "seconds_total")


class Norm(nn.Module):
    """Layer norm, with the names of the original."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta, 1e-5)


class Attention(nn.Module):
    """Attention among positions, or to tokens where `crossed`."""

    def __init__(self, width: int, heads: int, *, crossed: bool) -> None:
        super().__init__()
        self.heads = heads
        if crossed:
            self.to_q = nn.Linear(width, width, bias=False)
            self.to_kv = nn.Linear(width, 2 * width, bias=False)
        else:
            self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm = nn.LayerNorm(width // heads, eps=1e-6)
        self.k_norm = nn.LayerNorm(width // heads, eps=1e-6)

    def forward(self, x: Tensor, context: Tensor | None = None, rotary: Tensor | None = None) -> Tensor:
        if context is None:
            parts = self.to_qkv(x).chunk(3, -1)
        else:
            parts = (self.to_q(x), *self.to_kv(context).chunk(2, -1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotary is not None:
            query, key = rotated(query, rotary), rotated(key, rotary)
        # In steps: on a CPU the gradient of torch's fused attention takes twice as long.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class Gate(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        out: Tensor = value * F.silu(gate)
        return out


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ff = nn.Sequential(Gate(width, hidden), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ff(x)
        return out


class Block(nn.Module):
    """Attention among positions, attention to tokens, feed-forward; the first and last steered."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm = Norm(width)
        self.self_attn = Attention(width, heads, crossed=False)
        self.cross_attend_norm = Norm(width)
        self.cross_attn = Attention(width, heads, crossed=True)
        self.ff_norm = Norm(width)
        self.ff = FeedForward(width, hidden)
        self.to_scale_shift_gate = nn.Parameter(torch.randn(6 * width) / width**0.5)

    def forward(self, x: Tensor, context: Tensor, steering: Tensor, rotary: Tensor) -> Tensor:
        """x (B, L, E); context (B, S, E), zeros where there is none; steering (B, 6 E)."""
        parts = (self.to_scale_shift_gate + steering)[:, None].chunk(6, -1)
        inner = self.self_attn(self.pre_norm(x) * (1 + parts[0]) + parts[1], rotary=rotary)
        x = x + inner * torch.sigmoid(1 - parts[2])
        x = x + self.cross_attn(self.cross_attend_norm(x), context)
        inner = self.ff(self.ff_norm(x) * (1 + parts[3]) + parts[4])
        return x + inner * torch.sigmoid(1 - parts[5])


class Fourier(nn.Module):
    """Random frequencies of the time, fixed."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(TIME_FEATURES // 2, 1))

    def forward(self, t: Tensor) -> Tensor:
        angles = 2 * math.pi * t[:, None] @ self.weight.T
        return torch.cat([angles.cos(), angles.sin()], -1)


class Positions(nn.Module):
    """A vector for each position, added to it (AbsolutePositionalEmbedding of stable-audio-tools)."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(positions, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.emb.weight[: x.shape[1]] * x.shape[-1] ** -0.5
        return out


class Transformer(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = m = settings.model
        wide = 2 * m.latent_channels + 1
        self.project_in = nn.Linear(wide, m.width, bias=False)
        self.project_out = nn.Linear(m.width, m.latent_channels, bias=False)
        self.memory_tokens = nn.Parameter(torch.randn(m.memory_tokens, m.width))
        if m.clock:
            self.pos_emb = Positions(m.memory_tokens + m.frames, m.width)
        self.global_cond_embedder = _mlp(m.width, m.width, 6 * m.width, bias=True)
        self.layers = nn.ModuleList(Block(m.width, m.heads, int(m.width * m.ff_mult)) for _ in range(m.depth))
        head = m.width // m.heads
        self.register_buffer(
            "rotary", _angles(m.memory_tokens + m.frames, max(head // 2, 32)), persistent=False
        )
        nn.init.zeros_(self.project_out.weight)

    def forward(self, x: Tensor, context: Tensor, token: Tensor) -> Tensor:
        x = self.project_in(x)
        memory = self.memory_tokens.expand(len(x), -1, -1).to(x.dtype)
        x, steering = torch.cat([memory, x], 1), self.global_cond_embedder(token)
        if self.settings.clock:
            x = self.pos_emb(x)
        for layer in self.layers:
            x = layer(x, context, steering, self.rotary)
        out: Tensor = self.project_out(x[:, len(self.memory_tokens) :])
        return out


class DiT(nn.Module):
    """Noisy latents and what is beside them to a velocity. Latents are (B, T, C) here."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        m, tokens = settings.model, settings.text.width
        wide = 2 * m.latent_channels + 1
        self.timestep_features = Fourier()
        self.to_timestep_embed = _mlp(TIME_FEATURES, m.width, m.width, bias=True)
        self.to_cond_embed = _mlp(tokens, m.width, m.width)
        self.to_global_embed = _mlp(len(NUMBERS) * tokens, m.width, m.width)
        self.preprocess_conv = nn.Conv1d(wide, wide, 1, bias=False)
        self.postprocess_conv = nn.Conv1d(m.latent_channels, m.latent_channels, 1, bias=False)
        self.transformer = Transformer(settings)
        nn.init.zeros_(self.preprocess_conv.weight)
        nn.init.zeros_(self.postprocess_conv.weight)

    def forward(self, x: Tensor, t: Tensor, beside: Tensor, tokens: Tensor, global_: Tensor) -> Tensor:
        """x (B, T, C), t (B,), beside (B, T, 1 + C), tokens (B, S, D), global_ (B, 2 D) -> (B, T, C)."""
        token = self.to_global_embed(global_) + self.to_timestep_embed(self.timestep_features(t))
        x = torch.cat([x, beside], -1)
        x = x + F.linear(x, self.preprocess_conv.weight[..., 0])
        x = self.transformer(x, self.to_cond_embed(tokens), token)
        return x + F.linear(x, self.postprocess_conv.weight[..., 0])


class NumberEmbedder(nn.Module):
    """Seconds to a token: the number and waves of it, then linear."""

    def __init__(self, width: int, maximum: float) -> None:
        super().__init__()
        self.maximum = maximum
        self.frequencies = nn.Parameter(torch.randn(NUMBER_FREQUENCIES), requires_grad=False)
        self.out = nn.Linear(2 * NUMBER_FREQUENCIES + 1, width)

    def forward(self, seconds: Tensor) -> Tensor:
        share = (seconds.clamp(0, self.maximum) / self.maximum)[:, None]
        angles = 2 * math.pi * share * self.frequencies
        out: Tensor = self.out(torch.cat([share, angles.sin(), angles.cos()], -1))
        return out


class Network(nn.Module):
    """T5, the embedders of seconds, and the transformer."""

    def __init__(self, settings: Settings, vocabulary: int) -> None:
        super().__init__()
        self.settings = settings
        self.text = T5EncoderModel(T5Config(**text_config(settings, vocabulary)))
        width, longest = settings.text.width, settings.model.max_seconds
        self.numbers = nn.ModuleDict({name: NumberEmbedder(width, longest) for name in NUMBERS})
        self.dit = DiT(settings)

    def condition(self, ids: Tensor, mask: Tensor, seconds: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L + 2, D) and the global vector (B, 2 D).

        ids, mask (B, L); seconds (B, 2): start and total; told (B,) is 0 where nothing is told.
        """
        features = self.text(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        numbers = [self.numbers[name](seconds[:, i]) for i, name in enumerate(NUMBERS)]
        tokens = torch.cat([features, *(number[:, None] for number in numbers)], 1)
        return tokens * told[:, None, None], torch.cat(numbers, -1)

    def forward(self, x: Tensor, t: Tensor, beside: Tensor, conditioning: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = self.dit(x, t, beside, *conditioning)
        return out


def text_config(settings: Settings, vocabulary: int) -> dict[str, Any]:
    """The T5 as transformers describes it."""
    t = settings.text
    return {
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": t.width,
        "d_kv": t.width // t.heads,
        "d_ff": t.hidden,
        "num_layers": t.layers,
        "num_heads": t.heads,
        "dropout_rate": 0.0,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """The first channels of each head (B, H, L, D) turned by angles (L, R / 2), half against half."""
    half = angles.shape[-1]
    first, second, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    cosine, sine = angles.cos(), angles.sin()
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat([*(part.to(x.dtype) for part in turned), rest], -1)


def _angles(positions: int, rotary: int) -> Tensor:
    frequencies = ROTARY_BASE ** (-torch.arange(0, rotary, 2).float() / rotary)
    return torch.arange(positions).float()[:, None] * frequencies


def _mlp(inputs: int, hidden: int, outputs: int, *, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=bias), nn.SiLU(), nn.Linear(hidden, outputs, bias=bias)
    )
