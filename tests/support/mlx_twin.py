"""EnCodec's causal network as one would write it for mlx alone: the peer the adapter is measured against."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def _conv(x: mx.array, weight: mx.array, bias: mx.array, stride: int = 1, dilation: int = 1) -> mx.array:
    total = (weight.shape[1] - 1) * dilation + 1 - stride
    extra = (-x.shape[1]) % stride
    parts = [x[:, total:0:-1], x] if total else [x]
    if extra:
        parts.append(x[:, x.shape[1] - 2 : x.shape[1] - 2 - extra : -1])
    return mx.conv1d(mx.concatenate(parts, axis=1), weight, stride=stride, dilation=dilation) + bias


class Twin:
    """Causal, weight norm already fused, a shortcut convolution, two LSTM layers."""

    def __init__(self, config, weights) -> None:
        self.config = config
        self.weights = weights
        c = config
        self.encoder = [self._take("encoder.layers.0", c.filters, c.channels, c.kernel)]
        self.down = []
        width, index = c.filters, 1
        for ratio in reversed(c.ratios):
            residual = self._residual(f"encoder.layers.{index}", width)
            down = self._take(f"encoder.layers.{index + 2}", 2 * width, width, 2 * ratio)
            self.down.append((residual, down, ratio))
            width, index = 2 * width, index + 3
        self.encoder_lstm = self._lstm(f"encoder.layers.{index}", width)
        self.encoder_tail = self._take(f"encoder.layers.{index + 2}", c.dimension, width, c.last_kernel)
        self.decoder_head = self._take("decoder.layers.0", width, c.dimension, c.kernel)
        self.decoder_lstm = self._lstm("decoder.layers.1", width)
        self.up = []
        index = 3
        for ratio in c.ratios:
            weight = weights.take(f"decoder.layers.{index}.conv.weight", (width, width // 2, 2 * ratio))
            bias = weights.take(f"decoder.layers.{index}.conv.bias", (width // 2,))
            up = mx.array(np.ascontiguousarray(weight.transpose(1, 2, 0))), mx.array(bias)
            width //= 2
            self.up.append((up, self._residual(f"decoder.layers.{index + 1}", width), ratio))
            index += 3
        self.decoder_tail = self._take(f"decoder.layers.{index}", c.channels, width, c.last_kernel)
        shape = (c.codebook_size, c.dimension)
        self.books = [
            mx.array(weights.take(f"quantizer.layers.{k}.codebook.embed", shape)) for k in range(c.codebooks)
        ]

    def encode(self, x: mx.array) -> mx.array:
        x = _conv(x, *self.encoder[0])
        for residual, down, ratio in self.down:
            x = _conv(nn.elu(self._run(residual, x)), *down, stride=ratio)
        x = _conv(nn.elu(self._skip(self.encoder_lstm, x)), *self.encoder_tail)
        codes = []
        for book in self.books:
            codes.append(mx.argmax(x @ book.T - 0.5 * mx.sum(book * book, axis=1), axis=-1))
            x = x - book[codes[-1]]
        return mx.stack(codes)

    def decode(self, codes: mx.array) -> mx.array:
        x = sum(book[row] for book, row in zip(self.books, codes, strict=True))
        x = self._skip(self.decoder_lstm, _conv(x, *self.decoder_head))
        for (weight, bias), residual, ratio in self.up:
            y = mx.conv_transpose1d(nn.elu(x), weight, stride=ratio) + bias
            x = self._run(residual, y[:, : y.shape[1] - ratio])
        return _conv(nn.elu(x), *self.decoder_tail)

    def _take(self, name: str, outputs: int, inputs: int, kernel: int) -> tuple[mx.array, mx.array]:
        weight = self.weights.take(f"{name}.conv.weight", (outputs, inputs, kernel))
        bias = self.weights.take(f"{name}.conv.bias", (outputs,))
        return mx.array(np.ascontiguousarray(weight.transpose(0, 2, 1))), mx.array(bias)

    def _residual(self, name: str, width: int):
        first = self._take(f"{name}.block.1", width // 2, width, 3)
        second = self._take(f"{name}.block.3", width, width // 2, 1)
        return first, second, self._take(f"{name}.shortcut", width, width, 1)

    def _run(self, residual, x: mx.array) -> mx.array:
        first, second, shortcut = residual
        return _conv(nn.elu(_conv(nn.elu(x), *first)), *second) + _conv(x, *shortcut)

    def _lstm(self, name: str, width: int) -> list[nn.LSTM]:
        layers = []
        for i in range(2):
            layer = nn.LSTM(width, width)
            layer.Wx = mx.array(self.weights.take(f"{name}.lstm.weight_ih_l{i}", (4 * width, width)))
            layer.Wh = mx.array(self.weights.take(f"{name}.lstm.weight_hh_l{i}", (4 * width, width)))
            layer.bias = mx.array(
                self.weights.take(f"{name}.lstm.bias_ih_l{i}", (4 * width,))
                + self.weights.take(f"{name}.lstm.bias_hh_l{i}", (4 * width,))
            )
            layers.append(layer)
        return layers

    def _skip(self, lstm: list[nn.LSTM], x: mx.array) -> mx.array:
        y = x
        for layer in lstm:
            y, _ = layer(y)
        return y + x
