"""The encoder of T5 (arXiv 1910.10683), plain as in t5-base and gated as in version 1.1 and Flan-T5."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ModelError, WeightsError

Array: TypeAlias = mx.array | NDArray[Any]

_IGNORED = ("encoder.embed_tokens.weight", "decoder.", "lm_head.")  # a twin of shared.weight; not the encoder


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
        if self.buckets < 4 or self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise ModelError(
                f"the configuration does not describe a T5: {self.buckets} buckets of relative positions "
                f"up to {self.max_distance} steps"
            )
        if self.activation not in _ACTIVATIONS:
            raise ModelError(
                f"T5 with the activation {self.activation!r} is not known here; "
                f"expected one of {', '.join(_ACTIVATIONS)}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> T5Config:
        """From transformers' config.json of a T5 (or its `text_encoder` part). Raises ModelError."""
        if config.get("model_type", "t5") != "t5":
            raise ModelError(f"the text encoder is a {config['model_type']!r}, expected 't5'")
        feed_forward = str(config.get("feed_forward_proj", "relu"))
        activation = feed_forward.removeprefix("gated-")
        gated = activation != feed_forward
        try:
            return cls(
                vocabulary=int(config["vocab_size"]),
                width=int(config["d_model"]),
                layers=int(config["num_layers"]),
                heads=int(config["num_heads"]),
                head_width=int(config["d_kv"]),
                hidden=int(config["d_ff"]),
                gated=gated,
                # As the original has it: "gated-gelu" stands for the tanh approximation, "gelu" does not.
                activation="gelu_new" if feed_forward == "gated-gelu" else activation,
                buckets=int(config.get("relative_attention_num_buckets", 32)),
                max_distance=int(config.get("relative_attention_max_distance", 128)),
                eps=float(config.get("layer_norm_epsilon", 1e-6)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the configuration does not describe a T5: {error!r}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in the names of transformers' T5EncoderModel."""
        inner = self.heads * self.head_width
        table: dict[str, tuple[int, ...]] = {"shared.weight": (self.vocabulary, self.width)}
        for i in range(self.layers):
            attention, feed = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
            for name in ("q", "k", "v"):
                table[f"{attention}.SelfAttention.{name}.weight"] = (inner, self.width)
            table[f"{attention}.SelfAttention.o.weight"] = (self.width, inner)
            table[f"{attention}.layer_norm.weight"] = (self.width,)
            for name in ("wi_0", "wi_1") if self.gated else ("wi",):
                table[f"{feed}.DenseReluDense.{name}.weight"] = (self.hidden, self.width)
            table[f"{feed}.DenseReluDense.wo.weight"] = (self.width, self.hidden)
            table[f"{feed}.layer_norm.weight"] = (self.width,)
        table["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            self.buckets,
            self.heads,
        )
        table["encoder.final_layer_norm.weight"] = (self.width,)
        return table


class T5Encoder:
    """Token ids to vectors.

    weights  parameters by their names in transformers' T5EncoderModel, in torch's layout; a decoder
             beside the encoder is passed over. Each is read once
    dtype    of the matrix products. The stream between the layers, the norms and the softmax are
             float32 in any case, and so is the last product of a layer when `dtype` is float16, in
             which it overflows (as transformers does it)

    Raises WeightsError when a parameter is missing, misshapen or unknown.
    """

    def __init__(
        self, config: T5Config, weights: Mapping[str, Array], *, dtype: mx.Dtype = mx.float32
    ) -> None:
        self.config = config
        self.dtype = dtype
        shapes = config.shapes()
        _check_names(shapes, weights)
        table = _Table(shapes, weights, dtype)
        self._embedding = table("shared.weight")
        self._blocks = [_Block(config, table, i) for i in range(config.layers)]
        self._norm = table("encoder.final_layer_norm.weight")
        self._bias = table("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """ids (B, L) integers, mask (B, L) true where a token is real -> (B, L, width) of `dtype`.

        Rows at padding are not zeroed: what is made of them is for the caller to decide.
        """
        length = ids.shape[1]
        visible = mask.astype(mx.bool_)[:, None, None, :]  # (B, 1, 1, L)
        lowest = mx.array(mx.finfo(self.dtype).min, self.dtype)
        bias = mx.where(visible, self.position_bias(length)[None], lowest)  # (B, H, L, L)
        x = self._embedding[ids].astype(mx.float32)
        for block in self._blocks:
            x = block(x, bias)
        return _normal(x, self._norm, self.config.eps)

    def position_bias(self, length: int) -> mx.array:
        """What attention adds for how far apart two tokens are: (heads, length, length)."""
        places = np.arange(length)
        distance = places[None, :] - places[:, None]  # key - query
        found = relative_buckets(distance, self.config.buckets, self.config.max_distance)
        return self._bias[mx.array(found)].transpose(2, 0, 1)


class _Table:
    """Hands out parameters as mlx arrays of one dtype; matrices of linear layers lie (in, out)."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Array], dtype: mx.Dtype
    ) -> None:
        self.shapes = shapes
        self.weights = weights
        self.dtype = dtype

    def __call__(self, name: str) -> mx.array:
        array = self.weights[name]
        if tuple(array.shape) != self.shapes[name]:
            raise WeightsError(f"T5: {name} has shape {tuple(array.shape)}, expected {self.shapes[name]}")
        return mx.array(array).astype(self.dtype)

    def linear(self, *names: str, dtype: mx.Dtype | None = None) -> mx.array:
        """Linear layers of one input side by side: (in, out + out + ...)."""
        matrix = mx.concatenate([self(name).astype(dtype or self.dtype) for name in names], axis=0)
        matrix = mx.contiguous(matrix.T)
        mx.eval(matrix)
        return matrix


class _Block:
    """One layer: attention, then the feed-forward part, each on a normalised input and added to it."""

    def __init__(self, config: T5Config, table: _Table, index: int) -> None:
        self.config = config
        attention = f"encoder.block.{index}.layer.0"
        feed = f"encoder.block.{index}.layer.1"
        self.attention_norm = table(f"{attention}.layer_norm.weight")
        self.qkv = table.linear(*(f"{attention}.SelfAttention.{name}.weight" for name in "qkv"))
        self.out = table.linear(f"{attention}.SelfAttention.o.weight")
        self.feed_norm = table(f"{feed}.layer_norm.weight")
        names = ("wi_0", "wi_1") if config.gated else ("wi",)
        self.widen = table.linear(*(f"{feed}.DenseReluDense.{name}.weight" for name in names))
        self.narrow_dtype = mx.float32 if table.dtype == mx.float16 else table.dtype
        self.narrow = table.linear(f"{feed}.DenseReluDense.wo.weight", dtype=self.narrow_dtype)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        x = x + self.attend(_normal(x, self.attention_norm, self.config.eps), bias)
        y = _normal(x, self.feed_norm, self.config.eps) @ self.widen
        activate = _ACTIVATIONS[self.config.activation]
        if self.config.gated:
            gate, straight = mx.split(y, 2, axis=-1)
            y = activate(gate) * straight
        else:
            y = activate(y)
        return x + y.astype(self.narrow_dtype) @ self.narrow

    def attend(self, x: mx.array, bias: mx.array) -> mx.array:
        batch, length, _ = x.shape
        heads, width = self.config.heads, self.config.head_width
        qkv = (x @ self.qkv).reshape(batch, length, 3, heads, width).transpose(2, 0, 3, 1, 4)
        y = mx.fast.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], scale=1.0, mask=bias)
        return y.transpose(0, 2, 1, 3).reshape(batch, length, heads * width) @ self.out


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


def _normal(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """Divided by the root mean square over channels, in float32; then of the weight's dtype."""
    return mx.fast.rms_norm(x, weight.astype(mx.float32), eps).astype(weight.dtype)


def _check_names(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Array]) -> None:
    missing = [name for name in shapes if name not in weights]
    unknown = [name for name in weights if name not in shapes and not name.startswith(_IGNORED)]
    for kind, names in (("missing", missing), ("unexpected", unknown)):
        if names:
            more = ", ..." if len(names) > 10 else ""
            raise WeightsError(
                f"the weights do not fit this T5: {kind} ({len(names)}): {', '.join(names[:10])}{more}"
            )


def _gelu(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


def _gelu_tanh(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "relu": lambda x: mx.maximum(x, 0),
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "silu": lambda x: x * mx.sigmoid(x),
}
