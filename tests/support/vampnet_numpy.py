"""VampNet's network in plain numpy, written from its description: codes in, logits out.

Small models only. It shares no line with the network that is exported, so agreement means something.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path

import numpy as np

from audiogen_core import weights

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vampnet"


class NumpyVampNet:
    """One of the two models of a folder of checkpoints; `name` is "coarse" or "c2f"."""

    def __init__(self, folder: Path, name: str) -> None:
        facts = json.loads((folder / "config.json").read_text())
        self.config = facts[name]
        self.tensors = weights.read(folder / f"{name}.pth")
        self.codec = weights.read(folder / "codec.pth")
        self.codebook_size = self.config["vocab_size"]
        self.conditioning = self.config["n_conditioning_codebooks"]

    def logits(self, codes: np.ndarray) -> np.ndarray:
        """(B, K, F) or (K, F) -> float32 (B, P, F, N) or (P, F, N)."""
        if codes.ndim == 2:
            return self.logits(codes[None])[0]
        latents = [self.tables[book][codes[:, book]] for book in range(codes.shape[1])]
        x = np.concatenate(latents, axis=-1) @ self.tensors["embedding.out_proj.weight"][..., 0].T
        x = x + self.tensors["embedding.out_proj.bias"]
        bias = self._bias(codes.shape[2])
        for layer in range(self.config["n_layers"]):
            name = f"transformer.layers.{layer}"
            x = x + self._attention(f"{name}.self_attn", self._norm(f"{name}.norm_1", x), bias)
            x = x + self._feed_forward(f"{name}.feed_forward", self._norm(f"{name}.norm_3", x))
        x = self._norm("transformer.norm", x)
        direction = self.tensors["classifier.layers.0.weight_v"][..., 0]
        scale = self.tensors["classifier.layers.0.weight_g"][:, 0]
        weight = scale * direction / np.sqrt((direction**2).sum(axis=1, keepdims=True))
        out = x @ weight.T + self.tensors["classifier.layers.0.bias"]  # (B, F, N * P), codebook fastest
        batch, frames, _ = out.shape
        return out.reshape(batch, frames, self.codebook_size, -1).transpose(0, 3, 1, 2).astype(np.float32)

    @cached_property
    def tables(self) -> list[np.ndarray]:
        """For each codebook its vectors, and the vector of a masked place as the last row."""
        masked = self.tensors["embedding.special.MASK"]
        return [
            np.concatenate([self.codec[f"quantizer.quantizers.{book}.codebook.weight"], masked[book][None]])
            for book in range(self.config["n_codebooks"])
        ]

    @cached_property
    def _matrices(self) -> dict[str, np.ndarray]:
        return {}

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self._matrices:
            weight = self.tensors[f"{name}.weight"]
            if f"{name}.lora_A" in self.tensors:
                weight = weight + self.tensors[f"{name}.lora_B"] @ self.tensors[f"{name}.lora_A"] / 8
            self._matrices[name] = weight
        return x @ self._matrices[name].T

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        mean = (x**2).mean(axis=-1, keepdims=True)
        return self.tensors[f"{name}.weight"] * x / np.sqrt(mean + np.float32(1e-6))

    def _attention(self, name: str, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
        heads = self.config["n_heads"]
        q, k, v = (self._split(self._linear(f"{name}.w_{part}s", x), heads) for part in "qkv")
        scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1])) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ v
        return self._linear(f"{name}.fc", mixed.transpose(0, 2, 1, 3).reshape(x.shape))

    def _split(self, x: np.ndarray, heads: int) -> np.ndarray:
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    def _bias(self, frames: int) -> np.ndarray:
        places = np.arange(frames)
        relative = places[None] - places[:, None]  # key minus query
        far = np.maximum(np.abs(relative), 1).astype(np.float32)
        coarse = 8 + (np.log(far / np.float32(8)) / np.float32(math.log(16)) * 8).astype(np.int64)
        bucket = np.where(np.abs(relative) < 8, np.abs(relative), np.minimum(coarse, 15))
        bucket = bucket + 16 * (relative > 0)
        table = self.tensors["transformer.layers.0.self_attn.relative_attention_bias.weight"]
        return table[bucket].transpose(2, 0, 1)

    def _feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        value, gate = np.split(self._linear(f"{name}.w_1", x), 2, axis=-1)
        bent = np.tanh(np.float32(math.sqrt(2 / math.pi)) * (gate + np.float32(0.044715) * gate**3))
        return self._linear(f"{name}.w_2", value * (0.5 * gate * (1 + bent)))
