"""What steers the model: a prompt through T5Gemma, and a number of seconds.

Padding of a prompt is learned: rows without a token are all the same vector, and the network attends to them.

Source: stable-audio-3, models/conditioners.py and models/blocks.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core.weights import Weights
from audiogen_mlx.stable_audio.conditioning import Conditioning, Encoder, Tokens
from audiogen_mlx.stable_audio_3.config import Config

Floats = NDArray[np.float32]

FREQUENCIES: Floats = (
    np.frombuffer(
        bytes.fromhex(
            """
    3f000000 3f0a6187 3f159a95 3f21bca5 3f2eda9d 3f3d08eb 3f4c5da5 3f5cf0ac 3f6edbd1 3f811d7d
    3f8b962c 3f96e842 3fa32562 3fb0609a 3fbeae8a 3fce2577 3fdedd75 3ff0f08f 40023d77 400ccd82
    401838d7 40249143 4031ea00 404057d7 404ff140 4060ce88 407309f1 40835ff6 408e078c 40998c5b
    40a60051 40b376d3 40c204d6 40d1c10c 40e2c3ef 40f52806 410484f7 410f4455 411ae2d5 4127728f
    41350718 4143b592 415394e0 4164bdb8 41774ad4 4185ac8c 419083e1 419c3c49 41a8e80a 41b69ada
    41c56a15 41d56cc7 41e6bbe1 41f97261 4206d6b2 4211c633 421d98bf 422a60c5 42383223 42472264
    425748d1 4268be87 427b9ec4 42880370 42930b55 429ef83f 42abdcc7 42b9ccf6 42c8de88 42d928fb
    42eac5a2 42fdcff0 430932d0 4314534f 43205ad3 432d5c1d 433b6b63 434a9e91 435b0d54 436cd14a
    43800308 438a64cc 43959e1d 43a1c079 43aedebf 43bd0d61 43cc627b 43dcf5eb 43eee17a 44012090
    440b997c 4416ebd5 44232942 443064cb 443eb30e 444e2a56 445ee2be 4470f644 4482408c 448cd0d7
    44983c71 44a49526 44b1ee31 44c05c5d 44cff62f 44e0d3dc 44f30fb3 45036316 450e0aee 45199000
    4526043f 45337b10 45420965 4551c5f6 4562c95c 45752de0 45848821 458f47bc 459ae680 45a77686
    45b50b5f 45c3ba31 45d399dc 45e4c318 45f750bf 4605afbd 46108752 461c4001
            """
        ),
        ">u4",
    )
    .astype(np.uint32)
    .view(np.float32)
)
"""exp of 128 even steps from log 0.5 to log 10000, as torch rounds them on a CPU: angles reach 62,832, where
the last bit of a frequency is the third digit of a feature. So they are written down and not worked out."""

FEATURES = 2 * len(FREQUENCIES)


def features(values: Sequence[float] | Floats) -> Floats:
    """Cosines, then sines of 2 pi times each number in [0, 1] times the frequencies: (N,) -> (N, 256).

    Products are rounded to float32 one by one, as the original has it.
    """
    turns = np.asarray(values, np.float32)[:, None] * FREQUENCIES * np.float32(2)
    angles = (turns * np.float32(math.pi)).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class Embedders:
    """The learned vector of padding (D,), and the layer that makes one of seconds; both small, in float32."""

    def __init__(self, config: Config, weights: Weights) -> None:
        width = config.dit.cond_dim
        self.limits = config.limits
        self.padding = mx.array(weights.take("prompt.padding_embedding", (width,)))
        self.weight = mx.array(weights.take("seconds_total.out.weight", (width, FEATURES)))
        self.bias = mx.array(weights.take("seconds_total.out.bias", (width,)))
        weights.finish()

    def seconds(self, values: Sequence[float]) -> mx.array:
        """Numbers of seconds, clamped to what the model knows -> (N, D)."""
        low, high = self.limits
        clamped = np.clip(np.asarray(values, np.float32), np.float32(low), np.float32(high))
        share = (clamped - np.float32(low)) / np.float32(high - low)
        return mx.array(features(share.tolist())) @ self.weight.T + self.bias

    def prompts(self, made: mx.array, mask: NDArray[np.bool_]) -> mx.array:
        """Rows of T5Gemma (B, L, D) with the vector of padding where there is no token."""
        return mx.where(mx.array(mask)[..., None], made.astype(mx.float32), self.padding)


class TextEmbedder:
    """Prompts to rows of `max_length` tokens."""

    def __init__(self, max_length: int, tokenizer: Tokens, encoder: Encoder) -> None:
        self.max_length, self._tokenizer, self._encoder = max_length, tokenizer, encoder

    def __call__(self, prompts: Sequence[str]) -> tuple[mx.array, NDArray[np.bool_]]:
        """Rows (B, max_length, D), which mean nothing without a token; and the mask (B, max_length)."""
        for prompt in dict.fromkeys(prompts):
            self._tokenizer.tell_unknown(prompt)
        ids, mask = self._tokenizer.encode(list(prompts), max_length=self.max_length, pad_to=self.max_length)
        # Padding is not computed: rows of real tokens do not see it.
        longest = max(1, int(mask.sum(axis=1).max()))
        rows = self._encoder(mx.array(ids[:, :longest]), mx.array(mask[:, :longest]))
        return mx.pad(rows, [(0, 0), (0, self.max_length - longest), (0, 0)]), mask


def assemble(
    embedders: Embedders, text: tuple[mx.array, NDArray[np.bool_]], seconds: Sequence[float]
) -> Conditioning:
    """Rows of the prompts, then one of seconds; and the global vector, which is of seconds too."""
    rows, mask = text
    numbers = embedders.seconds(seconds)
    return Conditioning(
        mx.concatenate([embedders.prompts(rows, mask), numbers[:, None]], axis=1),
        np.concatenate([mask, np.ones((len(mask), 1), np.bool_)], axis=1),
        numbers,
    )
