"""What the "modern" preset is made of: RMSNorm, rotary positions, squared ReLU.

Each has its plain formula, which a compiler turns into one kernel, and an autograd function for running
without one, which makes fewer passes over memory: about half the time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

EPS = 1e-6
ROPE_BASE = 10_000.0


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
