"""MERT (arXiv 2306.00107), which hears the style of a clip: a HuBERT (arXiv 2106.07447) trained on music.

Convolutions make 75 vectors a second from sound at 24 kHz, a wide grouped convolution adds where they
stand, and transformer layers, each normalised at its end, relate them. It is not part of a MusicGen
checkpoint and has a licence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.convolution import Conv1d
from mlx.nn.layers.normalization import LayerNorm

from audiogen_core import weights
from audiogen_core.errors import AudioError, ModelError, WeightsError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, read_json
from audiogen_mlx.nn import Linear, Module, attend, gelu, load_strict, mean_over_time

SAMPLE_RATE = 24_000
"""Hz of the sound that MERT hears."""

_NETWORK = weights.Network(r"(feature_extractor|feature_projection|encoder)\.")
_IGNORED = ("masked_spec_embed",)  # used in training alone
_CONV_EPS = 1e-5
_PLACES = "encoder.pos_conv_embed.conv"

_EXPECTED: dict[str, Any] = {
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "do_stable_layer_norm": False,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "feature_extractor_cqt": False,
    "deepnorm": False,
}
"""What the settings must be where they are given; nothing else is known here."""


@dataclass(frozen=True)
class MertConfig:
    """The facts of one MERT. Raises ModelError when they describe none.

    conv_channels, conv_kernels, conv_strides  of each convolution over samples
    position_kernel, position_groups           of the convolution over vectors
    """

    width: int
    layers: int
    heads: int
    hidden: int
    conv_channels: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool = False
    position_kernel: int = 128
    position_groups: int = 16
    eps: float = 1e-5

    def __post_init__(self) -> None:
        convs = (self.conv_channels, self.conv_kernels, self.conv_strides)
        sizes = (self.width, self.layers, self.heads, self.hidden, self.position_kernel, self.position_groups)
        if len({len(part) for part in convs}) != 1 or not convs[0] or min(*sizes, *sum(convs, ())) < 1:
            raise ModelError(f"the configuration does not describe a MERT: {self}")
        if self.layers > MAX_LAYERS:
            raise ModelError(f"the configuration does not describe a MERT: {self.layers} layers")
        if max(*sizes, *sum(convs, ())) > MAX_WIDTH:
            raise ModelError(f"the configuration does not describe a MERT: layers that are too wide: {self}")
        if self.width % self.heads or self.width % self.position_groups:
            raise ModelError(
                f"the configuration does not describe a MERT: {self.width} does not divide: {self}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> MertConfig:
        """From transformers' config.json of a HuBERT or of MERT's own class. Raises ModelError."""
        kind = config.get("model_type")
        if kind not in ("hubert", "mert_model"):
            raise ModelError(f"config.json is of a {kind!r}, expected a MERT ('mert_model' or 'hubert')")
        for key, expected in _EXPECTED.items():
            if config.get(key, expected) != expected:
                raise ModelError(f"a MERT with {key}: {config[key]} is not known here; expected {expected}")
        own = Section(config, "the configuration does not describe a MERT")
        return cls(
            width=own.take("hidden_size", int),
            layers=own.take("num_hidden_layers", int),
            heads=own.take("num_attention_heads", int),
            hidden=own.take("intermediate_size", int),
            conv_channels=own.counts("conv_dim"),
            conv_kernels=own.counts("conv_kernel"),
            conv_strides=own.counts("conv_stride"),
            conv_bias=own.take("conv_bias", bool, False),
            position_kernel=own.take("num_conv_pos_embeddings", int, 128),
            position_groups=own.take("num_conv_pos_embedding_groups", int, 16),
            eps=own.take("layer_norm_eps", float, 1e-5),
        )

    def frames(self, samples: int) -> int:
        """How many vectors come of so many samples; zero when they are too few."""
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples


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
        try:
            settings = read_json(Path(folder) / "config.json")
        except ModelError as error:
            raise ModelError(f"{error}; expected the folder of a MERT") from error
        config, table = MertConfig.from_dict(settings), weights.read_network(folder, _NETWORK)
        mert = cls(config)
        # The names of torch's newer weight norm, or of its older one.
        gain, direction = (f"{_PLACES}.parametrizations.weight.original{part}" for part in (0, 1))
        if gain not in table:
            gain, direction = f"{_PLACES}.weight_g", f"{_PLACES}.weight_v"
        pieces = _pieces(config) | {"places.gain": (gain,), "places.direction": (direction,)}
        load_strict(mert, table, pieces=pieces, ignore=_IGNORED)
        if not mert.places.fuse():
            raise WeightsError(f"{table.source}: {direction} holds only zeros somewhere; the file is damaged")
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
        return centred * mx.rsqrt(variance + _CONV_EPS) * self.weight + self.bias


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


def _pieces(config: MertConfig) -> dict[str, tuple[str, ...]]:
    """The parameters of a MERT -> their tensors in a checkpoint of transformers, but for the weight norm."""
    names = {
        "conv_norm": "feature_extractor.conv_layers.0.layer_norm",
        "projection_norm": "feature_projection.layer_norm",
        "projection": "feature_projection.projection",
        "places": _PLACES,
        "norm": "encoder.layer_norm",
    }
    names |= {
        f"convs.{i}": f"feature_extractor.conv_layers.{i}.conv" for i in range(len(config.conv_channels))
    }
    for i in range(config.layers):
        at, ours = f"encoder.layers.{i}", f"blocks.{i}"
        projections = {"query": "q", "key": "k", "value": "v", "out": "out"}
        names |= {f"{ours}.{one}": f"{at}.attention.{theirs}_proj" for one, theirs in projections.items()}
        names |= {
            f"{ours}.attention_norm": f"{at}.layer_norm",
            f"{ours}.up": f"{at}.feed_forward.intermediate_dense",
            f"{ours}.down": f"{at}.feed_forward.output_dense",
            f"{ours}.final_norm": f"{at}.final_layer_norm",
        }
    return {
        f"{ours}.{leaf}": (f"{theirs}.{leaf}",)
        for ours, theirs in names.items()
        for leaf in ("weight", "bias")
    }
