"""Decoders: a model that takes one step at a time and remembers the keys and values of those before.

`decoder_for` chooses. On a CPU one row is decoded on its own, so that it comes out alike in any batch. Small
models are bound by the memory their weights are read from and by the number of calls, which are kept few.
Elsewhere all rows go at once through a cache of fixed size, and on CUDA the step is one captured graph.
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiogen_minigpt.kernels import EPS, cap
from audiogen_minigpt.model import GPT, Block, Kept


class Decoder(Protocol):
    """What the sampling loop needs of a model.

    rows      how many sequences are decoded at once
    position  steps taken in so far
    """

    rows: int
    position: int

    def prefill(self, tokens: Tensor) -> Tensor:
        """Start anew with tokens (B, S, Q), S <= context -> logits (B, Q, N) of the step after them."""

    def step(self, tokens: Tensor) -> Tensor:
        """Take in one more step (B, Q) -> logits (B, Q, N) of the step after it."""


def decoder_for(model: GPT, rows: int, steps: int | None = None) -> Decoder:
    """The decoder for the device the model is on. On a CPU `rows` must be 1.

    steps  how many it will take in at most, where that is known to be less than the context
    """
    device = model.wte.weight.device
    if device.type == "cpu":
        return RowDecoder(model, steps)
    if device.type == "cuda":
        return GraphDecoder(model, rows, steps)
    return BatchDecoder(model, rows, steps)


class RowDecoder:
    """One row on a CPU, in float32: weights in flat lists, matrices turned the way a single row likes them.

    The cache holds keys as (H, D, S) and values as (H, S, D), ready for two batched products. It is no longer
    than the `steps` that it must hold: a small one stays near the processor. Rows of keys lie an odd number
    of cache lines apart, so that they do not push each other out.
    """

    rows = 1

    def __init__(self, model: GPT, steps: int | None = None) -> None:
        config = model.config
        steps = min(steps or config.context, config.context)
        self.model = model
        self.position = 0
        self.width, self.heads = config.width, config.heads
        self.size = size = config.width // config.heads
        apart = 16 * (-(-steps // 16) | 1)
        self._keys = torch.empty(config.layers, self.heads, size, apart)
        self._values = torch.empty(config.layers, self.heads, steps, size)
        self._blocks = [_weights(block, self.width, size**-0.5) for block in model.blocks]
        self._turns = None if model.rope is None else _turns(model.rope, size**-0.5)

    def prefill(self, tokens: Tensor) -> Tensor:
        """As Decoder.prefill, B = 1."""
        kept: Kept = []
        x = self.model.hidden(tokens, kept)
        self.position = steps = tokens.shape[1]
        for layer, (k, v) in enumerate(kept):
            self._keys[layer, :, :, :steps] = k[0].transpose(1, 2)
            self._values[layer, :, :steps] = v[0]
        return self._logits(x[0, -1:]).unsqueeze(0)

    def step(self, tokens: Tensor) -> Tensor:
        """As Decoder.step, B = 1."""
        model, at = self.model, self.position
        x = model.wte.weight[tokens[0] + model.offsets].sum(dim=0, keepdim=True)  # (Q, W) -> (1, W)
        x = self._norm(x) if model.wpe is None else x + model.wpe.weight[at]
        run = self._gpt2 if self._turns is None else self._modern
        for layer, weights in enumerate(self._blocks):
            x = run(x, weights, self._keys[layer], self._values[layer])
        self.position = at + 1
        x = model.ln_f(x) if self._turns is None else self._norm(x)
        return self._logits(x).unsqueeze(0)

    def _gpt2(self, x: Tensor, weights: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Tensor:
        g1, b1, qkv_w, qkv_b, out_w, out_b, g2, b2, up_w, up_b, down_w, down_b = weights
        h = torch.addmm(qkv_b, F.layer_norm(x, (self.width,), g1, b1, 1e-5), qkv_w)  # (1, 3W)
        q, k, v = h.view(3, self.heads, self.size).unbind()
        x = x + F.linear(self._attend(q, k, v, keys, values), out_w, out_b)
        h = torch.addmm(up_b, F.layer_norm(x, (self.width,), g2, b2, 1e-5), up_w)
        return x.add_(F.linear(F.gelu(h, approximate="tanh"), down_w, down_b))

    def _modern(self, x: Tensor, weights: tuple[Tensor, ...], keys: Tensor, values: Tensor) -> Tensor:
        assert self._turns is not None
        qkv_w, out_w, up_w, down_w = weights
        h = torch.mm(self._norm(x), qkv_w).view(3, self.heads, self.size)
        qk = F.rms_norm(h[:2], (self.size,), eps=EPS)  # (2, H, D)
        cos, sin = self._turns[self.position]  # (2, 1, D) each
        q, k = torch.addcmul(qk * cos, qk.roll(self.size // 2, -1), sin)
        x = x + F.linear(self._attend(q, k, h[2], keys, values), out_w)
        h = torch.mm(self._norm(x), up_w).relu_()
        return x.add_(F.linear(h.mul_(h), down_w))

    def _norm(self, x: Tensor) -> Tensor:
        """rms_norm of a single row, in two calls."""
        row = x[0]
        return x * float((torch.dot(row, row).item() / self.width + EPS) ** -0.5)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """q, k, v (H, D), q already scaled; remembers k and v. Returns (1, W)."""
        at = self.position
        keys[:, :, at] = k
        values[:, at] = v
        scores = torch.bmm(q.unsqueeze(1), keys[:, :, : at + 1])  # (H, 1, S)
        return torch.bmm(scores.softmax(dim=-1), values[:, : at + 1]).view(1, self.width)

    def _logits(self, x: Tensor) -> Tensor:
        """(1, W) -> (Q, N)."""
        return cap(self.model.due_logits(x, self.position)[0], self.model.softcap)


class BatchDecoder:
    """Several rows at once, with a cache of fixed size in which steps yet to come are masked.

    Every tensor of a step keeps its shape and place, so that the step can be captured as a graph.
    """

    def __init__(self, model: GPT, rows: int, steps: int | None = None) -> None:
        config, weight = model.config, model.wte.weight
        self.model = model
        self.rows = rows
        self.position = 0
        steps = min(steps or config.context, config.context)
        shape = (config.layers, 2, rows, config.heads, steps, config.width // config.heads)
        self._cache = torch.zeros(shape, device=weight.device, dtype=weight.dtype)
        self._at = torch.zeros(1, device=weight.device, dtype=torch.long)
        self._all = torch.arange(steps, device=weight.device)

    def prefill(self, tokens: Tensor) -> Tensor:
        """As Decoder.prefill."""
        kept: Kept = []
        x = self.model.hidden(tokens, kept)
        self.position = steps = tokens.shape[1]
        for layer, (k, v) in enumerate(kept):
            self._cache[layer, 0, :, :, :steps] = k
            self._cache[layer, 1, :, :, :steps] = v
        return self._logits(x[:, -1])

    def step(self, tokens: Tensor) -> Tensor:
        """As Decoder.step."""
        self._at.fill_(self.position)
        x = self._forward(tokens)
        self.position += 1
        return self._logits(x)

    def _forward(self, tokens: Tensor) -> Tensor:
        """(B, Q) at position `_at` -> the last residual stream (B, W)."""
        model = self.model
        x = model.wte(tokens + model.offsets).sum(dim=1, keepdim=True)  # (B, Q, W) -> (B, 1, W)
        if model.wpe is not None:
            x = x + model.wpe.weight[self._at]
        x = model.ln_e(x)
        rope = None if model.rope is None else model.rope[:, self._at]
        visible = (self._all <= self._at).view(1, 1, 1, -1)
        for layer, block in enumerate(model.blocks):
            x = x + self._attend(block, x, rope, visible, self._cache[layer])
            x = x + block.mlp(block.ln_2(x))
        out: Tensor = model.ln_f(x)[:, 0]
        return out

    def _attend(self, block: Block, x: Tensor, rope: Tensor | None, visible: Tensor, cache: Tensor) -> Tensor:
        q, k, v = block.attn.project(block.ln_1(x), rope)  # 3 x (B, H, 1, D)
        cache[0].index_copy_(2, self._at, k)
        cache[1].index_copy_(2, self._at, v)
        y = F.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=visible)
        out: Tensor = block.attn.c_proj(y.transpose(1, 2).flatten(2))  # (B, H, 1, D) -> (B, 1, W)
        return out

    def _logits(self, x: Tensor) -> Tensor:
        """(B, W) -> (B, Q, N)."""
        return cap(self.model.due_logits(x, self.position).float(), self.model.softcap)


class GraphDecoder(BatchDecoder):
    """A BatchDecoder in bfloat16 whose step is captured once as a CUDA graph and replayed.

    A step of a small model is bound by the launching of its kernels, which a graph does away with.
    """

    def __init__(self, model: GPT, rows: int, steps: int | None = None) -> None:
        super().__init__(copy.deepcopy(model).to(torch.bfloat16), rows, steps)
        streams = model.layout.streams
        self._tokens = torch.zeros(rows, streams, device=self._all.device, dtype=torch.long)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out = torch.empty(0)

    def _forward(self, tokens: Tensor) -> Tensor:
        self._tokens.copy_(tokens)
        graph = self._graph or self._capture()
        graph.replay()
        return self._out

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Record a step. It writes only where the next real step writes too."""
        self._graph = graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._all.device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    super()._forward(self._tokens)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                self._out = super()._forward(self._tokens)
        return graph


def _weights(block: Block, width: int, scale: float) -> tuple[Tensor, ...]:
    """The weights of a block in the order a row is worked off, queries scaled where nothing comes between."""
    attn, mlp = block.attn, block.mlp
    qkv = attn.c_attn.weight.detach().clone()
    if attn.modern:
        return qkv.T.contiguous(), attn.c_proj.weight, mlp.c_fc.weight.T.contiguous(), mlp.c_proj.weight
    bias = attn.c_attn.bias.detach().clone()
    qkv[:width] *= scale
    bias[:width] *= scale
    ln_1, ln_2 = block.ln_1, block.ln_2
    assert isinstance(ln_1, nn.LayerNorm) and isinstance(ln_2, nn.LayerNorm)
    first = (ln_1.weight, ln_1.bias, qkv.T.contiguous(), bias, attn.c_proj.weight, attn.c_proj.bias)
    up = mlp.c_fc.weight.T.contiguous()
    return (*first, ln_2.weight, ln_2.bias, up, mlp.c_fc.bias, mlp.c_proj.weight, mlp.c_proj.bias)


def _turns(rope: Tensor, scale: float) -> Tensor:
    """Rotations by position: (S, cosines and sines, queries and keys, 1, D), those of queries scaled."""
    cos, sin = rope  # (S, D/2) each
    turns = torch.stack([torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)], dim=1)  # (S, 2, D)
    return torch.stack([turns * scale, turns], dim=2).unsqueeze(3)
