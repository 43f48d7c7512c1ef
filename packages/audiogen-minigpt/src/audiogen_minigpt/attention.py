"""Causal attention: torch's fused kernels, and a faster way for bfloat16 training on a CPU.

Torch's fused CPU kernel does its small products one by one. Here a block of queries meets all its keys in one
batched product, so the matrix units stay busy; the probabilities, half a matrix in bfloat16, are kept for the
backward pass. Forward and backward together take about 0.6 of the time of the fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 128
GROUP = 16  # heads per product: their block of scores stays in the cache
KEPT_LIMIT = 2**26  # probabilities kept of one layer at most, in numbers; beyond it the fused kernel is used


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with each step seeing itself and the steps before it.

    q, k, v  (B, H, S, D); returns the same shape
    """
    batch, heads, steps, _ = q.shape
    blocked = (
        q.device.type == "cpu"
        and q.dtype == torch.bfloat16
        and q.requires_grad
        and steps >= 2 * BLOCK
        and batch * heads * steps * steps // 2 <= KEPT_LIMIT
        and not torch.compiler.is_compiling()
    )
    if not blocked:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    rows = [x.reshape(batch * heads, steps, -1) for x in (q, k, v)]
    out: Tensor = _Blocked.apply(*rows)
    return out.view(q.shape)


class _Blocked(torch.autograd.Function):
    """Attention of (N, S, D) tensors, one block of queries and one group of heads at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q * q.shape[2] ** -0.5
        keys = k.transpose(1, 2).contiguous()  # (N, D, S): products with it run faster
        out = torch.empty_like(q)
        above = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype).triu_(1)
        kept = []
        for group, start, stop in _blocks(q):
            scores = torch.bmm(q[group, start:stop], keys[group, :, :stop])
            scores[:, :, start:].add_(above[: stop - start, : stop - start])
            weights = torch.softmax(scores, dim=-1)  # (GROUP, BLOCK, stop)
            out[group, start:stop] = torch.bmm(weights, v[group, :stop])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *kept = ctx.saved_tensors
        grad = grads[0]
        values = v.transpose(1, 2).contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (group, start, stop), weights in zip(_blocks(q), kept, strict=True):
            above = grad[group, start:stop]
            dweights = torch.bmm(above, values[group, :, :stop])
            dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, q.dtype)
            dq[group, start:stop] = torch.bmm(dscores, k[group, :stop])
            dk[group, :stop].baddbmm_(dscores.transpose(1, 2), q[group, start:stop])
            dv[group, :stop].baddbmm_(weights.transpose(1, 2), above)
        return dq.mul_(q.shape[2] ** -0.5), dk, dv


def _blocks(q: Tensor) -> list[tuple[slice, int, int]]:
    """Groups of heads, and within each the blocks of queries from start to stop."""
    rows, steps = q.shape[:2]
    return [
        (slice(first, first + GROUP), start, min(start + BLOCK, steps))
        for first in range(0, rows, GROUP)
        for start in range(0, steps, BLOCK)
    ]
