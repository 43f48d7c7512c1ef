"""The cross entropy of all heads at once, without ever holding all the logits.

On a CPU the rows are worked off in slices whose logits stay in the cache, and the gradient of a slice is made
while its logits are at hand. On other devices the plain formula is left to the compiler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SLICE = 2**20  # logits held at a time


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
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: Tensor, targets: Tensor, mask: Tensor, softcap: float | None
    ) -> Tensor:
        ones = torch.ones(targets.shape[1])
        if not any(ctx.needs_input_grad[:2]):
            return _work(x, heads, targets, mask, softcap, ones, None)
        grads = torch.empty_like(x), torch.zeros_like(heads)
        losses = _work(x, heads, targets, mask, softcap, ones, grads)
        ctx.save_for_backward(x, heads, targets, mask, *grads)
        ctx.softcap = softcap
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, heads, targets, mask, *grads = ctx.saved_tensors
        scale = upstream[0]
        if scale.numel() == 1 or bool((scale == scale[0]).all()):
            return grads[0] * scale[0], grads[1] * scale[0], None, None, None
        _work(x, heads, targets, mask, ctx.softcap, scale, (grads[0], grads[1].zero_()))
        return grads[0], grads[1], None, None, None


def _work(
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
            slopes.mul_(torch.addcmul(bent, bent, bent, value=-1.0))
        flat = slopes.flatten(1).to(x.dtype)
        torch.mm(flat, matrix, out=grads[0][part])
        grads[1].add_(flat.T @ x[part], alpha=4.0 if softcap else 1.0)
    if softcap is not None and grads is not None:
        grads[0].mul_(2.0 * softcap)
    return losses
