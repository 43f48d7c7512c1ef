"""A MusicGen that learns: the frozen transformer, with a low-rank path beside some of its matrices.

The paths stay apart from the network's parameters, so that gradients are of them alone: x W' + s (x A') B',
A (r, in) and B (out, r), by the names that modules have in transformers and peft. With DoRA each output is
then scaled to the length that is learned for its row; the length it has is no part of the gradient.
Sources: arXiv 2106.09685, 2402.09353; peft, tuners/lora.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.quantized import QuantizedLinear
from numpy.typing import NDArray

from audiogen_core import patterns
from audiogen_core.errors import OptionError
from audiogen_core.lora import Adapter
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.weights import pieces
from audiogen_mlx.musicgen.model import Transformer, attend, outputs

Factors = dict[str, dict[str, mx.array]]
"""What is learned: module -> lora_A (r, in), lora_B (out, r), and with DoRA lora_magnitude_vector (out,); of
embeddings lora_embedding_A (r, rows), lora_embedding_B (width, r)."""

TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
"""Names for several kinds of modules."""


@dataclass(frozen=True)
class Batch:
    """Clips to learn from.

    tokens   (B, K, S) what the network reads: each codebook late by its delay, after a column of nothing
    targets  (B, K, S) what it is to say; the special id where nothing is
    text     (B, L, text width) vectors of the captions, as the text encoder makes them
    mask     (B, L) true where one is real
    told     (B,) false where the caption is left out
    """

    tokens: mx.array
    targets: mx.array
    text: mx.array
    mask: mx.array
    told: mx.array


def batch(
    config: Config,
    codes: Sequence[NDArray[np.int32]],
    texts: Sequence[NDArray[np.float32]],
    told: Sequence[bool] | None = None,
) -> Batch:
    """Clips (K, T) each with the vectors of its caption (L, text width). Every code is a target."""
    frames = max(clip.shape[1] for clip in codes)
    rows = []
    for clip in codes:
        whole = np.full((config.codebooks, frames), config.special, np.int32)
        whole[:, : clip.shape[1]] = clip
        rows.append(patterns.delay(whole, config.delays, config.special))
    laid = np.stack(rows)
    tokens = np.pad(laid, ((0, 0), (0, 0), (1, 0)), constant_values=config.special)[:, :, :-1]
    longest = max(1, *(len(text) for text in texts))
    text = np.zeros((len(texts), longest, texts[0].shape[1]), np.float32)
    mask = np.zeros((len(texts), longest), bool)
    for index, vectors in enumerate(texts):
        text[index, : len(vectors)] = vectors
        mask[index, : len(vectors)] = True
    heard = np.array([True] * len(texts) if told is None else told) & mask.any(axis=1)
    mask[~heard, 0] = True  # no row may see nothing at all; what it sees is not used
    return Batch(*map(mx.array, (tokens, laid, text, mask, heard)))


class Adapted:
    """A transformer that stays as it is, and what is learned beside it.

    scales      s of each adapted module
    checkpoint  forget what is inside each layer, and work it out again for its gradients
    """

    def __init__(self, network: Transformer, scales: Mapping[str, float], *, checkpoint: bool = True) -> None:
        self.network, self.scales, self.checkpoint = network, dict(scales), checkpoint
        self.names = pieces(network.config, "transformers")
        adapted = {name: path for path, parts in self.names.items() for name in parts}
        unknown = [name for name in scales if f"{name}.weight" not in adapted]
        if unknown:
            raise OptionError(f"the model has no modules {', '.join(sorted(unknown)[:10])}")
        self._positions = mx.zeros((0, network.config.width))

    def loss(self, factors: Factors, given: Batch) -> mx.array:
        """Cross entropy: its mean over each codebook's targets of the whole batch, then over codebooks."""
        logits = self.logits(factors, given)  # (B, K, S, N)
        counted = given.targets != self.network.config.special
        targets = mx.where(counted, given.targets, 0)
        said = mx.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        missed = mx.where(counted, mx.logsumexp(logits, axis=-1) - said, 0).sum(axis=(0, 2))
        count = counted.sum(axis=(0, 2))
        return (missed / mx.maximum(count, 1)).sum() / mx.maximum((count > 0).sum(), 1)

    def logits(self, factors: Factors, given: Batch) -> mx.array:
        """Of the token after each: (B, K, S, N), float32."""
        network, (rows, books, steps) = self.network, given.tokens.shape
        x = network.embed(given.tokens) + self._embedded(factors, given.tokens)
        x = x + self._places(steps).astype(x.dtype)
        text, mask = self._text(factors, given), given.mask[:, None, None, :]
        told = given.told[:, None, None].astype(x.dtype)
        for index in range(len(network.blocks)):
            own = {name: each for name, each in factors.items() if f".layers.{index}." in name}

            def block(own: Factors, x: mx.array, text: mx.array, index: int = index) -> mx.array:
                return self._block(index, own, x, text, mask, told)

            x = (mx.checkpoint(block) if self.checkpoint else block)(own, x, text)
        made = self._linear(factors, "heads", network.norm(x)).astype(mx.float32)
        return made.reshape(rows, steps, books, -1).transpose(0, 2, 1, 3)

    def _block(
        self, index: int, factors: Factors, x: mx.array, text: mx.array, mask: mx.array, told: mx.array
    ) -> mx.array:
        block, at = self.network.blocks[index], f"blocks.{index}"
        mixed = self._linear(factors, f"{at}.qkv", block.attention_norm(x))
        query, keys, values = (self._heads(part) for part in mx.split(mixed, 3, axis=-1))
        x = x + self._linear(factors, f"{at}.out", attend(query, keys, values, "causal"))
        asked = self._linear(factors, f"{at}.cross.qkv", block.cross.norm(x), 0, 1)
        pair = self._linear(factors, f"{at}.cross.qkv", text, 1, 3)
        keys, values = (self._heads(part) for part in mx.split(pair, 2, axis=-1))
        heard = attend(self._heads(asked), keys, values, mask)
        x = x + told * self._linear(factors, f"{at}.cross.out", heard)
        inner = block.activate(self._linear(factors, f"{at}.up", block.feed_norm(x)))
        return x + self._linear(factors, f"{at}.down", inner)

    def _heads(self, x: mx.array) -> mx.array:
        """(B, S, W) -> (B, H, S, D)."""
        return x.reshape(*x.shape[:2], self.network.config.heads, -1).transpose(0, 2, 1, 3)

    def _text(self, factors: Factors, given: Batch) -> mx.array:
        text = given.text.astype(self.network.dtype)
        return self._linear(factors, "text", text) if self.network.config.text_projected else text

    def _embedded(self, factors: Factors, tokens: mx.array) -> mx.array:
        """What is learned beside the embeddings, for tokens (B, K, S): (B, S, D), or 0."""
        total = mx.zeros((), self.network.dtype)
        for book, name in enumerate(self.names["embeddings"]):
            module = name.removesuffix(".weight")
            if (own := factors.get(module)) is not None:
                low = own["lora_embedding_A"].T[tokens[:, book]] @ own["lora_embedding_B"].T
                total = total + (self.scales[module] * low).astype(total.dtype)
        return total

    def _linear(self, factors: Factors, path: str, x: mx.array, first: int = 0, last: int = 0) -> mx.array:
        """x (..., in) by a layer with its paths, or by the parts from `first` to `last` of it."""
        layer: Any = self.network
        for part in path.split("."):
            layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
        names = [name.removesuffix(".weight") for name in self.names[f"{path}.weight"]]
        rows = layer.weight.shape[0] // len(names)
        names = names[first : last or len(names)]
        quantised = isinstance(layer, QuantizedLinear)
        own = outputs(layer, first * rows, (first + len(names)) * rows)
        y = own(x) if quantised else x @ own.weight.T
        if any(name in factors for name in names):
            parts = list(mx.split(y, len(names), axis=-1))
            for index, name in enumerate(names):
                if name in factors:
                    weight = None if quantised else own.weight[index * rows : (index + 1) * rows]
                    parts[index] = self._beside(factors[name], self.scales[name], x, parts[index], weight)
            y = mx.concatenate(parts, axis=-1)
        return y + own.bias if not quantised and "bias" in own else y

    def _beside(
        self, own: Mapping[str, mx.array], scale: float, x: mx.array, y: mx.array, weight: mx.array | None
    ) -> mx.array:
        """What a matrix makes of x, y, with what is learned beside it."""
        down, up = own["lora_A"], own["lora_B"]
        made = y + (scale * ((x.astype(down.dtype) @ down.T) @ up.T)).astype(y.dtype)
        if "lora_magnitude_vector" not in own:
            return made
        if weight is None:
            raise OptionError("a DoRA cannot be learned beside quantised matrices")
        lengths = mx.linalg.norm(weight + scale * (up @ down), axis=1)
        return made * (own["lora_magnitude_vector"] / mx.stop_gradient(lengths)).astype(made.dtype)

    def _places(self, steps: int) -> mx.array:
        if steps > self._positions.shape[0]:
            config = self.network.config
            self._positions = mx.array(positions(steps, config.width, config.clock))
        return self._positions[:steps]


def targeted(config: Config, targets: Sequence[str]) -> list[str]:
    """The modules whose names end so, as peft finds them; of a word of TARGETS all it stands for.

    Raises OptionError when there is none.
    """
    wanted = [each for target in targets for each in TARGETS.get(target, (target,))]
    layers = [
        name.removesuffix(".weight")
        for path, parts in pieces(config, "transformers").items()
        for name in parts
        if (
            path.startswith("blocks.")
            and path.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight"))
        )
        or path in ("heads.weight", "text.weight")
    ]
    if not config.text_projected:
        layers = [name for name in layers if name != "enc_to_dec_proj"]
    for target in wanted:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            words = ", ".join((*TARGETS, "fc1", "fc2", "q_proj"))
            raise OptionError(f"targets: the model has no modules called {target}; there are {words}, ...")
    return [name for name in layers if any(f".{name}".endswith(f".{target}") for target in wanted)]


def fresh(network: Transformer, modules: Sequence[str], rank: int, seed: int) -> Factors:
    """Factors that change nothing yet, as peft begins: A uniform within 1 / sqrt(in), B zero; float32."""
    names, rng = pieces(network.config, "transformers"), np.random.default_rng(seed)
    shapes = {
        part.removesuffix(".weight"): (rows // len(parts), columns)
        for path, parts in names.items()
        for rows, columns in [_shape(network, path)]
        for part in parts
        if part.removesuffix(".weight") in modules
    }
    factors = {}
    for name in modules:
        rows, columns = shapes[name]
        bound = 1 / math.sqrt(columns)
        down = rng.uniform(-bound, bound, (rank, columns)).astype(np.float32)
        factors[name] = {"lora_A": mx.array(down), "lora_B": mx.zeros((rows, rank))}
    return factors


def _shape(network: Transformer, path: str) -> tuple[int, int]:
    """(out, in) of a parameter; (0, 0) when it is no matrix, or not there."""
    part: Any = network
    for step in path.split("."):
        if isinstance(part, QuantizedLinear):
            return part.weight.shape[0], part.weight.shape[1] * 32 // part.bits
        part = part[int(step)] if step.isdigit() else part.get(step) if isinstance(part, dict) else None
        if part is None:
            return 0, 0
    shape = part.shape
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def begun(adapter: Adapter) -> tuple[Factors, dict[str, float]]:
    """What an adapter of peft holds, to go on from it: the factors, and s of each module."""
    factors: Factors = {}
    for name, change in adapter.changes.items():
        down, up = (each.read().astype(np.float32) for each in (change.down, change.up))
        if ".embed_tokens." in name:
            factors[name] = {"lora_embedding_A": mx.array(up.T), "lora_embedding_B": mx.array(down.T)}
        else:
            factors[name] = {"lora_A": mx.array(down), "lora_B": mx.array(up)}
        if change.lengths is not None:
            factors[name]["lora_magnitude_vector"] = mx.array(change.lengths.read().astype(np.float32))
    return factors, {name: change.scale for name, change in adapter.changes.items()}
