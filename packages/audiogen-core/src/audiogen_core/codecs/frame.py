"""The demo codec: a short-time Fourier transform, a small network at frame rate, and the inverse transform.

All of the network runs at 75 frames a second, so it trains and runs in little time on a CPU. The encoder
sees the compressed complex spectrum (ConvNeXt blocks, arXiv 2201.03545), the decoder draws a complex
spectrum directly. Trained on composed music only: see the model card beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.codec import Codec, CodecInfo, fingerprint
from audiogen_core.errors import ModelError
from audiogen_core.formats.safetensors_file import read_safetensors
from audiogen_core.layers import Conv, Convolutional, ConvTranspose, Layer, Pointwise, Residual
from audiogen_core.ops import Float, Ops, Signal, Weight
from audiogen_core.settings import from_mapping, parse_json
from audiogen_core.weights import Weights, read

FORMAT = "audiogen-frame-codec-1"


@dataclass(frozen=True)
class FrameConfig:
    """The facts of a frame codec. `window` and `hop_length` in samples, `kernel` in frames."""

    sample_rate: int = 24000
    hop_length: int = 320
    window: int = 1280
    width: int = 256
    expansion: int = 3
    kernel: int = 7
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    dimension: int = 128
    codebooks: int = 8
    codebook_size: int = 1024
    compression: float = 0.3  # magnitudes are raised to this power for the encoder
    floor: float = 1e-6  # added to the power spectrum before
    input_scale: float = 1.0
    output_scale: float = 1.0

    @property
    def bins(self) -> int:
        return self.window // 2 + 1

    @classmethod
    def from_json(cls, text: str) -> FrameConfig:
        """Raises ModelError unless the text holds exactly these fields."""
        where = "the frame codec's configuration is damaged"
        config = from_mapping(cls, parse_json(text, where), where, ModelError, complete=True)
        for name, value in asdict(config).items():
            if not 0 < value < 1 << 20:
                raise ModelError(f"{where}: {name} is {value!r}")
        if config.window % config.hop_length or config.window // config.hop_length % 2:
            raise ModelError(f"{where}: the window is not an even number of hops")
        if config.kernel % 2 == 0:
            raise ModelError(f"{where}: the kernel is not odd")
        return config

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def load_demo(ops: Ops) -> Codec:
    """The codec that comes with the package."""
    with as_file(files("audiogen_core") / "data" / "demo.safetensors") as path:
        return load(path, ops, name="demo")


def load(path: Path, ops: Ops, name: str | None = None) -> Codec:
    """A frame codec from its file: safetensors with the configuration in the metadata.

    Raises ModelError for another file and WeightsError when tensors do not fit the configuration.
    """
    return build(*opened(path), ops, name)


def opened(path: Path) -> tuple[FrameConfig, Weights]:
    """The configuration and the weights in a file. Raises ModelError for another file."""
    weights = read(path)
    return FrameConfig.from_json(metadata(path, FORMAT)), weights


def metadata(path: Path, kind: str) -> str:
    """The configuration in the metadata of a safetensors file. Raises ModelError for another kind of file."""
    _, facts = read_safetensors(path)
    if facts.get("format") != kind:
        raise ModelError(f"{path}: not a frame codec (no {kind!r} in its metadata)")
    return facts.get("config", "")


def build(config: FrameConfig, weights: Weights, ops: Ops, name: str | None = None) -> Codec:
    """A codec from its configuration and weights, strictly."""
    shape = (config.codebooks, config.codebook_size, config.dimension)
    codebooks = weights.take("codebooks", shape)
    info = CodecInfo(
        name=name or f"frame-{config.sample_rate // 1000}khz@{fingerprint(codebooks)}",
        sample_rate=config.sample_rate,
        channels=1,
        hop_length=config.hop_length,
        codebooks=config.codebooks,
        codebook_size=config.codebook_size,
    )
    network = Network(config, weights, ops)
    encoder = [Convolutional(network.encoder_layers(), down=config.hop_length)]
    decoder = [Convolutional(network.decoder_layers(), up=config.hop_length)]
    weights.finish()
    return Codec(info, ops, encoder=encoder, decoder=decoder, codebooks=codebooks)


@dataclass(frozen=True)
class Spectrum:
    """Samples to Fourier transforms of Hann windows every `hop_length` of them, zeros beyond the ends."""

    window: int
    hop_length: int

    @property
    def edge(self) -> int:
        return (self.window - self.hop_length) // 2

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        x = ops.pad(x, self.edge, self.edge + -ops.length(x) % self.hop_length)
        return ops.spectrum(x, hann(self.window), self.hop_length)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return -(-(left + self.edge) // self.hop_length), -(-(right + self.edge) // self.hop_length)


@dataclass(frozen=True)
class Compress(Pointwise):
    """A spectrum, real parts then imaginary ones, with its magnitudes raised to a power below one."""

    bins: int
    power: float
    floor: float
    scale: float

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        # c |c|^(p - 1), the square of |c| kept from 0 by the floor: the phase stays, the range shrinks.
        real, imaginary = ops.channels(x, 0, self.bins), ops.channels(x, self.bins, 2 * self.bins)
        gain = ops.power(real * real + imaginary * imaginary + self.floor, (self.power - 1) / 2) * self.scale
        return ops.stack([real * gain, imaginary * gain])


@dataclass(frozen=True)
class DepthwiseConv:
    """Each channel by a kernel of its own, zeros beyond the ends."""

    weight: Weight
    bias: Weight
    kernel: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        half = self.kernel // 2
        return ops.depthwise_conv(ops.pad(x, half, half), self.weight, self.bias)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return left + self.kernel // 2, right + self.kernel // 2


@dataclass(frozen=True)
class LayerNorm(Pointwise):
    """Normalises over the channels of each frame."""

    weight: Weight
    bias: Weight

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.layer_norm(x, self.weight, self.bias, 1e-6)


class Gelu(Pointwise):
    """x times the normal distribution function of x (arXiv 1606.08415)."""

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.gelu(x)


@dataclass(frozen=True)
class Scale(Pointwise):
    """Each channel by a factor of its own."""

    factor: Weight

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.scale(x, self.factor)


@dataclass(frozen=True)
class EvenWindows:
    """Makes good, at the ends of a clip, that fewer windows overlap there than in its middle."""

    window: int
    hop_length: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        gain = _edge_gain(ops.length(x) // self.hop_length, self.window, self.hop_length)
        return x * ops.signal(gain[None, None])

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return max(left, self.window), max(right, self.window)


class Network:
    """Builds the stages, taking each tensor once."""

    def __init__(self, config: FrameConfig, weights: Weights, ops: Ops) -> None:
        self.config = config
        self.weights = weights
        self.ops = ops

    def encoder_layers(self) -> list[Layer]:
        """Samples to latents: `hop_length` to one."""
        c = self.config
        return [
            Spectrum(c.window, c.hop_length),
            Compress(c.bins, c.compression, c.floor, c.input_scale),
            self._linear("encoder.input", 2 * c.bins, c.width),
            *(self._block(f"encoder.blocks.{i}") for i in range(c.encoder_blocks)),
            self._linear("encoder.output", c.width, c.dimension),
        ]

    def decoder_layers(self) -> list[Layer]:
        """Latents to samples."""
        c = self.config
        edge = (c.window - c.hop_length) // 2
        basis = synthesis_basis(c.window, c.hop_length) * np.float32(c.output_scale)
        synthesis = ConvTranspose(
            self.ops.conv_transpose_weight(basis[:, None]),
            None,
            kernel=c.window,
            stride=c.hop_length,
            left=edge,
            right=edge,
        )
        return [
            self._linear("decoder.input", c.dimension, c.width),
            *(self._block(f"decoder.blocks.{i}") for i in range(c.decoder_blocks)),
            self._linear("decoder.output", c.width, 2 * c.bins),
            synthesis,
            EvenWindows(c.window, c.hop_length),
        ]

    def _block(self, name: str) -> Residual:
        c, ops, take = self.config, self.ops, self.weights.take
        branch: list[Layer] = [
            DepthwiseConv(
                ops.depthwise_weight(take(f"{name}.depthwise.weight", (c.width, 1, c.kernel))),
                ops.vector(take(f"{name}.depthwise.bias", (c.width,))),
                c.kernel,
            ),
            LayerNorm(
                ops.vector(take(f"{name}.norm.weight", (c.width,))),
                ops.vector(take(f"{name}.norm.bias", (c.width,))),
            ),
            self._linear(f"{name}.up", c.width, c.expansion * c.width),
            Gelu(),
            self._linear(f"{name}.down", c.expansion * c.width, c.width),
            Scale(ops.vector(take(f"{name}.scale", (c.width,)))),
        ]
        return Residual(branch)

    def _linear(self, name: str, inputs: int, outputs: int) -> Conv:
        weight = dequantize(self.weights, f"{name}.weight", (outputs, inputs))
        bias = self.weights.take(f"{name}.bias", (outputs,))
        return Conv(self.ops.conv_weight(weight[:, :, None]), self.ops.vector(bias), kernel=1)


def quantize(weight: Float) -> dict[str, np.ndarray[Any, Any]]:
    """A matrix (out, in) as int8 rows, each with a float16 scale: suffixes ".weight" and ".weight.scale"."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-6).astype(np.float32) / 127
    scale16 = np.nextafter(scale.astype(np.float16), np.float16(np.inf))  # never too small for the largest
    rows = np.clip(np.rint(weight / scale16.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
    return {".weight": rows, ".weight.scale": scale16}


def dequantize(weights: Weights, name: str, shape: tuple[int, int]) -> Float:
    """A matrix stored by `quantize`, or as plain floats: float32 of `shape`."""
    if f"{name}.scale" not in weights:
        return weights.take(name, shape)
    rows = weights.take(name, shape, dtype=np.int8)
    scale = weights.take(f"{name}.scale", (shape[0],))
    weight: Float = rows.astype(np.float32) * scale[:, None]
    return weight


def synthesis_basis(window: int, hop_length: int) -> Float:
    """The inverse transform, windowed again and divided by the windows' sum: kernels (2 * bins, window)."""
    bins = window // 2 + 1
    angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(window)) / window
    twice = np.full((bins, 1), 2.0)
    twice[[0, -1]] = 1.0  # every bin but the first and last stands for its mirror image too
    basis = np.concatenate([twice * np.cos(angle), -twice * np.sin(angle)]) / window
    windowed: Float = (basis * hann(window) / _overlap(window, hop_length)).astype(np.float32)
    return windowed


def hann(window: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The periodic Hann window."""
    curve: np.ndarray[Any, np.dtype[np.float64]] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return curve


def _overlap(window: int, hop_length: int) -> float:
    """What the squared windows sum to, anywhere in the middle of a clip."""
    return float(np.sum(hann(window) ** 2) / hop_length)


@lru_cache(maxsize=8)
def _edge_gain(frames: int, window: int, hop_length: int) -> Float:
    total = np.zeros((frames - 1) * hop_length + window)
    for frame in _at_the_ends(frames, window // hop_length):
        total[frame * hop_length : frame * hop_length + window] += hann(window) ** 2
    edge = (window - hop_length) // 2
    total = total[edge : len(total) - edge]
    middle = slice(window, max(window, len(total) - window))
    total[middle] = _overlap(window, hop_length)
    return (_overlap(window, hop_length) / np.maximum(total, 1e-3)).astype(np.float32)


def _at_the_ends(frames: int, overlap: int) -> Iterator[int]:
    """The frames that reach into the first or the last window of a clip."""
    near = 3 * overlap  # enough: a frame is `overlap` hops long, and half as many are cut off at an end
    yield from range(min(frames, near))
    yield from range(max(near, frames - near), frames)
