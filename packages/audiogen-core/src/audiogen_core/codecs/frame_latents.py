"""The demo autoencoder: what the demo codec has between its encoder and its decoder, as latents.

Stacks of a few frames are projected on the axes along which music varies most, so there are fewer and slower
latents, of about unit variance. Both ways are linear: one convolution after the codec's encoder, one before
its decoder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from audiogen_core.codec import Autoencoder, AutoencoderInfo, fingerprint
from audiogen_core.codecs import frame
from audiogen_core.errors import ModelError
from audiogen_core.layers import (
    Conv,
    Convolutional,
    ConvTranspose,
    Layer,
    PadToMultiple,
    Pointwise,
    ResidualQuantizer,
)
from audiogen_core.ops import Ops, Signal
from audiogen_core.settings import from_mapping, parse_json
from audiogen_core.weights import Weights, read

FORMAT = "audiogen-frame-latents-1"
NAME = "demo-latents"

_CERTAIN = -20.0  # before a softplus: the encoder draws nothing, so latents deviate from their means by 1e-4


@dataclass(frozen=True)
class LatentsConfig:
    """The facts of a projection.

    frames     of the codec in a stack, which becomes one latent frame
    channels   of the latents
    codebooks  how many of the codec's codebooks quantise what comes back, before it is decoded; 0 is none
    """

    frames: int
    channels: int
    codebooks: int = 0

    @classmethod
    def from_json(cls, text: str) -> LatentsConfig:
        """Raises ModelError unless the text holds exactly these fields."""
        where = "the configuration of the latents is damaged"
        config = from_mapping(cls, parse_json(text, where), where, ModelError, complete=True)
        for name, value in asdict(config).items():
            if not (0 if name == "codebooks" else 1) <= value < 1 << 16:
                raise ModelError(f"{where}: {name} is {value}")
        return config

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def load_demo(ops: Ops) -> Autoencoder:
    """The autoencoder that comes with the package."""
    folder = files("audiogen_core") / "data"
    with as_file(folder / "demo.safetensors") as codec, as_file(folder / f"{NAME}.safetensors") as path:
        return load(path, codec, ops, name=NAME)


def load(path: Path, codec: Path, ops: Ops, name: str | None = None) -> Autoencoder:
    """An autoencoder from its projection and the frame codec around it, both safetensors.

    Raises ModelError for other files and WeightsError when tensors do not fit the configurations.
    """
    config = LatentsConfig.from_json(frame.metadata(path, FORMAT))
    return build(config, read(path), *frame.opened(codec), ops, name)


def build(
    config: LatentsConfig,
    projection: Weights,
    codec: frame.FrameConfig,
    weights: Weights,
    ops: Ops,
    name: str | None = None,
) -> Autoencoder:
    """An autoencoder from configurations and weights, strictly.

    projection  `axes` (channels, frames * dimension), `mean` of a stack and `scale` (channels,): latents are
                scale * axes (stack - mean)
    """
    stack = config.frames * codec.dimension
    axes = projection.take("axes", (config.channels, stack))
    mean, scale = projection.take("mean", (stack,)), projection.take("scale", (config.channels,))
    projection.finish()
    network, hop = frame.Network(codec, weights, ops), config.frames * codec.hop_length
    books = weights.take("codebooks", (codec.codebooks, codec.codebook_size, codec.dimension))
    encoder, decoder = network.encoder_layers(), network.decoder_layers()
    weights.finish()
    shape = (config.channels, config.frames, codec.dimension)
    # Rows of zeros make the raw deviations, which the offset below sets to what is certain.
    inward = np.pad(axes * scale[:, None], ((0, config.channels), (0, 0)))
    offset = np.concatenate([-scale * (axes @ mean), np.full(config.channels, _CERTAIN, np.float32)])
    project = Conv(
        ops.conv_weight(inward.reshape(2 * config.channels, *shape[1:]).transpose(0, 2, 1)),
        ops.vector(offset),
        kernel=config.frames,
        stride=config.frames,
    )
    outward = (axes / scale[:, None]).reshape(shape).transpose(0, 2, 1)
    unproject = ConvTranspose(
        ops.conv_transpose_weight(outward), None, kernel=config.frames, stride=config.frames, left=0, right=0
    )
    back: list[Layer] = [unproject, Offset(mean.reshape(shape[1:]).T)]
    if config.codebooks:
        back.append(Quantized(ResidualQuantizer(ops, list(books)), config.codebooks))
    info = AutoencoderInfo(
        name=name or f"frame-latents-{codec.sample_rate // 1000}khz@{fingerprint(axes)}",
        sample_rate=codec.sample_rate,
        channels=1,
        hop_length=hop,
        latent_channels=config.channels,
    )
    return Autoencoder(
        info,
        ops,
        encoder=[Convolutional([PadToMultiple(hop), *encoder, project], down=hop)],
        decoder=[Convolutional([*back, *decoder], up=hop)],
    )


@dataclass(frozen=True, eq=False)
class Offset(Pointwise):
    """The mean of each place in a stack added: `mean` (channels, frames)."""

    mean: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        stacks = ops.length(x) // self.mean.shape[1]
        return x + ops.signal(np.tile(self.mean, stacks)[None])


@dataclass(frozen=True, eq=False)
class Quantized(Pointwise):
    """Each frame replaced by the sum of the entries that are nearest to it."""

    quantizer: ResidualQuantizer
    codebooks: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return self.quantizer.decode(self.quantizer.encode(x, self.codebooks))
