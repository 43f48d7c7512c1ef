"""The demo codec's network as torch trains it; `audiogen_core.codecs.frame` runs the same one.

Names of parameters are those of the exported file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiogen_core.codecs.frame import FrameConfig


class Block(nn.Module):
    """A ConvNeXt block (arXiv 2201.03545) over time; signals are (B, F, width)."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, config.expansion * width)
        self.down = nn.Linear(config.expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # (B, F, width)
        y = self.down(F.gelu(self.up(self.norm(y))))
        out: Tensor = x + self.scale * y
        return out


class Stack(nn.Module):
    """A linear layer, blocks, and another linear layer."""

    def __init__(self, config: FrameConfig, inputs: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(blocks))
        self.output = nn.Linear(config.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.output(x)
        return y


class Network(nn.Module):
    """Encoder and decoder without the quantiser between them."""

    input_scale: Tensor
    output_scale: Tensor
    hann: Tensor

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stack(config, 2 * config.bins, config.encoder_blocks, config.dimension)
        self.decoder = Stack(config, config.dimension, config.decoder_blocks, 2 * config.bins)
        self.register_buffer("input_scale", torch.tensor(1.0))
        self.register_buffer("output_scale", torch.tensor(1.0))
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Samples (B, F * hop_length) -> latents (B, F, dimension)."""
        latents: Tensor = self.encoder(self.features(x))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, F, dimension) -> samples (B, F * hop_length)."""
        drawn = self.decoder(latents).float() * self.output_scale
        bins = self.config.bins
        return self.inverse(torch.complex(drawn[..., :bins], drawn[..., bins:]))

    def features(self, x: Tensor) -> Tensor:
        """The compressed spectrum the encoder sees: (B, F, 2 * bins)."""
        return compress(self.spectrum(x), self.config) * self.input_scale

    def spectrum(self, x: Tensor) -> Tensor:
        """Samples (B, F * hop_length) -> complex (B, F, bins)."""
        c = self.config
        edge = (c.window - c.hop_length) // 2
        padded = F.pad(x, (edge, edge))
        spectrum = torch.stft(
            padded, c.window, c.hop_length, window=self.hann, center=False, return_complex=True
        )
        return spectrum.transpose(1, 2)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Complex (B, F, bins) -> samples (B, F * hop_length), windows overlapped and evened out."""
        c = self.config
        frames = spectrum.shape[1]
        edge = (c.window - c.hop_length) // 2
        windows = torch.fft.irfft(spectrum, n=c.window) * self.hann  # (B, F, window)
        total = _overlap_add(windows, c.hop_length)
        weight = _overlap_add((self.hann**2)[None, None].expand(1, frames, c.window), c.hop_length)
        return (total / weight.clamp_min(1e-3))[:, edge : edge + frames * c.hop_length]


def compress(spectrum: Tensor, config: FrameConfig) -> Tensor:
    """Complex (B, F, bins) -> real and imaginary parts (B, F, 2 * bins), magnitudes to a power below 1."""
    power = spectrum.real**2 + spectrum.imag**2 + config.floor
    gain = power ** ((config.compression - 1) / 2)
    return torch.cat([spectrum.real * gain, spectrum.imag * gain], -1)


def _overlap_add(windows: Tensor, hop_length: int) -> Tensor:
    """(B, F, window) -> (B, (F - 1) * hop_length + window)."""
    frames, window = windows.shape[1:]
    total = (1, (frames - 1) * hop_length + window)
    return F.fold(windows.transpose(1, 2), total, (1, window), stride=(1, hop_length))[:, 0, 0]


@torch.no_grad()
def balance(network: Network, x: Tensor) -> None:
    """Scale weights until every part puts out unit variance on some data (in the manner of arXiv 1511.06422).

    With torch's own initial weights the latents all but vanish and training stalls.
    """
    spectrum = network.spectrum(x)
    network.input_scale.fill_(1 / float(compress(spectrum, network.config).std()))
    network.output_scale.fill_(float(spectrum.abs().pow(2).mean().sqrt()))
    for _ in range(3):
        latents = _balance_stack(network.encoder, network.features(x), 1.0)
        _balance_stack(network.decoder, latents, 0.5)


def _balance_stack(stack: Stack, x: Tensor, output: float) -> Tensor:
    x = _balance_linear(stack.input, x, 1.0)
    for block in stack.blocks:
        assert isinstance(block, Block)
        block.down.weight /= (block(x) - x).std() / 0.3
        x = block(x)
    return _balance_linear(stack.output, x, output)


def _balance_linear(layer: nn.Linear, x: Tensor, deviation: float) -> Tensor:
    layer.weight /= layer(x).std() / deviation
    y: Tensor = layer(x)
    return y
