"""The encoder of T5 (arXiv 1910.10683) as facts: its configuration, the names of its tensors, its buckets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section
from audiogen_core.weights import Network

ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu")
"""Of the feed-forward part, as transformers calls them; gelu_new is the tanh approximation."""

NETWORK = Network(r"shared\.|encoder\.(block|final_layer_norm)\.")
"""How its tensors are known in transformers' layout."""

IGNORED = (
    r"encoder\.embed_tokens\.weight",  # a twin of shared.weight
    r"(decoder|lm_head)\..*",
)
"""Regular expressions of the names in a checkpoint that are not of the encoder."""


@dataclass(frozen=True)
class T5Config:
    """The facts of one T5 encoder. Raises ModelError when they describe none."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_width: int
    hidden: int
    gated: bool
    activation: str
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "layers", "heads", "head_width", "hidden"):
            if getattr(self, name) < 1:
                raise ModelError(f"the configuration does not describe a T5: {name} is {getattr(self, name)}")
        if self.layers > MAX_LAYERS:
            raise ModelError(f"the configuration does not describe a T5: {self.layers} layers")
        widest = max(self.vocabulary, self.width, self.heads * self.head_width, 2 * self.hidden)
        if widest > MAX_WIDTH:
            raise ModelError(f"the configuration does not describe a T5: layers that are {widest} wide")
        if self.buckets < 4 or self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise ModelError(
                f"the configuration does not describe a T5: {self.buckets} buckets of relative positions "
                f"up to {self.max_distance} steps"
            )
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"T5 with the activation {self.activation!r} is not known here; "
                f"expected one of {', '.join(ACTIVATIONS)}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> T5Config:
        """From transformers' config.json of a T5 (or its `text_encoder` part). Raises ModelError."""
        if config.get("model_type", "t5") != "t5":
            raise ModelError(f"the text encoder is a {config['model_type']!r}, expected 't5'")
        feed_forward = str(config.get("feed_forward_proj", "relu"))
        activation = feed_forward.removeprefix("gated-")
        gated = activation != feed_forward
        own = Section(config, "the configuration does not describe a T5")
        return cls(
            vocabulary=own.take("vocab_size", int),
            width=own.take("d_model", int),
            layers=own.take("num_layers", int),
            heads=own.take("num_heads", int),
            head_width=own.take("d_kv", int),
            hidden=own.take("d_ff", int),
            gated=gated,
            # As the original has it: "gated-gelu" stands for the tanh approximation, "gelu" does not.
            activation="gelu_new" if feed_forward == "gated-gelu" else activation,
            buckets=own.take("relative_attention_num_buckets", int, 32),
            max_distance=own.take("relative_attention_max_distance", int, 128),
            eps=own.take("layer_norm_epsilon", float, 1e-6),
        )


def pieces(config: T5Config) -> dict[str, tuple[str, ...]]:
    """The parameters of an encoder -> their tensors in transformers' T5EncoderModel."""
    table: dict[str, tuple[str, ...]] = {
        "embedding.weight": ("shared.weight",),
        "distances.weight": ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
        "norm.weight": ("encoder.final_layer_norm.weight",),
    }
    for i in range(config.layers):
        attention, feed = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        up = ("wi_0", "wi_1") if config.gated else ("wi",)
        table |= {
            f"blocks.{i}.qkv.weight": tuple(f"{attention}.SelfAttention.{one}.weight" for one in "qkv"),
            f"blocks.{i}.out.weight": (f"{attention}.SelfAttention.o.weight",),
            f"blocks.{i}.attention_norm.weight": (f"{attention}.layer_norm.weight",),
            f"blocks.{i}.up.weight": tuple(f"{feed}.DenseReluDense.{one}.weight" for one in up),
            f"blocks.{i}.down.weight": (f"{feed}.DenseReluDense.wo.weight",),
            f"blocks.{i}.feed_norm.weight": (f"{feed}.layer_norm.weight",),
        }
    return table


def relative_buckets(distance: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """The bucket of each distance (key - query): half of them per direction.

    The nearer half of a direction's buckets holds one distance each, the rest widen logarithmically
    and the last one takes everything from `max_distance` on.
    """
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    wide = exact + (ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)).astype(
        np.int64
    )
    bucket: NDArray[np.int64] = np.where(size < exact, size, np.minimum(wide, half - 1))
    return bucket + half * (distance > 0)
