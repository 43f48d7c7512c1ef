"""EnCodec (arXiv 2210.13438): weights and network, for the 24, 32 and 48 kHz models.

One convolutional network either side of two LSTM layers; what differs between the published models is in
`EncodecConfig`. All three layouts of weights lead to the same names (those of transformers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audiogen_core.codec import Codec, CodecInfo, fingerprint
from audiogen_core.codecs.chunked import ChunkedCodec, Chunking
from audiogen_core.codecs.encodec_config import (
    EncodecConfig,
    from_audiocraft,
    from_shapes,
    from_transformers,
    to_transformers,
)
from audiogen_core.layers import (
    Conv,
    Convolutional,
    ConvTranspose,
    Elu,
    GroupNorm,
    Layer,
    Pointwise,
    Recurrent,
    Residual,
    Stage,
)
from audiogen_core.ops import LstmLayer, Ops, Signal
from audiogen_core.weights import Drop, FuseWeightNorm, Network, Rename, Rules, Weights

__all__ = [
    "IN_ORIGINAL",
    "IN_TRANSFORMERS",
    "ORIGINAL",
    "TRANSFORMERS",
    "EncodecConfig",
    "build",
    "from_audiocraft",
    "from_shapes",
    "from_transformers",
    "to_transformers",
]

IN_TRANSFORMERS = r"(encoder|decoder)\.layers\.\d+\.|quantizer\.layers\.\d+\."
IN_ORIGINAL = Network(r"encoder\.model\.\d+\.|decoder\.model\.\d+\.(conv|convtr|lstm)\.|quantizer\.vq\.")
"""How its tensors are known in either layout."""

TRANSFORMERS: Rules = (
    FuseWeightNorm(),
    Drop(r"quantizer\..*\.(inited|cluster_size|embed_avg)", "statistics of training"),
)
"""transformers' `EncodecModel` -> our names."""

ORIGINAL: Rules = (
    Rename(r"^(encoder|decoder)\.model\.", r"\1.layers."),
    Rename(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv."),
    Rename(r"\.(conv|convtr)\.norm\.", ".norm."),
    Rename(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    *TRANSFORMERS,
)
"""The original package and audiocraft -> our names. Layers are numbered alike."""


def build(config: EncodecConfig, weights: Weights, ops: Ops, name: str | None = None) -> Codec:
    """A codec from its configuration and weights in transformers' names, strictly.

    `name` is the codec's id; without one it is derived from the rate and the codebooks' hash. Raises
    WeightsError when a tensor is missing, left over, misshapen or not finite.
    """
    shape = (config.codebook_size, config.dimension)
    codebooks = np.stack(
        [weights.take(f"quantizer.layers.{i}.codebook.embed", shape) for i in range(config.codebooks)]
    )
    info = CodecInfo(
        name=name or f"encodec-{config.sample_rate // 1000}khz@{fingerprint(codebooks)}",
        sample_rate=config.sample_rate,
        channels=config.channels,
        hop_length=config.hop_length,
        codebooks=config.codebooks,
        codebook_size=config.codebook_size,
    )
    network = _Network(config, weights, ops)
    encoder, decoder = network.encoder(), network.decoder()
    weights.finish()
    if not config.chunk_length:
        return Codec(info, ops, encoder=encoder, decoder=decoder, codebooks=codebooks)
    chunking = Chunking(config.chunk_length, config.chunk_stride, config.hop_length)
    return ChunkedCodec(info, ops, encoder=encoder, decoder=decoder, codebooks=codebooks, chunking=chunking)


class _Network:
    """Builds the stages, taking each tensor once, under the name it has in transformers' layout.

    Every block is a stage of its own: so a chunk costs it only the few steps around that this block sees.
    """

    def __init__(self, config: EncodecConfig, weights: Weights, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops
        self.index: Iterator[int] = iter(())
        self.side = ""

    def encoder(self) -> list[Stage]:
        c = self.config
        self._begin("encoder")
        width = c.filters
        stages: list[Stage] = []
        layers = self._conv(self._next(), c.channels, width, c.kernel)
        for ratio in reversed(c.ratios):
            layers += self._residuals(width)
            layers += [self._elu(), *self._conv(self._next(), width, 2 * width, 2 * ratio, stride=ratio)]
            stages.append(Convolutional(layers, down=ratio))
            width, layers = 2 * width, []
        stages += self._lstm(width)
        layers = [self._elu(), *self._conv(self._next(), width, c.dimension, c.last_kernel)]
        return [*stages, Convolutional(layers)]

    def decoder(self) -> list[Stage]:
        c = self.config
        self._begin("decoder")
        width = c.filters * 2 ** len(c.ratios)
        stages: list[Stage] = [Convolutional(self._conv(self._next(), c.dimension, width, c.kernel))]
        stages += self._lstm(width)
        for ratio in c.ratios:
            layers = [self._elu(), *self._conv_transpose(self._next(), width, width // 2, ratio)]
            width //= 2
            stages.append(Convolutional([*layers, *self._residuals(width)], up=ratio))
        return [
            *stages,
            Convolutional([self._elu(), *self._conv(self._next(), width, c.channels, c.last_kernel)]),
        ]

    def _begin(self, side: str) -> None:
        self.side = side
        self.index = iter(range(1 << 16))

    def _next(self) -> str:
        return f"{self.side}.layers.{next(self.index)}"

    def _elu(self) -> Elu:
        next(self.index)
        return Elu()

    def _conv(
        self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> list[Layer]:
        weight = self.weights.take(f"{name}.conv.weight", (outputs, inputs, kernel))
        bias = self.weights.take(f"{name}.conv.bias", (outputs,))
        total = (kernel - 1) * dilation + 1 - stride  # so that as many steps come out as strides go in
        right = 0 if self.config.causal else total // 2
        conv = Conv(
            weight=self.ops.conv_weight(weight),
            bias=self.ops.vector(bias),
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            left=total - right,
            right=right,
            mode=self.config.pad_mode,
            fill_last=True,
        )
        return [conv, *self._norm(name, outputs)]

    def _conv_transpose(self, name: str, inputs: int, outputs: int, ratio: int) -> list[Layer]:
        kernel = 2 * ratio
        weight = self.weights.take(f"{name}.conv.weight", (inputs, outputs, kernel))
        bias = self.weights.take(f"{name}.conv.bias", (outputs,))
        surplus = kernel - ratio
        right = math.ceil(surplus * self.config.trim_right_ratio) if self.config.causal else surplus // 2
        norm = self._norm(name, outputs)  # it sees the surplus too, which is therefore cut off behind it
        conv = ConvTranspose(
            weight=self.ops.conv_transpose_weight(weight),
            bias=self.ops.vector(bias),
            kernel=kernel,
            stride=ratio,
            left=0 if norm else surplus - right,
            right=0 if norm else right,
        )
        return [conv, *norm, _Trim(surplus - right, right)] if norm else [conv]

    def _norm(self, name: str, width: int) -> list[Layer]:
        if not self.config.group_norm:
            return []
        weight, bias = (self.weights.take(f"{name}.norm.{part}", (width,)) for part in ("weight", "bias"))
        return [GroupNorm(self.ops.vector(weight), self.ops.vector(bias))]

    def _residuals(self, width: int) -> list[Layer]:
        c = self.config
        layers: list[Layer] = []
        for j in range(c.residual_layers):
            name = self._next()
            hidden = width // c.compress
            branch: list[Layer] = [
                Elu(),
                *self._conv(
                    f"{name}.block.1", width, hidden, c.residual_kernel, dilation=c.dilation_growth**j
                ),
                Elu(),
                *self._conv(f"{name}.block.3", hidden, width, 1),
            ]
            shortcut = self._conv(f"{name}.shortcut", width, width, 1) if c.shortcut else ()
            layers.append(Residual(branch, shortcut))
        return layers

    def _lstm(self, width: int) -> list[Stage]:
        if not self.config.lstm_layers:
            return []
        name = self._next()
        take = self.weights.take
        layers = [
            LstmLayer(
                take(f"{name}.lstm.weight_ih_l{i}", (4 * width, width)),
                take(f"{name}.lstm.weight_hh_l{i}", (4 * width, width)),
                take(f"{name}.lstm.bias_ih_l{i}", (4 * width,))
                + take(f"{name}.lstm.bias_hh_l{i}", (4 * width,)),
            )
            for i in range(self.config.lstm_layers)
        ]
        return [Recurrent(self.ops.lstm(layers))]


@dataclass(frozen=True)
class _Trim(Pointwise):
    """Cuts off what a transposed convolution makes too much, after its norm: only within fixed chunks."""

    left: int
    right: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.trim(x, self.left, self.right)
