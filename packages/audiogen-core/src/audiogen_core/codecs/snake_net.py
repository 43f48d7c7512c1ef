"""The convolutional network of DAC, LAC and Oobleck, and how files name its tensors.

The three differ in a few numbers, in the residual part of the decoder's blocks, and in whether the snake's
parameters are stored as logarithms. Everything else is here, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from audiogen_core.layers import (
    Append,
    Conv,
    Convolutional,
    ConvTranspose,
    Layer,
    Mean,
    PadToMultiple,
    Rechunk,
    Residual,
    Snake,
    Stage,
    Tanh,
)
from audiogen_core.ops import Ops, Weight
from audiogen_core.weights import FuseWeightNorm, Rename, Rule, Rules, Weights

Blocks = Literal["units", "branches"]
"""What follows the transposed convolution in a decoder's block: three residual units one after another
(DAC, Oobleck), or the mean of three branches of three each (LAC; HiFi-GAN's fusion, arXiv 2010.05646)."""

PIECE = {True: 1 << 20, False: 1 << 24}
"""Numbers in one signal that a block works on at a time, on a CPU (near its cache) and elsewhere."""

_DILATIONS = (1, 3, 9)  # of the units in a block
_BRANCH_KERNELS = (3, 7, 11)
_BRANCH_DILATIONS = (1, 3, 5)
_UNIT_PARTS = ("snake1", "conv1", "snake2", "conv2")


class SnakeNet:
    """Builds the two stages, taking each tensor once under our names.

    log_snake  the snake's parameters are logarithms, and it has two of them (Oobleck)

    Every block is a stage of its own. So a long clip costs each block only the few steps around a chunk that
    this block sees, and the wide blocks at a high rate can work in small pieces.
    """

    def __init__(self, weights: Weights, ops: Ops, *, log_snake: bool = False) -> None:
        self.weights = weights
        self.ops = ops
        self.log_snake = log_snake
        self.piece = PIECE[ops.chunk_seconds < 10]

    def encoder(
        self, channels: int, widths: Sequence[int], strides: Sequence[int], outputs: int
    ) -> list[Stage]:
        """Audio of `channels` -> a signal of `outputs` channels at one step per hop.

        widths  channels before the first block and after each; one more than there are strides
        """
        hop = math.prod(strides)
        stages: list[Stage] = [Convolutional([PadToMultiple(hop)], down=hop, up=hop)]
        layers: list[Layer] = [self._conv("encoder.first", channels, widths[0], 7)]
        for i, (stride, (width, wider)) in enumerate(zip(strides, pairwise(widths), strict=True)):
            name = f"encoder.blocks.{i}"
            layers += self._units(name, width)
            layers += [self._snake(f"{name}.snake", width), self._down(f"{name}.conv", width, wider, stride)]
            stages += self._in_pieces(Convolutional(layers, down=stride), max(width, wider // stride))
            layers = []
        last: list[Layer] = [
            self._snake("encoder.snake", widths[-1]),
            self._conv("encoder.last", widths[-1], outputs, 3),
        ]
        return [*stages, Convolutional(last)]

    def decoder(
        self,
        inputs: int,
        widths: Sequence[int],
        strides: Sequence[int],
        channels: int,
        *,
        blocks: Blocks = "units",
        last_bias: bool = True,
        tanh: bool = True,
    ) -> list[Stage]:
        """A signal of `inputs` channels -> audio of `channels`, a hop of samples for each step.

        widths  channels before the first block and after each; one more than there are strides
        """
        stages: list[Stage] = []
        layers: list[Layer] = [self._conv("decoder.first", inputs, widths[0], 7)]
        missing = 0  # samples that blocks of odd stride make too few
        for i, (stride, (width, narrower)) in enumerate(zip(strides, pairwise(widths), strict=True)):
            name = f"decoder.blocks.{i}"
            layers += [self._snake(f"{name}.snake", width), self._up(f"{name}.conv", width, narrower, stride)]
            if blocks == "units":
                layers += self._units(name, narrower)
            else:
                layers.append(self._branches(name, narrower))
            missing = missing * stride + stride % 2
            stages += self._in_pieces(Convolutional(layers, up=stride), max(width, narrower * stride))
            layers = []
        last: list[Layer] = [
            self._snake("decoder.snake", widths[-1]),
            self._conv("decoder.last", widths[-1], channels, 7, bias=last_bias),
        ]
        if tanh:
            last.append(Tanh())
        stages.append(Convolutional(last))
        return [*stages, Convolutional([Append(missing)])] if missing else stages

    def _in_pieces(self, stage: Convolutional, width: int) -> list[Stage]:
        """The stage on pieces that make signals of `piece` numbers, `width` per step that comes in."""
        least = 8 * sum(stage.context)
        return [Rechunk(max(least, self.piece // width)), stage]

    def _units(self, name: str, width: int) -> list[Layer]:
        return [
            self._unit(f"{name}.units.{j}", width, 7, dilation, 1) for j, dilation in enumerate(_DILATIONS)
        ]

    def _branches(self, name: str, width: int) -> Mean:
        return Mean(
            [
                [
                    self._unit(f"{name}.branches.{m}.{j}", width, kernel, dilation, kernel)
                    for j, dilation in enumerate(_BRANCH_DILATIONS)
                ]
                for m, kernel in enumerate(_BRANCH_KERNELS)
            ]
        )

    def _unit(self, name: str, width: int, kernel: int, dilation: int, last_kernel: int) -> Residual:
        return Residual(
            [
                self._snake(f"{name}.snake1", width),
                self._conv(f"{name}.conv1", width, width, kernel, dilation=dilation),
                self._snake(f"{name}.snake2", width),
                self._conv(f"{name}.conv2", width, width, last_kernel),
            ]
        )

    def _conv(
        self, name: str, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, bias: bool = True
    ) -> Conv:
        """Of odd kernel, with as many steps out as in."""
        pad = dilation * (kernel - 1) // 2
        return Conv(
            self.ops.conv_weight(self.weights.take(f"{name}.weight", (outputs, inputs, kernel))),
            self._bias(name, outputs) if bias else None,
            kernel,
            dilation=dilation,
            left=pad,
            right=pad,
        )

    def _down(self, name: str, inputs: int, outputs: int, stride: int) -> Conv:
        pad = math.ceil(stride / 2)
        return Conv(
            self.ops.conv_weight(self.weights.take(f"{name}.weight", (outputs, inputs, 2 * stride))),
            self._bias(name, outputs),
            2 * stride,
            stride,
            left=pad,
            right=pad,
        )

    def _up(self, name: str, inputs: int, outputs: int, stride: int) -> ConvTranspose:
        cut = math.ceil(stride / 2)
        return ConvTranspose(
            self.ops.conv_transpose_weight(
                self.weights.take(f"{name}.weight", (inputs, outputs, 2 * stride))
            ),
            self._bias(name, outputs),
            2 * stride,
            stride,
            left=cut,
            right=cut,
        )

    def _bias(self, name: str, width: int) -> Weight:
        return self.ops.vector(self.weights.take(f"{name}.bias", (width,)))

    def _snake(self, name: str, width: int) -> Snake:
        alpha = self._per_channel(f"{name}.alpha", width)
        if not self.log_snake:
            return Snake(self.ops.vector(alpha))
        beta = self._per_channel(f"{name}.beta", width)
        return Snake(self.ops.vector(np.exp(alpha)), self.ops.vector(np.exp(beta)))

    def _per_channel(self, name: str, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """One number per channel, stored as (C,) or (1, C, 1)."""
        flat = name in self.weights and len(self.weights.shape(name)) == 1
        return self.weights.take(name, (width,) if flat else (1, width, 1))


def numbered(encoder_blocks: int, decoder_blocks: int) -> Rules:
    """Names of nested sequences -> ours: audiotools' DAC and LAC, and stable-audio-tools' Oobleck.

    There a layer's name is its place in the sequence: `encoder.block.2.block.0.block.1.weight_v`.
    """
    rules: list[Rule] = [Rename(r"\.(block|model|layers?)(?=\.\d)", ""), FuseWeightNorm()]
    for side, count in (("encoder", encoder_blocks), ("decoder", decoder_blocks)):
        rules += [
            Rename(rf"^{side}\.0\.", f"{side}.first."),
            Rename(rf"^{side}\.{count + 1}\.", f"{side}.snake."),
            Rename(rf"^{side}\.{count + 2}\.", f"{side}.last."),
        ]
        rules += [Rename(rf"^{side}\.{i + 1}\.", f"{side}.blocks.{i}.") for i in range(count)]
    rules += [
        Rename(r"^(encoder\.blocks\.\d+)\.([0-2])\.", r"\1.units.\2."),
        Rename(r"^(encoder\.blocks\.\d+)\.3\.", r"\1.snake."),
        Rename(r"^(encoder\.blocks\.\d+)\.4\.", r"\1.conv."),
        Rename(r"^(decoder\.blocks\.\d+)\.0\.", r"\1.snake."),
        Rename(r"^(decoder\.blocks\.\d+)\.1\.", r"\1.conv."),
        Rename(r"^(decoder\.blocks\.\d+)\.2\.mrf_blocks\.", r"\1.branches."),
        *(Rename(rf"^(decoder\.blocks\.\d+)\.{j + 2}\.", rf"\1.units.{j}.") for j in range(3)),
        *(
            Rename(rf"\.(units\.\d|branches\.\d\.\d)\.{k}\.", rf".\1.{part}.")
            for k, part in enumerate(_UNIT_PARTS)
        ),
    ]
    return rules


NAMED: Rules = (
    FuseWeightNorm(),
    Rename(r"\.block\.", ".blocks."),
    *(Rename(rf"\.res_unit{j + 1}\.", f".units.{j}.") for j in range(3)),
    Rename(r"^((?:encoder|decoder)\.blocks\.\d+)\.snake1\.", r"\1.snake."),
    Rename(r"^((?:encoder|decoder)\.blocks\.\d+)\.(conv1|conv_t1)\.", r"\1.conv."),
    Rename(r"^(encoder|decoder)\.conv1\.", r"\1.first."),
    Rename(r"^(encoder|decoder)\.snake1\.", r"\1.snake."),
    Rename(r"^(encoder|decoder)\.conv2\.", r"\1.last."),
)
"""Names of transformers' `DacModel` and diffusers' `AutoencoderOobleck` -> ours."""
