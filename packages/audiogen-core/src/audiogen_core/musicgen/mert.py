"""MERT (arXiv 2306.00107), which hears the style of a clip, as facts: its configuration and its tensors.

It is a HuBERT (arXiv 2106.07447) trained on music. It is not part of a MusicGen checkpoint and has a licence
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiogen_core import weights
from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, read_json
from audiogen_core.weights import Weights

SAMPLE_RATE = 24_000
"""Hz of the sound that MERT hears."""

CONV_EPS = 1e-5
"""Of the norm over time after the first convolution."""

IGNORED = ("masked_spec_embed",)  # used in training alone
"""Names in a checkpoint that a MERT has no use for when it hears."""

_NETWORK = weights.Network(r"(feature_extractor|feature_projection|encoder)\.")
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


def read_mert(folder: str | Path) -> tuple[MertConfig, Weights]:
    """The facts and the tensors of a folder as transformers writes it. Raises ModelError, WeightsError."""
    try:
        settings = read_json(Path(folder) / "config.json")
    except ModelError as error:
        raise ModelError(f"{error}; expected the folder of a MERT") from error
    return MertConfig.from_dict(settings), weights.read_network(folder, _NETWORK)


def pieces(config: MertConfig, table: Weights) -> dict[str, tuple[str, ...]]:
    """The parameters of a MERT -> their tensors in a checkpoint of transformers.

    The weight norm of the convolution that says where a vector stands has the names of torch's newer weight
    norm, or of its older one.
    """
    gain, direction = (f"{_PLACES}.parametrizations.weight.original{part}" for part in (0, 1))
    if gain not in table:
        gain, direction = f"{_PLACES}.weight_g", f"{_PLACES}.weight_v"
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
    table_of_names: dict[str, tuple[str, ...]] = {
        f"{ours}.{leaf}": (f"{theirs}.{leaf}",)
        for ours, theirs in names.items()
        for leaf in ("weight", "bias")
    }
    return table_of_names | {"places.gain": (gain,), "places.direction": (direction,)}
