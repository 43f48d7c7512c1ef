"""The GPT: one block in two presets, over tokens of shape (B, S, Q).

"gpt2" has GPT-2's shapes, names and arithmetic, so its weights load in transformers. "modern" takes what
short training runs have found to pay: rotary positions (arXiv 2104.09864), RMSNorm without parameters,
normalised queries and keys, squared ReLU (arXiv 2109.08668), no biases, projections that start at zero,
and logits bent to (-15, 15) by a tanh.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.kernels import (
    RMSNorm,
    cap,
    causal_attention,
    head_loss,
    rms_norm,
    rope_table,
    rotate,
    squared_relu,
)
from audiogen_minigpt.layout import Layout

SOFTCAP = 15.0

Kept = list[tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Causal self-attention without dropout, so that the fused kernels apply."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.modern = config.preset == "modern"
        self.c_attn = nn.Linear(config.width, 3 * config.width, bias=not self.modern)
        self.c_proj = nn.Linear(config.width, config.width, bias=not self.modern)

    def project(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, W) -> queries, keys and values, each (B, H, S, D)."""
        batch, steps, width = x.shape
        shape = (batch, steps, 3, self.heads, width // self.heads)
        q, k, v = self.c_attn(x).view(shape).permute(2, 0, 3, 1, 4)  # (B, S, 3*W) -> 3 x (B, H, S, D)
        if rope is not None:
            q, k = rotate(rms_norm(q), rope), rotate(rms_norm(k), rope)
        return q, k, v

    def forward(self, x: Tensor, rope: Tensor | None, kept: Kept | None = None) -> Tensor:
        q, k, v = self.project(x, rope)
        if kept is not None:
            kept.append((k, v))
        y = causal_attention(q, k, v)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(x.shape))  # (B, H, S, D) -> (B, S, W)
        return out


class MLP(nn.Module):
    """Four times wider inside."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.modern = config.preset == "modern"
        self.c_fc = nn.Linear(config.width, 4 * config.width, bias=not self.modern)
        self.c_proj = nn.Linear(4 * config.width, config.width, bias=not self.modern)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        hidden = squared_relu(hidden) if self.modern else F.gelu(hidden, approximate="tanh")
        out: Tensor = self.c_proj(hidden)
        return out


class Block(nn.Module):
    """Attention, then MLP, each on the normalised residual stream and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = _norm(config)
        self.attn = Attention(config)
        self.ln_2 = _norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope: Tensor | None, kept: Kept | None = None) -> Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x), rope, kept), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class GPT(nn.Module):
    """A GPT over the tokens of one layout.

    Steps are summed embeddings of the Q streams, all in one table; each codebook has a head, all in one
    matrix. With the flatten layout only the head of the codebook that is due next is worked out. The
    "gpt2" preset ties its head to the table where there is one stream.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = Layout.from_config(config)
        streams, ids = self.layout.streams, self.layout.vocab + 1
        self.modern = config.preset == "modern"
        self.softcap = SOFTCAP if self.modern else None
        self.tied = not self.modern and streams == 1
        self.wte = nn.Embedding(streams * ids, config.width)
        self.wpe = None if self.modern else nn.Embedding(config.context, config.width)
        self.ln_e = RMSNorm() if self.modern else nn.Identity()
        self.h = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = _norm(config)
        shape = (config.codebooks * config.codebook_size, config.width)
        self.heads = None if self.tied else nn.Parameter(torch.empty(shape))
        self.register_buffer("offsets", torch.arange(streams) * ids, persistent=False)
        rope = rope_table(config.context, config.width // config.heads) if self.modern else None
        self.register_buffer("rope", rope, persistent=False)
        self.offsets: Tensor
        self.rope: Tensor | None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator.

        gpt2: normal of 0.02, projections into the residual stream divided by sqrt(2 * layers). modern:
        uniform of variance 1 / width, those projections and the heads zero.
        """
        config = self.config
        with torch.no_grad():
            nn.init.normal_(self.wte.weight, std=0.02)
            if self.wpe is not None:
                nn.init.normal_(self.wpe.weight, std=0.02)
            if self.heads is not None:
                nn.init.normal_(self.heads, std=0.0 if self.modern else 0.02)
            bound = math.sqrt(3.0 / config.width)
            for name, module in self.named_modules():
                if not isinstance(module, nn.Linear):
                    continue
                into_residual = name.endswith("c_proj")
                if self.modern and into_residual:
                    nn.init.zeros_(module.weight)
                elif self.modern:
                    nn.init.uniform_(module.weight, -bound, bound)
                else:
                    scale = 1.0 / math.sqrt(2 * config.layers) if into_residual else 1.0
                    nn.init.normal_(module.weight, std=0.02 * scale)
                    nn.init.zeros_(module.bias)

    @property
    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.h if isinstance(block, Block)]

    @property
    def head_weight(self) -> Tensor:
        """The heads of all codebooks: (K * N, width), codebook by codebook."""
        rows = self.config.codebooks * self.config.codebook_size
        return self.wte.weight[:rows] if self.heads is None else self.heads

    def hidden(self, tokens: Tensor, kept: Kept | None = None) -> Tensor:
        """Tokens (B, S, Q) -> the normalised last residual stream (B, S, width).

        kept  gets the keys and values of each block, (B, H, S, D), appended
        """
        steps = tokens.shape[1]
        x = sum_streams(self.wte, tokens + self.offsets)
        if self.wpe is not None:
            x = x + self.wpe.weight[:steps]
        x = F.dropout(self.ln_e(x), self.config.dropout, self.training)
        rope = None if self.rope is None else self.rope[:, :steps]
        for block in self.h:
            x = block(x, rope, kept)
        out: Tensor = self.ln_f(x)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S, Q) -> logits (B, S, Q, N) of the codes one step later.

        With the flatten layout the logits at step s are those of codebook (s + 1) mod K, and the sequence
        starts at a whole frame.
        """
        return cap(self._logits(self.hidden(tokens)).float(), self.softcap)

    def due_logits(self, x: Tensor, position: int) -> Tensor:
        """Rows of `hidden` (R, width), all after `position` steps -> logits (R, Q, N), not yet bent.

        With the flatten layout those of codebook position mod K.
        """
        size = self.config.codebook_size
        heads = self.head_weight
        if self.layout.name == "flatten":
            due = position % self.config.codebooks
            heads = heads[due * size : (due + 1) * size]
        return F.linear(x, heads).view(x.shape[0], -1, size)

    def loss(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mean cross entropy in nats over what the mask marks, and its mean per codebook (K,).

        inputs, targets, mask  (B, S, Q), as `Layout.apply` gives them. A codebook with no target has nan.
        """
        sums, counts = self.loss_sums(inputs, targets, mask)
        return sums.sum() / counts.sum(), (sums / counts).detach()

    def loss_sums(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross entropy in nats of each codebook (K,), and how many targets each has (K,).

        For averaging over several batches or ranks, whose counts differ a little.
        """
        x = self.hidden(inputs).flatten(0, 1)  # (B, S, W) -> (B*S, W)
        targets, mask = targets.flatten(0, 1), mask.flatten(0, 1)  # (B*S, Q)
        if self.layout.name != "flatten":
            losses = head_loss(x, self.head_weight, targets, mask, self.softcap)
            return losses, mask.sum(dim=0).to(losses.dtype)
        size, due = self.config.codebook_size, self.config.codebooks
        next_up = (torch.arange(inputs.shape[1], device=x.device) + 1) % due
        rows = [(next_up == book).repeat(inputs.shape[0]) for book in range(due)]
        parts = [
            head_loss(x[row], head, targets[row] % size, mask[row], self.softcap)
            for row, head in zip(rows, torch.split(self.head_weight, size), strict=True)
        ]
        losses = torch.cat(parts)
        return losses, torch.stack([mask[row].sum() for row in rows]).to(losses.dtype)

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, context: int | None = None) -> int:
        """Floating point operations of training on one step, forward and backward.

        6 per weight that multiplies (embeddings looked up do not count) plus 12 * layers * width * context
        for attention without halving it for the causal mask: the usual convention.
        """
        config = self.config
        streams = 1 if self.layout.name == "flatten" else config.codebooks
        matrices = 12 * config.layers * config.width**2 + streams * config.codebook_size * config.width
        return 6 * matrices + 12 * config.layers * config.width * (context or config.context)

    def _logits(self, x: Tensor) -> Tensor:
        """(B, S, width) -> (B, S, Q, N), the tanh not yet taken."""
        config = self.config
        if self.layout.name != "flatten":
            return F.linear(x, self.head_weight).view(*x.shape[:2], config.codebooks, config.codebook_size)
        steps, due = x.shape[1], config.codebooks
        pad = -(steps + 1) % due
        x = F.pad(x, (0, 0, 1, pad))
        grid = x.view(x.shape[0], -1, due, x.shape[2])  # (B, T*K, W) -> (B, T, K, W): step s at s + 1
        heads = self.head_weight.view(due, config.codebook_size, config.width)
        logits = torch.einsum("btkw,knw->btkn", grid, heads)
        return logits.flatten(1, 2)[:, 1 : steps + 1].unsqueeze(2)


def sum_streams(table: nn.Embedding, ids: Tensor) -> Tensor:
    """The rows of ids (B, S, Q), summed over the streams: (B, S, W)."""
    x: Tensor = table(ids[:, :, 0])
    for stream in range(1, ids.shape[2]):  # one by one: a sum over a fourth axis costs five times as much
        x = x + table(ids[:, :, stream])
    return x


def _norm(config: ModelConfig) -> nn.Module:
    return RMSNorm() if config.preset == "modern" else nn.LayerNorm(config.width, eps=1e-5)
