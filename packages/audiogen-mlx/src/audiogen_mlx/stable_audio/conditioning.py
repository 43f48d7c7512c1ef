"""What steers the model: a prompt through T5, seconds through a learned embedding; joined in order.

Padding of a prompt stays: its tokens are zeros, and the network attends to them (upstream switches the
mask off). `collapsed` makes that cheap without changing anything.

Source: stable-audio-tools, models/conditioners.py and models/diffusion.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.weights import Weights
from audiogen_mlx.stable_audio.config import Config, NumberConditioner, TextConditioner

FREQUENCIES = 128

Projection = tuple[mx.array, mx.array]  # weight (out, in) and bias


class Encoder(Protocol):
    """T5: ids and mask (B, L) to features (B, L, D)."""

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array: ...


class Tokens(Protocol):
    """A tokenizer: texts to ids and mask (B, L), cut to max_length and filled up to pad_to.

    `tell_unknown` warns of what in a text means nothing to the model.
    """

    def tell_unknown(self, text: str) -> None: ...

    def encode(
        self, texts: Sequence[str], *, max_length: int | None = None, pad_to: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class Conditioning:
    """Tokens (B, S, D) or None, which of them are no padding (S per item), and global (B, G) or None."""

    tokens: mx.array | None
    mask: NDArray[np.bool_]
    global_: mx.array | None


class TextEmbedder:
    """Prompts to tokens. `projection` is the layer after T5, weight and bias, or None."""

    def __init__(
        self,
        facts: TextConditioner,
        tokenizer: Tokens,
        encoder: Encoder,
        projection: Projection | None = None,
    ) -> None:
        self.facts = facts
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._projection = projection

    def __call__(self, prompts: Sequence[str]) -> tuple[mx.array, NDArray[np.bool_]]:
        """Tokens (B, max_length, D), float32, zeros where there is padding; and the mask (B, max_length)."""
        length = self.facts.max_length
        for prompt in dict.fromkeys(prompts):
            self._tokenizer.tell_unknown(prompt)
        ids, mask = self._tokenizer.encode(list(prompts), max_length=length, pad_to=length)
        mask = np.asarray(mask, dtype=np.bool_)
        shown = mx.array(mask)
        features = self._encoder(mx.array(ids), shown).astype(mx.float32)
        if self._projection is not None:
            weight, bias = self._projection
            features = features @ weight.T + bias
        return features * shown[..., None], mask


class NumberEmbedder:
    """Numbers of seconds to tokens (N, D), float32. All arithmetic in float32."""

    def __init__(self, facts: NumberConditioner, weights: Weights, width: int) -> None:
        self.facts = facts
        if facts.whole:
            rows = int(facts.maximum - facts.minimum) + 1
            self._table = mx.array(weights.take(f"{facts.id}.table", (rows, width)))
            return
        self._frequencies = mx.array(weights.take(f"{facts.id}.frequencies", (FREQUENCIES,)))
        self._weight = mx.array(weights.take(f"{facts.id}.out.weight", (width, 2 * FREQUENCIES + 1)))
        self._bias = mx.array(weights.take(f"{facts.id}.out.bias", (width,)))

    def __call__(self, values: Sequence[float]) -> mx.array:
        low, high = self.facts.minimum, self.facts.maximum
        clamped = [min(max(float(value), low), high) for value in values]
        if self.facts.whole:
            return self._table[mx.array([round(value) for value in clamped])]
        share = (mx.array(clamped) - low) / (high - low)  # (N,)
        angles = (2 * math.pi) * share[:, None] * self._frequencies
        features = mx.concatenate([share[:, None], mx.sin(angles), mx.cos(angles)], axis=-1)
        return features @ self._weight.T + self._bias


def load_numbers(config: Config, weights: Weights) -> dict[str, NumberEmbedder]:
    """The embedders of all numbers, by id. Raises WeightsError."""
    return {facts.id: NumberEmbedder(facts, weights, config.cond_dim) for facts in config.numbers}


def load_projection(config: Config, weights: Weights, text_dim: int) -> Projection | None:
    """The layer after T5 of width `text_dim`, where the model has one. Raises WeightsError."""
    if not config.text.project and text_dim == config.cond_dim:
        return None
    at = f"{config.text.id}.proj_out"
    weight = weights.take(f"{at}.weight", (config.cond_dim, text_dim))
    return mx.array(weight), mx.array(weights.take(f"{at}.bias", (config.cond_dim,)))


def assemble(
    config: Config,
    text: tuple[mx.array, NDArray[np.bool_]],
    embedders: Mapping[str, NumberEmbedder],
    seconds: Mapping[str, Sequence[float]],
) -> Conditioning:
    """Tokens and global vector in the order of the configuration.

    text     tokens (B, L, D) and their mask, of TextEmbedder
    seconds  B values for `seconds_start` and for `seconds_total`
    """
    defaults = dict(config.defaults)
    numbers = {
        name: embedder(seconds[name if name in seconds else defaults[name]])
        for name, embedder in embedders.items()
    }
    parts, masks = [], []
    for name in config.cross_ids:
        tokens, mask = text if name == config.text.id else (numbers[name][:, None], None)
        parts.append(tokens)
        masks.append(np.ones((tokens.shape[0], 1), dtype=np.bool_) if mask is None else mask)
    global_ = [numbers[name] for name in config.global_ids]
    return Conditioning(
        mx.concatenate(parts, axis=1) if parts else None,
        np.concatenate(masks, axis=1) if masks else np.ones((len(text[1]), 0), dtype=np.bool_),
        mx.concatenate(global_, axis=-1) if global_ else None,
    )


def collapsed(tokens: mx.array, mask: NDArray[np.bool_]) -> tuple[mx.array, mx.array | None]:
    """The same tokens with padding that all items share put into one, and a bias for its score.

    P equal tokens have one score and one value: attention to them equals attention to one of them whose
    score is raised by log(P). Returns tokens (B, S', D) and bias (S',), or None without padding.
    """
    kept = np.flatnonzero(mask.any(axis=0))
    padding = mask.shape[1] - len(kept)
    if padding < 2:
        return tokens, None
    one = np.flatnonzero(~mask.any(axis=0))[:1]
    bias = np.zeros(len(kept) + 1, dtype=np.float32)
    bias[-1] = math.log(padding)
    return tokens[:, mx.array(np.concatenate([kept, one]))], mx.array(bias)
