"""The encoder of T5Gemma (arXiv 2504.06225): Gemma 2's layers, each token seeing all the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear

from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section, as_table, parse_json, read_json
from audiogen_core.tokenizer import Tokenizer
from audiogen_core.weights import Drop, Weights
from audiogen_core.weights import read as read_weights
from audiogen_mlx import cpu, sentencepiece
from audiogen_mlx.nn import Module, load_strict
from audiogen_mlx.t5 import gelu_tanh

PLACES = ("model.encoder.", "encoder.", "")
"""What stands before the encoder's names: in a whole model, in an encoder, in the authors' runtime."""


META, MODEL = "META", "TOKENIZER_MODEL"
"""Beside the tensors in the authors' runtime: the bytes of a JSON with the configuration, and those of a
SentencePiece model.
"""


@dataclass(frozen=True)
class T5GemmaConfig:
    """The facts of one encoder.

    key_heads  heads of keys and values, each of which serves heads / key_heads of queries
    scalar     scores are divided by its root
    cap        scores stay between -cap and cap
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    hidden: int
    scalar: float
    cap: float
    base: float
    eps: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = "config.json") -> T5GemmaConfig:
        """From transformers' config.json, or its part `encoder`. Raises ModelError."""
        kind = config.get("model_type")
        if "encoder" in config:
            config = config["encoder"]
        elif kind not in (None, "t5_gemma_module"):
            raise ModelError(f"{where}: the text encoder is a {kind!r}, expected 't5gemma'")
        own = Section(config, f"{where} does not describe a T5Gemma")
        own.expect("hidden_activation", "gelu_pytorch_tanh")
        own.expect("attention_bias", False)
        rope = own.section("rope_parameters", optional=True)
        rope.expect("rope_type", "default")
        heads = own.count("num_attention_heads")
        made = cls(
            vocabulary=own.count("vocab_size", most=MAX_WIDTH),
            width=own.count("hidden_size", most=MAX_WIDTH),
            layers=own.count("num_hidden_layers", most=MAX_LAYERS),
            heads=heads,
            key_heads=own.count("num_key_value_heads", heads),
            head_width=own.count("head_dim"),
            hidden=own.count("intermediate_size", most=MAX_WIDTH),
            scalar=own.take("query_pre_attn_scalar", float),
            cap=own.take("attn_logit_softcapping", float),
            base=rope.take("rope_theta", float, own.take("rope_theta", float, 10_000.0)),
            eps=own.take("rms_norm_eps", float, 1e-6),
        )
        if made.heads % made.key_heads or made.head_width % 2 or not (made.scalar > 0 and made.cap > 0):
            raise ModelError(f"{own.where}: its heads do not fit: {made}")
        if made.heads * made.head_width > MAX_WIDTH:
            raise ModelError(f"{own.where}: layers that are {made.heads * made.head_width} wide")
        return made

    def describe(self) -> dict[str, Any]:
        """transformers' configuration of it: `from_dict` read backwards."""
        encoder = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head_width,
            "intermediate_size": self.hidden,
            "query_pre_attn_scalar": self.scalar,
            "attn_logit_softcapping": self.cap,
            "rope_theta": self.base,
            "rms_norm_eps": self.eps,
        }
        return {"model_type": "t5gemma", "encoder": encoder}


class Norm(Module):
    """Divided by the root mean square over channels, in float32, times 1 + weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.zeros((width,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x.astype(mx.float32), 1 + self.weight.astype(mx.float32), self.eps)


class SelfAttention(Module):
    """Attention of all to all, with rotary positions and capped scores."""

    def __init__(self, config: T5GemmaConfig) -> None:
        super().__init__()
        self.config = config
        width, inner = config.width, config.heads * config.head_width
        self.q_proj = Linear(width, inner, bias=False)
        self.k_proj = Linear(width, config.key_heads * config.head_width, bias=False)
        self.v_proj = Linear(width, config.key_heads * config.head_width, bias=False)
        self.o_proj = Linear(inner, width, bias=False)

    def __call__(self, x: mx.array, visible: mx.array) -> mx.array:
        config = self.config
        batch, length, _ = x.shape

        def headed(x: mx.array, heads: int, turns: bool) -> mx.array:
            x = x.reshape(batch, length, heads, config.head_width).swapaxes(1, 2).astype(mx.float32)
            if turns:
                x = mx.fast.rope(
                    x, config.head_width, traditional=False, base=config.base, scale=1.0, offset=0
                )
            return mx.repeat(x, config.heads // heads, axis=1)

        query = headed(self.q_proj(x), config.heads, True)
        key = headed(self.k_proj(x), config.key_heads, True)
        value = headed(self.v_proj(x), config.key_heads, False)
        scores = (query @ key.swapaxes(-1, -2)) * config.scalar**-0.5
        scores = config.cap * mx.tanh(scores / config.cap)
        scores = mx.where(visible, scores, mx.finfo(mx.float32).min)
        mixed = (cpu.softmax(scores) @ value).swapaxes(1, 2).reshape(batch, length, -1)
        return self.o_proj(mixed.astype(x.dtype))


class FeedForward(Module):
    """A gated product."""

    def __init__(self, config: T5GemmaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.hidden, bias=False)
        self.up_proj = Linear(config.width, config.hidden, bias=False)
        self.down_proj = Linear(config.hidden, config.width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(gelu_tanh(self.gate_proj(x)) * self.up_proj(x))


class Layer(Module):
    """Attention, then the feed-forward part, each between two norms and added to what came in."""

    def __init__(self, config: T5GemmaConfig) -> None:
        super().__init__()
        self.pre_self_attn_layernorm = Norm(config.width, config.eps)
        self.self_attn = SelfAttention(config)
        self.post_self_attn_layernorm = Norm(config.width, config.eps)
        self.pre_feedforward_layernorm = Norm(config.width, config.eps)
        self.mlp = FeedForward(config)
        self.post_feedforward_layernorm = Norm(config.width, config.eps)

    def __call__(self, x: mx.array, visible: mx.array, dtype: mx.Dtype) -> mx.array:
        inner = self.self_attn(self.pre_self_attn_layernorm(x).astype(dtype), visible)
        x = x + self.post_self_attn_layernorm(inner)
        inner = self.mlp(self.pre_feedforward_layernorm(x).astype(dtype))
        return x + self.post_feedforward_layernorm(inner)


class T5GemmaEncoder(Module):
    """Token ids to vectors. The stream between the layers, norms and attention are float32 in any case."""

    def __init__(self, config: T5GemmaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocabulary, config.width)
        self.layers = [Layer(config) for _ in range(config.layers)]
        self.norm = Norm(config.width, config.eps)

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """ids (B, L) integers, mask (B, L) true where a token is real -> (B, L, width), float32.

        Rows at padding are finite and mean nothing, as are those of an item without any token.
        """
        dtype = self.embed_tokens.weight.dtype
        visible = mask.astype(mx.bool_)[:, None, None, :]
        x = self.embed_tokens.weight[ids].astype(mx.float32) * self.config.width**0.5
        for layer in self.layers:
            x = layer(x, visible, dtype)
        return self.norm(x)


def read_config(path: Path) -> T5GemmaConfig:
    """The facts of an encoder: of a folder with a config.json, or of an npz archive of the authors' runtime.

    Raises ModelError, or WeightsError when the archive has none.
    """
    if path.suffix != ".npz":
        return T5GemmaConfig.from_dict(read_json(path / "config.json"), str(path / "config.json"))
    text = read_weights(path).take(META, (None,), np.uint8).tobytes().decode("utf-8", "replace")
    where = f"{path}: {META}"
    return T5GemmaConfig.from_dict(as_table(parse_json(text, where), where), where)


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder, a tokenizer.json or an archive of the authors' runtime.

    Raises ModelError, or WeightsError when the archive has none.
    """
    if path.suffix != ".npz":
        return Tokenizer.load(path, ends=False)
    model = read_weights(path).take(MODEL, (None,), np.uint8).tobytes()
    return Tokenizer(sentencepiece.read(model, str(path)), str(path), ends=False)


def read(path: Path) -> Weights:
    """The encoder's tensors of a T5Gemma, without its decoder. Raises WeightsError when there are none."""
    whole = read_weights(path).apply((Drop(f"{META}|{MODEL}", "no tensors"),))
    for place in PLACES:
        inside = whole.below(place)
        if "embed_tokens.weight" in inside:
            return inside
    raise WeightsError(f"{whole.source}: {whole.begins()}holds no T5Gemma encoder: no embed_tokens.weight")


def load_t5gemma(config: T5GemmaConfig, weights: Weights, *, dtype: mx.Dtype = mx.float32) -> T5GemmaEncoder:
    """An encoder with its weights. Raises WeightsError when a parameter is missing, misshapen or unknown."""
    encoder = T5GemmaEncoder(config)
    load_strict(encoder, weights, dtype=dtype, ignore=(r"rope_inv_freq|rotary_emb\.inv_freq",))
    return encoder
