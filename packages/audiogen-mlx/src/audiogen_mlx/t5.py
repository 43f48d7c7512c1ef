"""The encoder of T5 (arXiv 1910.10683), plain as in t5-base and gated as in version 1.1 and Flan-T5."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx.nn.layers.embedding import Embedding

from audiogen_core.t5 import IGNORED, T5Config, pieces, relative_buckets
from audiogen_core.weights import Weights
from audiogen_mlx.nn import Linear, Module, gelu, load_strict


class T5Encoder(Module):
    """Token ids to vectors. Make one with `load_t5`.

    The stream between the layers, the norms and the softmax are float32, whatever the dtype of the weights.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocabulary, config.width)
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.distances = Embedding(config.buckets, config.heads)  # one table for the attention of all layers
        self.norm = Norm(config.width, config.eps)

    @property
    def dtype(self) -> mx.Dtype:
        return self.embedding.weight.dtype

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """ids (B, L) integers, mask (B, L) true where a token is real -> (B, L, width) of `dtype`.

        Rows at padding are not zeroed: what is made of them is for the caller to decide.
        """
        length = ids.shape[1]
        visible = mask.astype(mx.bool_)[:, None, None, :]  # (B, 1, 1, L)
        lowest = mx.array(mx.finfo(self.dtype).min, self.dtype)
        bias = mx.where(visible, self.position_bias(length)[None], lowest)  # (B, H, L, L)
        x = self.embedding.weight[ids].astype(mx.float32)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)

    def position_bias(self, length: int) -> mx.array:
        """What attention adds for how far apart two tokens are: (heads, length, length)."""
        places = np.arange(length)
        distance = places[None, :] - places[:, None]  # key - query
        buckets = relative_buckets(distance, self.config.buckets, self.config.max_distance)
        return self.distances.weight[mx.array(buckets)].transpose(2, 0, 1)


class Block(Module):
    """One layer: attention, then the feed-forward part, each on a normalised input and added to it."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.heads, self.gated = config.heads, config.gated
        width, inner = config.width, config.heads * config.head_width
        self.qkv = Linear(width, 3 * inner, bias=False)
        self.out = Linear(inner, width, bias=False)
        self.attention_norm = Norm(width, config.eps)
        self.up = Linear(width, (2 if config.gated else 1) * config.hidden, bias=False)
        self.down = Linear(config.hidden, width, bias=False)
        self.feed_norm = Norm(width, config.eps)
        self.activate = _ACTIVATIONS[config.activation]

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        x = x + self.attend(self.attention_norm(x), bias)
        y = self.up(self.feed_norm(x))
        if self.gated:
            gate, straight = mx.split(y, 2, axis=-1)
            y = self.activate(gate) * straight
        else:
            y = self.activate(y)
        if self.down.weight.dtype == mx.float16:  # it overflows in this product; transformers widens it too
            return x + y.astype(mx.float32) @ self.down.weight.astype(mx.float32).T
        return x + self.down(y)

    def attend(self, x: mx.array, bias: mx.array) -> mx.array:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        # No scale: that of the original is within the weights of the queries.
        y = mx.fast.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], scale=1.0, mask=bias)
        return self.out(y.transpose(0, 2, 1, 3).reshape(batch, length, -1))


class Norm(Module):
    """Divided by the root mean square over channels, in float32; then of the weight's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((width,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.weight.astype(mx.float32), self.eps).astype(self.weight.dtype)


def load_t5(config: T5Config, weights: Weights, *, dtype: mx.Dtype = mx.float32) -> T5Encoder:
    """An encoder with its weights, by their names in transformers' T5EncoderModel.

    dtype  of the weights and of the products with them, but for the last of a layer where it is float16

    A decoder beside the encoder is passed over. Raises WeightsError when a parameter is missing, misshapen
    or unknown.
    """
    encoder = T5Encoder(config)
    load_strict(encoder, weights, pieces=pieces(config), dtype=dtype, ignore=IGNORED)
    return encoder


def gelu_tanh(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "relu": lambda x: mx.maximum(x, 0),
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "silu": lambda x: x * mx.sigmoid(x),
}
