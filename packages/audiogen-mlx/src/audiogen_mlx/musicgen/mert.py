"""MERT (arXiv 2306.00107), which hears the style of a clip: a HuBERT (arXiv 2106.07447) trained on music.

Convolutions make 75 vectors a second from sound at 24 kHz, a wide grouped convolution adds where they
stand, and transformer layers, each normalised at its end, relate them. It is not part of a MusicGen
checkpoint and has a licence of its own.
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.nn.layers.convolution import Conv1d
from mlx.nn.layers.normalization import LayerNorm

from audiogen_core.errors import AudioError, WeightsError
from audiogen_core.musicgen.mert import CONV_EPS, IGNORED, MertConfig, pieces, read_mert
from audiogen_mlx.nn import Linear, Module, attend, gelu, load_strict, mean_over_time


class Mert(Module):
    """Sound to vectors, in float32. Make one with `load`."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.config = config
        features, width = config.conv_channels[-1], config.width
        inputs = (1, *config.conv_channels)
        convs = zip(inputs, config.conv_channels, config.conv_kernels, config.conv_strides, strict=False)
        self.convs = [Conv1d(*sizes, bias=config.conv_bias) for sizes in convs]
        self.conv_norm = OverTime(config.conv_channels[0])
        self.projection_norm = LayerNorm(features, config.eps)
        self.projection = Linear(features, width)
        self.places = Places(config)
        self.norm = LayerNorm(width, config.eps)
        self.blocks = [Block(config) for _ in range(config.layers)]

    @classmethod
    def load(cls, folder: str | Path) -> Mert:
        """From a folder as transformers writes it: config.json beside safetensors or pytorch_model.bin.

        Raises ModelError when it holds no MERT, WeightsError when a parameter is missing, misshapen, not
        finite or unknown.
        """
        config, table = read_mert(folder)
        mert, names = cls(config), pieces(config, table)
        load_strict(mert, table, pieces=names, ignore=IGNORED)
        if not mert.places.fuse():
            raise WeightsError(
                f"{table.source}: {names['places.direction'][0]} holds only zeros somewhere; it is damaged"
            )
        return mert

    def __call__(self, samples: mx.array) -> mx.array:
        """Sound (B, T) at 24 kHz -> what the last layer gives, (B, frames, width).

        Raises AudioError when the sound is too short for a single vector.
        """
        if self.config.frames(samples.shape[1]) < 1:
            raise AudioError(f"{samples.shape[1]} samples are too few to hear a style in")
        x = samples[..., None]  # (B, T, 1)
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = gelu(self.conv_norm(x) if index == 0 else x)
            mx.eval(x)  # long clips need not hold every stage at once
        x = self.projection(self.projection_norm(x))
        x = self.norm(x + self.places(x))
        for block in self.blocks:
            x = block(x)
        return x


class OverTime(Module):
    """Every channel of (B, T, C) over time to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = mx.ones((channels,))
        self.bias = mx.zeros((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        centred = x - mean_over_time(x)
        variance = mean_over_time(mx.square(centred))
        return centred * mx.rsqrt(variance + CONV_EPS) * self.weight + self.bias


class Places(Module):
    """What a wide convolution over neighbours makes of (B, F, width): where each vector stands.

    It is stored under a weight norm that is taken at each of its taps over all channels, so there are as
    many gains as taps; `fuse` makes one weight of gains and directions.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.kernel, self.groups = config.position_kernel, config.position_groups
        self.gain = mx.ones((1, 1, self.kernel))
        self.direction = mx.ones((config.width, config.width // self.groups, self.kernel))
        self.bias = mx.zeros((config.width,))

    def fuse(self) -> bool:
        """Whether there is a direction at every tap."""
        gain, direction = np.array(self.gain), np.array(self.direction)
        length = np.sqrt(np.square(direction, dtype=np.float64).sum(axis=(0, 1), keepdims=True))
        if not length.all():
            return False
        weight = (direction * (gain / length)).astype(np.float32)
        self.weight = mx.array(np.ascontiguousarray(weight.transpose(0, 2, 1)))  # (width, kernel, in a group)
        del self.gain, self.direction
        return True

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.conv1d(x, self.weight, padding=self.kernel // 2, groups=self.groups)
        y = y[:, : x.shape[1]] + self.bias  # an even kernel makes one vector too many
        return gelu(y)


class Block(Module):
    """Attention and a feed-forward part, the sum normalised after each."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.query, self.key, self.value = (Linear(width, width) for _ in range(3))
        self.out = Linear(width, width)
        self.attention_norm = LayerNorm(width, config.eps)
        self.up = Linear(width, config.hidden)
        self.down = Linear(config.hidden, width)
        self.final_norm = LayerNorm(width, config.eps)

    def __call__(self, x: mx.array) -> mx.array:
        heard = attend(self.query(x), self.key(x), self.value(x), self.heads)
        x = self.attention_norm(x + self.out(heard))
        x = self.final_norm(x + self.down(gelu(self.up(x))))
        return x
