"""Style conditioning in mlx: what MERT heard of an excerpt (`audiogen_core.musicgen.style`) to tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.normalization import LayerNorm

from audiogen_core.audio import Audio
from audiogen_core.layers import ResidualQuantizer
from audiogen_core.musicgen.config import StyleConfig
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.style import BATCH_NORM_EPS, IGNORED, StyleSizes, codebooks, hear, pieces
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.nn import Linear, Module, attend, gelu, load_strict
from audiogen_mlx.ops import MlxOps


class StyleConditioner:
    """A clip to style tokens.

    mert  gives the MERT; it is called when a style is first asked for, so that without one nothing of
          MERT is read
    """

    def __init__(self, network: StyleNetwork, mert: Callable[[], Mert]) -> None:
        self.network = network
        self.config = network.config
        self._load_mert = mert

    @cached_property
    def mert(self) -> Mert:
        """Raises ModelError when it is not one that this conditioner can be fed with."""
        mert = self._load_mert()
        self.network.sizes.check_mert(mert.config.width)
        return mert

    def embed(self, audio: Audio | str | Path | None, **options: Any) -> mx.array:
        """A clip or a file -> style tokens (tokens, D); None -> `null(1)`. For the options see `hear`."""
        if audio is None:
            return self.null(1)
        heard = hear(audio, self.config, **options)
        vectors = self.mert(mx.array(heard.samples)[None])
        tokens = self.network(vectors, eval_q=heard.codebooks, stride=heard.stride)[0]
        mx.eval(tokens)
        return tokens

    def null(self, tokens: int) -> mx.array:
        """The tokens of no style: zeros (tokens, D)."""
        return mx.zeros((tokens, self.network.sizes.outputs))


class StyleNetwork(Module):
    """What MERT heard to style tokens: transformer, batch norm, residual quantiser, projection. Float32.

    The tokens are `config.stride` vectors apart.
    """

    def __init__(
        self,
        config: StyleConfig,
        quantizer: ResidualQuantizer,
        sizes: StyleSizes,
    ) -> None:
        super().__init__()
        self.config, self.quantizer = config, quantizer
        self.sizes = sizes
        self.embed = Linear(sizes.inputs, sizes.width)
        self.blocks = [Block(sizes.width, config.heads) for _ in range(sizes.layers)]
        if config.batch_norm:
            self.batch_norm = BatchNorm(sizes.width)
        self.project = Linear(sizes.width, sizes.outputs)

    def __call__(self, heard: mx.array, *, eval_q: int, stride: int) -> mx.array:
        """(B, F, inputs) -> (B, ceil(F / stride), outputs), by the first `eval_q` codebooks."""
        coarse = self.quantizer.decode(self.codes(self.normalised(self.context(heard)), eval_q))
        return self.project(coarse[:, ::stride])

    def context(self, heard: mx.array) -> mx.array:
        """(B, F, inputs) -> (B, F, width), what the transformer gives."""
        x = self.embed(heard)
        _, frames, width = x.shape
        x = x + mx.array(positions(frames, width))
        for block in self.blocks:
            x = block(x)
        return x

    def normalised(self, x: mx.array) -> mx.array:
        """(B, F, width) by the statistics of training."""
        return self.batch_norm(x) if self.config.batch_norm else x

    def codes(self, x: mx.array, count: int) -> list[mx.array]:
        """(B, F, width) -> the indices (B, F) in each of the first `count` codebooks."""
        return self.quantizer.encode(x, count)


class Block(Module):
    """Attention of all to all, then a feed-forward part; each on a normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = LayerNorm(width)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.feed_norm = LayerNorm(width)
        self.up = Linear(width, 4 * width, bias=False)
        self.down = Linear(4 * width, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        query, key, value = mx.split(self.qkv(self.attention_norm(x)), 3, axis=-1)
        x = x + self.out(attend(query, key, value, self.heads))
        return x + self.down(gelu(self.up(self.feed_norm(x))))


class BatchNorm(Module):
    """Each channel by the mean and variance it had in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = mx.zeros((width,))
        self.variance = mx.ones((width,))

    def __call__(self, x: mx.array) -> mx.array:
        return (x - self.mean) * (1 / mx.sqrt(self.variance + BATCH_NORM_EPS))


def load_style(table: Weights, config: StyleConfig) -> StyleNetwork:
    """From the weights of an audiocraft checkpoint, of which those below STYLE are taken.

    Widths, layers and codebook sizes are read off them. Raises WeightsError when a parameter is missing,
    misshapen, not finite or unknown, ModelError when weights and settings disagree.
    """
    sizes = StyleSizes.of(table, config)
    books = [table.take(name, (None, sizes.width)) for name in codebooks(config)]
    quantizer = ResidualQuantizer(MlxOps(), books)
    network = StyleNetwork(config, quantizer, sizes)
    load_strict(network, table, pieces=pieces(sizes.layers), ignore=IGNORED)
    return network
