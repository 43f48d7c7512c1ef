"""MERT (arXiv 2306.00107), which hears the style of a clip: a HuBERT (arXiv 2106.07447) trained on music.

Convolutions make 75 vectors a second from sound at 24 kHz, a wide grouped convolution adds where they
stand, and transformer layers, each normalised at its end, relate them. It is not part of a MusicGen
checkpoint and has a licence of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core import weights
from audiogen_core.errors import AudioError, ModelError, WeightsError
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.parts import LayerNorm, Linear, attend, gelu

SAMPLE_RATE = 24_000
"""Hz of the sound that MERT hears."""

_IGNORED = ("masked_spec_embed",)  # used in training alone
_CONV_EPS = 1e-5
_POSITION = "encoder.pos_conv_embed.conv"

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
        try:
            return cls(
                width=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                hidden=int(config["intermediate_size"]),
                conv_channels=tuple(int(size) for size in config["conv_dim"]),
                conv_kernels=tuple(int(size) for size in config["conv_kernel"]),
                conv_strides=tuple(int(size) for size in config["conv_stride"]),
                conv_bias=bool(config.get("conv_bias", False)),
                position_kernel=int(config.get("num_conv_pos_embeddings", 128)),
                position_groups=int(config.get("num_conv_pos_embedding_groups", 16)),
                eps=float(config.get("layer_norm_eps", 1e-5)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the configuration does not describe a MERT: {error!r}") from error

    def frames(self, samples: int) -> int:
        """How many vectors come of so many samples; zero when they are too few."""
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples


class Mert:
    """Sound to vectors, in float32.

    Raises WeightsError when a parameter is missing, misshapen, not finite or left over.
    """

    def __init__(self, config: MertConfig, table: Weights) -> None:
        self.config = config
        self._convs = _Convs(config, table)
        features, width = config.conv_channels[-1], config.width
        self._projection_norm = LayerNorm(table, "feature_projection.layer_norm", features, config.eps)
        self._projection = Linear(table, "feature_projection.projection", features, width)
        self._position = _position_weight(config, table)
        self._position_bias = mx.array(table.take(f"{_POSITION}.bias", (width,)))
        self._norm = LayerNorm(table, "encoder.layer_norm", width, config.eps)
        self._layers = [_Layer(config, table, f"encoder.layers.{index}") for index in range(config.layers)]
        table.finish(_IGNORED)

    @classmethod
    def load(cls, folder: str | Path) -> Mert:
        """From a folder as transformers writes it: config.json beside safetensors or pytorch_model.bin.

        Raises ModelError when it holds no MERT, WeightsError when the weights do not fit.
        """
        path = Path(folder) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path}: not readable as JSON ({error}); expected the folder of a MERT"
            ) from error
        if not isinstance(config, dict):
            raise ModelError(f"{path}: expected a JSON object, found {type(config).__name__}")
        return cls(MertConfig.from_dict(config), weights.read(folder))

    def __call__(self, samples: mx.array) -> mx.array:
        """Sound (B, T) at 24 kHz -> what the last layer gives, (B, frames, width).

        Raises AudioError when the sound is too short for a single vector.
        """
        if self.config.frames(samples.shape[1]) < 1:
            raise AudioError(f"{samples.shape[1]} samples are too few to hear a style in")
        x = self._convs(samples)
        x = self._projection(self._projection_norm(x))
        x = self._norm(x + self._positions(x))
        for layer in self._layers:
            x = layer(x)
        return x

    def _positions(self, x: mx.array) -> mx.array:
        """What a wide convolution over neighbours makes of (B, F, width)."""
        kernel, groups = self.config.position_kernel, self.config.position_groups
        y = mx.conv1d(x, self._position, padding=kernel // 2, groups=groups)
        return gelu(y[:, : x.shape[1]] + self._position_bias)  # an even kernel makes one vector too many


class _Convs:
    """From samples to vectors: convolutions, the first one's channels each normalised over time."""

    def __init__(self, config: MertConfig, table: Weights) -> None:
        self.strides = config.conv_strides
        self.weights, self.biases = [], []
        inputs = 1
        for index, (outputs, kernel) in enumerate(
            zip(config.conv_channels, config.conv_kernels, strict=True)
        ):
            at = f"feature_extractor.conv_layers.{index}"
            weight = table.take(f"{at}.conv.weight", (outputs, inputs, kernel))
            self.weights.append(mx.array(np.ascontiguousarray(weight.transpose(0, 2, 1))))
            bias = table.take(f"{at}.conv.bias", (outputs,)) if config.conv_bias else None
            self.biases.append(None if bias is None else mx.array(bias))
            inputs = outputs
        name, size = "feature_extractor.conv_layers.0.layer_norm", config.conv_channels[0]
        self.scale = mx.array(table.take(f"{name}.weight", (size,)))
        self.shift = mx.array(table.take(f"{name}.bias", (size,)))

    def __call__(self, samples: mx.array) -> mx.array:
        x = samples[..., None]  # (B, T, 1)
        for index, (weight, bias, stride) in enumerate(
            zip(self.weights, self.biases, self.strides, strict=True)
        ):
            x = mx.conv1d(x, weight, stride=stride)
            x = x if bias is None else x + bias
            x = gelu(self.over_time(x) if index == 0 else x)
            mx.eval(x)  # long clips need not hold every stage at once
        return x

    def over_time(self, x: mx.array) -> mx.array:
        """Every channel of (B, T, C) to mean 0 and variance 1, then scaled and shifted."""
        centred = x - mx.mean(x, axis=1, keepdims=True)
        variance = mx.mean(mx.square(centred), axis=1, keepdims=True)
        return centred * mx.rsqrt(variance + _CONV_EPS) * self.scale + self.shift


class _Layer:
    """Attention and a feed-forward part, the sum normalised after each."""

    def __init__(self, config: MertConfig, table: Weights, at: str) -> None:
        width, self.heads = config.width, config.heads
        self.query, self.key, self.value, self.out = (
            Linear(table, f"{at}.attention.{name}_proj", width, width) for name in ("q", "k", "v", "out")
        )
        self.attention_norm = LayerNorm(table, f"{at}.layer_norm", width, config.eps)
        self.widen = Linear(table, f"{at}.feed_forward.intermediate_dense", width, config.hidden)
        self.narrow = Linear(table, f"{at}.feed_forward.output_dense", config.hidden, width)
        self.final_norm = LayerNorm(table, f"{at}.final_layer_norm", width, config.eps)

    def __call__(self, x: mx.array) -> mx.array:
        heard = attend(self.query(x), self.key(x), self.value(x), self.heads)
        x = self.attention_norm(x + self.out(heard))
        return self.final_norm(x + self.narrow(gelu(self.widen(x))))


def _position_weight(config: MertConfig, table: Weights) -> mx.array:
    """The convolution over neighbours as (width, kernel, width / groups), its weight norm undone.

    The norm is taken at each of its places over all channels, so there are as many gains as places. They
    are stored under the names of either of torch's two kinds of weight norm.
    """
    kernel, per_group = config.position_kernel, config.width // config.position_groups
    names = [f"{_POSITION}.parametrizations.weight.original", f"{_POSITION}.weight_"]
    newer = f"{names[0]}0" in table
    gain_name, direction_name = (
        (f"{names[0]}0", f"{names[0]}1") if newer else (f"{names[1]}g", f"{names[1]}v")
    )
    gain = table.take(gain_name, (1, 1, kernel))
    direction = table.take(direction_name, (config.width, per_group, kernel))
    length = np.sqrt(np.square(direction, dtype=np.float64).sum(axis=(0, 1), keepdims=True))
    if not length.all():
        raise WeightsError(
            f"{table.source}: {direction_name} holds only zeros somewhere; the file is damaged"
        )
    weight = (direction * (gain / length)).astype(np.float32)
    return mx.array(np.ascontiguousarray(weight.transpose(0, 2, 1)))
