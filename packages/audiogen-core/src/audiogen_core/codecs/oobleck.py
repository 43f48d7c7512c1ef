"""Oobleck, the autoencoder of Stable Audio (arXiv 2404.10301): configuration and weights.

A variational autoencoder whose network is DAC's with two parameters in each snake. Read from the layouts of
stable-audio-tools (alone, or inside a diffusion model) and of diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiogen_core.codec import Autoencoder, AutoencoderInfo, fingerprint
from audiogen_core.codecs import snake_net
from audiogen_core.codecs.snake_net import SnakeNet
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.ops import Ops
from audiogen_core.settings import Section
from audiogen_core.weights import Network, Rules, Weights

DIFFUSERS: Rules = snake_net.NAMED
"""diffusers' `AutoencoderOobleck` -> our names."""

IN_DIFFUSERS = Network(r"(encoder|decoder)\.(block|conv1)\.")
IN_STABLE_AUDIO_TOOLS = Network(
    r"(encoder|decoder)\.layers\.\d+\.",
    usual=tuple(outer + inner for outer in Network.usual for inner in ("", "pretransform.model.")),
)
"""How its tensors are known in either layout."""


@dataclass(frozen=True)
class OobleckConfig:
    """The facts of one Oobleck. Widths count channels, from the audio's side to that of the latents.

    strides  samples, from the audio's side to that of the latents, as the encoder goes
    scale    latents are divided by it after encoding
    """

    sample_rate: int
    channels: int
    encoder_widths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    strides: tuple[int, ...]
    latent_channels: int
    tanh: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        facts = (self.sample_rate, self.channels, self.latent_channels)
        counts = facts + self.encoder_widths + self.decoder_widths + self.strides
        if not self.strides or not all(1 <= count < 1 << 24 for count in counts):
            raise ModelError(f"the configuration does not describe an Oobleck: {self}")
        if {len(self.encoder_widths), len(self.decoder_widths)} != {len(self.strides) + 1}:
            raise ModelError("the configuration does not describe an Oobleck: as many c_mults as strides")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ModelError(f"the scale of the latents is {self.scale}, expected more than 0")

    @property
    def hop_length(self) -> int:
        return math.prod(self.strides)


def from_stable_audio_tools(config: Mapping[str, Any]) -> OobleckConfig:
    """The configuration in a `model_config.json`: of an autoencoder, or of a diffusion model that holds one.

    Raises ModelError, with the reason, for autoencoders of another kind.
    """
    table = Section(config, "model_config.json does not describe an Oobleck")
    rate, parts, scale = table.count("sample_rate"), table.section("model"), 1.0
    if table.take("model_type", str, "") != "autoencoder":
        pretransform = parts.section("pretransform")
        kind = pretransform.take("type", str)
        if kind != "autoencoder":
            raise ModelError(f"the pretransform is {kind!r}, expected 'autoencoder'")
        parts, scale = pretransform.section("config"), pretransform.take("scale", float, 1.0)
    sides = {side: parts.section(side) for side in ("encoder", "decoder", "bottleneck")}
    for side, section in sides.items():
        kind, expected = section.take("type", str), "vae" if side == "bottleneck" else "oobleck"
        if kind != expected:
            raise ModelError(f"the {side} is {kind!r}, expected {expected!r}")
    encoder, decoder = sides["encoder"].section("config"), sides["decoder"].section("config")
    for section in (encoder, decoder):
        plain = section.take("use_snake", bool, False)
        if section.take("antialias_activation", bool, False) or not plain:
            raise ModelError("this Oobleck has other activations than plain snakes, which is not supported")
    if decoder.take("use_nearest_upsample", bool, False):
        raise ModelError("this Oobleck repeats samples to go up, which is not supported")
    strides, mirrored = encoder.many("strides", int), decoder.many("strides", int)
    if strides != mirrored:
        raise ModelError(f"the encoder's strides {strides} are not the decoder's {mirrored}")
    # The encoder makes two numbers for each latent, a mean and a deviation.
    latents, doubled, back = (each.take("latent_dim", int) for each in (parts, encoder, decoder))
    if doubled != 2 * latents or back != latents:
        raise ModelError(
            f"{latents} latent channels need an encoder that makes {2 * latents} and a decoder that takes "
            f"{latents}, found {doubled} and {back}"
        )
    return OobleckConfig(
        sample_rate=rate,
        channels=encoder.take("in_channels", int),
        encoder_widths=_widths(encoder.take("channels", int), encoder.many("c_mults", int)),
        decoder_widths=_widths(decoder.take("channels", int), decoder.many("c_mults", int)),
        strides=strides,
        latent_channels=latents,
        tanh=decoder.take("final_tanh", bool, True),
        scale=scale,
    )


def from_diffusers(config: Mapping[str, Any]) -> OobleckConfig:
    """The configuration of diffusers' `AutoencoderOobleck` (its config.json).

    Fields that the file leaves out have diffusers' own defaults.
    """
    table = Section(config, "config.json does not describe an Oobleck")
    multiples = table.many("channel_multiples", int, (1, 2, 4, 8, 16))
    latents = table.take("decoder_input_channels", int, 64)
    hidden = table.take("encoder_hidden_size", int, 128)
    if hidden != 2 * latents:
        raise ModelError(f"encoder_hidden_size is {hidden}, expected twice the {latents} latent channels")
    return OobleckConfig(
        sample_rate=table.take("sampling_rate", int, 44100),
        channels=table.take("audio_channels", int, 2),
        encoder_widths=_widths(hidden, multiples),
        decoder_widths=_widths(table.take("decoder_channels", int, 128), multiples),
        strides=table.many("downsampling_ratios", int, (2, 4, 4, 8, 8)),
        latent_channels=latents,
    )


def stable_audio_tools_weights(weights: Weights, config: OobleckConfig) -> Weights:
    """The autoencoder's tensors of a stable-audio-tools checkpoint, in our names.

    Found alone, below `pretransform.model.`, or in a training checkpoint. Raises WeightsError when there
    are none.
    """
    found = weights.networks({"": IN_STABLE_AUDIO_TOOLS}, among=True)
    if not found:
        raise WeightsError(
            f"{weights.source}: {weights.begins()}no autoencoder among {len(weights)} tensors; "
            "expected names that begin with pretransform.model.encoder.layers.0. or encoder.layers.0."
        )
    blocks = len(config.strides)
    return found[""].apply(snake_net.numbered(blocks, blocks))


def build(config: OobleckConfig, weights: Weights, ops: Ops, name: str | None = None) -> Autoencoder:
    """An autoencoder from its configuration and weights in our names, strictly.

    `name` is the id; without one it is derived from the rate and the hash of the decoder's first weights.
    Raises WeightsError when a tensor is missing, left over, misshapen or not finite.
    """
    first = weights.take("decoder.first.weight", (config.decoder_widths[-1], config.latent_channels, 7))
    info = AutoencoderInfo(
        name=name or f"oobleck-{config.sample_rate // 1000}khz@{fingerprint(first)}",
        sample_rate=config.sample_rate,
        channels=config.channels,
        hop_length=config.hop_length,
        latent_channels=config.latent_channels,
    )
    network = SnakeNet(weights, ops, log_snake=True)
    encoder = network.encoder(
        config.channels, config.encoder_widths, config.strides, 2 * config.latent_channels
    )
    decoder = network.decoder(
        config.latent_channels,
        config.decoder_widths[::-1],
        config.strides[::-1],
        config.channels,
        last_bias=False,
        tanh=config.tanh,
    )
    weights.finish()
    return Autoencoder(info, ops, encoder=encoder, decoder=decoder, scale=config.scale)


def _widths(channels: int, multiples: tuple[int, ...]) -> tuple[int, ...]:
    return (channels, *(channels * multiple for multiple in multiples))
