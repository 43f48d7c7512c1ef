"""A codec of LAC's shape with random weights, written over ops: proves that export works."""

from __future__ import annotations

import math

import numpy as np
import torch

from audiogen_core.codecs.layers import Conv, ConvTranspose, Layer, Residual, Snake, Tanh, run
from audiogen_core.ops import Ops

RATIOS = (2, 4, 5, 8)


def encoder(ops: Ops, width: int = 8, latent: int = 12) -> list[Layer]:
    make = _Maker(ops, seed=1)
    layers: list[Layer] = [make.conv(1, width, 7)]
    for ratio in RATIOS:
        layers += [make.residual(width, dilation) for dilation in (1, 3, 9)]
        layers += [make.snake(width), make.conv(width, 2 * width, 2 * ratio, stride=ratio)]
        width *= 2
    return [*layers, make.snake(width), make.conv(width, latent, 3)]


def decoder(ops: Ops, width: int = 128, latent: int = 12) -> list[Layer]:
    make = _Maker(ops, seed=2)
    layers: list[Layer] = [make.conv(latent, width, 7)]
    for ratio in reversed(RATIOS):
        layers += [make.snake(width), make.conv_transpose(width, width // 2, ratio)]
        width //= 2
        layers += [make.residual(width, dilation) for dilation in (1, 3, 9)]
    return [*layers, make.snake(width), make.conv(width, 1, 7), Tanh()]


class Shell(torch.nn.Module):
    """What it takes to export layers over ops: hold them, and call them."""

    def __init__(self, ops: Ops, layers: list[Layer]) -> None:
        super().__init__()
        self.ops = ops
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return run(self.ops, self.layers, x)


class _Maker:
    def __init__(self, ops: Ops, seed: int) -> None:
        self.ops = ops
        self.rng = np.random.default_rng(seed)

    def random(self, *shape: int) -> np.ndarray:
        scale = 0.4 / math.sqrt(max(1, math.prod(shape[1:])))  # activations stay of order one
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def snake(self, width: int) -> Snake:
        return Snake(self.ops.vector(np.abs(self.random(width)) + 1))

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> Conv:
        pad = math.ceil(stride / 2) if stride > 1 else dilation * (kernel - 1) // 2
        weight = self.ops.conv_weight(self.random(outputs, inputs, kernel))
        bias = self.ops.vector(self.random(outputs))
        return Conv(weight, bias, kernel, stride, dilation, pad, pad)

    def conv_transpose(self, inputs: int, outputs: int, ratio: int) -> ConvTranspose:
        pad = math.ceil(ratio / 2)
        weight = self.ops.conv_transpose_weight(self.random(inputs, outputs, 2 * ratio))
        bias = self.ops.vector(self.random(outputs))
        return ConvTranspose(weight, bias, 2 * ratio, ratio, pad, pad - ratio % 2)

    def residual(self, width: int, dilation: int) -> Residual:
        branch = [self.snake(width), self.conv(width, width, 7, dilation=dilation)]
        return Residual([*branch, self.snake(width), self.conv(width, width, 1)])
