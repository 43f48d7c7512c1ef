"""Operations of the GPT with backward passes of their own: norm, rotation, attention, cross entropy.

Each has its plain formula, which `torch.compile` turns into one kernel on a GPU, and an autograd function for
running uncompiled on a CPU, which touches memory less often. Top to bottom: RMSNorm, rotary positions and
squared ReLU of the "modern" preset (about half the time); causal attention in bfloat16 (about 0.6 of it); the
cross entropy of all heads without ever holding all the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
ROPE_BASE = 10_000.0

BLOCK = 128  # queries per product of attention
GROUP = 16  # heads per product: their block of scores stays in the cache
KEPT_LIMIT = 2**26  # probabilities kept of one layer at most, in numbers; beyond it the fused kernel is used

SLICE = 2**20  # logits held at a time by the loss


class RMSNorm(nn.Module):
    """x / rms(x) over the last axis, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x)


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis (arXiv 1910.07467)."""
    if torch.compiler.is_compiling():
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype)
    out: Tensor = _RMSNorm.apply(x)
    return out


def rope_table(steps: int, size: int) -> Tensor:
    """The rotations of the positions 0 to steps - 1: float32 (2, steps, size / 2), cosines then sines."""
    rates = ROPE_BASE ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(steps, dtype=torch.float64), rates)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of x (..., S, D) by the angles of rope (2, S, D/2) (arXiv 2104.09864)."""
    cos, sin = rope.to(x.dtype).unbind()
    if torch.compiler.is_compiling():
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
    out: Tensor = _Rotate.apply(x, cos, sin)
    return out


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (arXiv 2109.08668)."""
    if torch.compiler.is_compiling():
        return x.relu().square()
    out: Tensor = _SquaredReLU.apply(x)
    return out


class _RMSNorm(torch.autograd.Function):
    """y = s x with s = 1 / rms(x), so dx = s (dy - y mean(dy y)): y and s are all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_().to(x.dtype)
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        along = (grads[0] * y).mean(-1, keepdim=True)
        return torch.addcmul(grads[0], y, along, value=-1.0).mul_(scale)


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back: nothing of x needs to be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = y.chunk(2, dim=-1)
    torch.mul(a, cos, out=left).addcmul_(b, sin, value=-direction)
    torch.mul(b, cos, out=right).addcmul_(a, sin, value=direction)
    return y


class _SquaredReLU(torch.autograd.Function):
    """dx = 2 max(x, 0) dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive: Tensor = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        slopes: Tensor = grads[0] * positive
        return slopes.mul_(2.0)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with each step seeing itself and the steps before it.

    q, k, v  (B, H, S, D); returns the same shape

    Torch's fused kernels, but for training in bfloat16 on a CPU: the fused one does its small products one by
    one there, while in `_Blocked` a block of queries meets all its keys in one batched product, so that the
    matrix units stay busy.
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
    """Attention of (N, S, D) tensors, one block of queries and one group of heads at a time.

    The probabilities, half a matrix in bfloat16, are kept for the backward pass instead of computed again.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q * q.shape[2] ** -0.5
        keys = k.transpose(1, 2).contiguous()  # (N, D, S): products with it run faster
        out = torch.empty_like(q)
        future = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype).triu_(1)
        kept = []
        for group, start, stop in _blocks(q):
            scores = torch.bmm(q[group, start:stop], keys[group, :, :stop])
            # Only the block's own square holds steps that are yet to come; all keys before it are seen.
            scores[:, :, start:].add_(future[: stop - start, : stop - start])
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
            dout = grad[group, start:stop]
            dweights = torch.bmm(dout, values[group, :, :stop])
            dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, q.dtype)
            dq[group, start:stop] = torch.bmm(dscores, k[group, :stop])
            dk[group, :stop].baddbmm_(dscores.transpose(1, 2), q[group, start:stop])
            dv[group, :stop].baddbmm_(weights.transpose(1, 2), dout)
        return dq.mul_(q.shape[2] ** -0.5), dk, dv


def _blocks(q: Tensor) -> list[tuple[slice, int, int]]:
    """Groups of heads, and within each the blocks of queries from start to stop."""
    rows, steps = q.shape[:2]
    return [
        (slice(first, first + GROUP), start, min(start + BLOCK, steps))
        for first in range(0, rows, GROUP)
        for start in range(0, steps, BLOCK)
    ]


def head_loss(x: Tensor, heads: Tensor, targets: Tensor, mask: Tensor, softcap: float | None) -> Tensor:
    """The summed cross entropy in nats of each of G heads: float32 (G,).

    x        (R, W), the hidden rows
    heads    (G * N, W), head after head
    targets  (R, G) in [0, N) where the mask is True, anything elsewhere
    mask     (R, G) bool
    softcap  logits become softcap * tanh(logits / softcap); None leaves them
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        out: Tensor = _SlicedLoss.apply(x, heads, targets, mask, softcap)
        return out
    rows, count = targets.shape
    logits = cap(F.linear(x, heads.to(x.dtype)).float(), softcap)
    wanted = torch.where(mask, targets, -100).flatten()
    losses = F.cross_entropy(logits.view(rows * count, -1), wanted, ignore_index=-100, reduction="none")
    return losses.view(rows, count).sum(dim=0)


def cap(logits: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(logits / softcap), or the logits as they are when there is no cap."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _SlicedLoss(torch.autograd.Function):
    """The rows in slices whose logits stay in the cache, each slice's gradient made while they are at hand.

    So the forward pass makes the gradient too, for an upstream of ones, and the backward pass scales it. Only
    when the heads' losses are weighted differently is it made again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: Tensor, targets: Tensor, mask: Tensor, softcap: float | None
    ) -> Tensor:
        ones = torch.ones(targets.shape[1])
        if not any(ctx.needs_input_grad[:2]):
            return _sliced(x, heads, targets, mask, softcap, ones, None)
        grads = torch.empty_like(x), torch.zeros_like(heads)
        losses = _sliced(x, heads, targets, mask, softcap, ones, grads)
        ctx.save_for_backward(x, heads, targets, mask, *grads)
        ctx.softcap = softcap
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, heads, targets, mask, *grads = ctx.saved_tensors
        scale = upstream[0]
        if scale.numel() == 1 or bool((scale == scale[0]).all()):
            return grads[0] * scale[0], grads[1] * scale[0], None, None, None
        _sliced(x, heads, targets, mask, ctx.softcap, scale, (grads[0], grads[1].zero_()))
        return grads[0], grads[1], None, None, None


def _sliced(
    x: Tensor,
    heads: Tensor,
    targets: Tensor,
    mask: Tensor,
    softcap: float | None,
    scale: Tensor,
    grads: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The summed losses (G,); into `grads` those of x and heads, each head's loss counted `scale` times."""
    rows, count = targets.shape
    matrix = (heads.detach() * (2.0 / softcap if softcap else 1.0)).to(x.dtype)
    losses = torch.zeros(count)
    step = max(1, SLICE // heads.shape[0])
    for start in range(0, rows, step):
        part = slice(start, start + step)
        logits = (x[part] @ matrix.T).float().view(-1, count, heads.shape[0] // count)  # (r, G, N)
        valid = mask[part].float()
        wanted = torch.where(mask[part], targets[part], 0).unsqueeze(-1)  # (r, G, 1)
        if softcap is None:
            logits.sub_(logits.amax(dim=2, keepdim=True))
            bent, values = None, logits
        else:  # softcap * tanh(y / softcap) = 2 softcap * sigmoid(2 y / softcap) - softcap, a faster way
            bent = logits.sigmoid_()
            values = bent * (2.0 * softcap)  # at most 2 softcap: safe to raise e to
        right = values.gather(2, wanted).squeeze(-1)
        powers = values.exp_()
        sums = powers.sum(dim=2)
        losses += ((sums.log() - right) * valid).sum(dim=0)
        if grads is None:
            continue
        weight = valid * scale
        slopes = powers.mul_((weight / sums).unsqueeze(-1))  # the softmax, weighted
        slopes.scatter_add_(2, wanted, -weight.unsqueeze(-1))
        if bent is not None:
            slopes.mul_(torch.addcmul(bent, bent, bent, value=-1.0))  # of the sigmoid: b (1 - b)
        flat = slopes.flatten(1).to(x.dtype)
        # The chain rule's constants are left to here: values = 2 softcap sigmoid(x matrix^T), and matrix is
        # 2 / softcap of the heads. Towards x that makes 2 softcap (times matrix), towards the heads 4.
        torch.mm(flat, matrix, out=grads[0][part])
        grads[1].add_(flat.T @ x[part], alpha=4.0 if softcap else 1.0)
    if softcap is not None and grads is not None:
        grads[0].mul_(2.0 * softcap)
    return losses
