"""MusicGen's transformer (arXiv 2306.05284): tokens of all codebooks at once to logits of the next ones.

Pre-norm blocks without biases; sinusoidal positions; text attended to, or before the music as a prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from audiogen_mlx.musicgen.cache import Cache, LayerCache
from audiogen_mlx.musicgen.config import Config
from audiogen_mlx.musicgen.layers import Linear, Norm, activation, attend
from audiogen_mlx.musicgen.parts import positions
from audiogen_mlx.musicgen.weights import Quantized, Source


@dataclass(frozen=True)
class Rows:
    """What conditions each row of a run.

    count   of rows
    prefix  (rows, P, width) vectors before the music, or None
    fill    how many vectors at the beginning of each row's prefix are nothing, or None
    text    (attending, L, width) vectors the first rows attend to; the others attend to nothing
    mask    (attending, L) true where a vector is real, or None when all are
    """

    count: int
    prefix: mx.array | None = None
    fill: tuple[int, ...] | None = None
    text: mx.array | None = None
    mask: mx.array | None = None


@dataclass
class Run:
    """A run in progress: its rows, its cache, the text's keys and values in every layer, and its mask."""

    rows: Rows
    cache: Cache
    text: list[tuple[mx.array, mx.array]]
    mask: mx.array | None

    def close(self) -> None:
        """Let go of all keys and values; the run cannot go on."""
        self.cache.layers.clear()
        self.text.clear()


class Transformer:
    """The network. `run` begins a run; a call goes on with it. Raises WeightsError as `Source` does."""

    def __init__(self, source: Source) -> None:
        config = source.config
        self.config = config
        self.dtype = source.dtype
        self.embeddings = source.array("embeddings")  # (K * (N + 1), D)
        self._starts = mx.arange(config.codebooks)[:, None] * (config.codebook_size + 1)
        self.blocks = [Block(config, source, i) for i in range(config.layers)]
        self.norm = Norm(source, "norm")
        self.heads = Linear(source.matrix("heads"))
        self.text = Linear.with_bias(source, "text") if config.text_projected else None
        self.melody = Linear.with_bias(source, "melody") if config.chroma is not None else None
        self._positions = mx.zeros((0, config.width), self.dtype)

    def run(self, rows: Rows, steps: int) -> Run:
        """Begin a run of at most `steps` steps of tokens."""
        config = self.config
        ahead = 0 if rows.prefix is None else rows.prefix.shape[1]
        cache = Cache(
            config.layers,
            rows.count,
            config.heads,
            ahead + steps,
            config.width // config.heads,
            self.dtype,
            rows.fill,
        )
        text = (
            []
            if rows.text is None
            else [block.cross.remember(rows.text) for block in self.blocks if block.cross]
        )
        mask = None if rows.mask is None else rows.mask[:, None, None, :]  # (A, 1, 1, L)
        mx.eval(text, cache.arrays)
        self._grow(ahead + steps)
        return Run(rows, cache, text, mask)

    def __call__(self, tokens: mx.array, run: Run, *, last: bool = False) -> mx.array:
        """Tokens (rows, K, S) -> logits of the tokens after each, (rows, K, S, N) in float32.

        With `last`, only of those after the last: (rows, K, 1, N). The first call of a run puts the prefix
        before the tokens.
        """
        count, books, steps = tokens.shape
        cache = run.cache
        x = self.embed(tokens)
        if cache.offset == 0 and run.rows.prefix is not None:
            x = mx.concatenate([run.rows.prefix.astype(self.dtype), x], axis=1)
        x = x + self._positions[cache.places(x.shape[1])]
        mask = cache.mask(x.shape[1])
        for index, (block, layer) in enumerate(zip(self.blocks, cache.layers, strict=True)):
            text = run.text[index] if run.text else None
            x = block(x, layer, cache.offset, mask, text, run.mask)
        cache.offset += x.shape[1]
        x = x[:, -1:] if last else x[:, x.shape[1] - steps :]
        logits = self.heads(self.norm(x)).astype(mx.float32)  # (R, S, K * N)
        return logits.reshape(count, x.shape[1], books, -1).transpose(0, 2, 1, 3)

    def embed(self, tokens: mx.array) -> mx.array:
        """Tokens (rows, K, S) -> the sums of their vectors (rows, S, D)."""
        return self.embeddings[tokens + self._starts].sum(axis=1)

    def project_text(self, vectors: mx.array) -> mx.array:
        """Vectors of the text encoder (..., text_width) -> (..., D)."""
        return vectors.astype(self.dtype) if self.text is None else self.text(vectors.astype(self.dtype))

    def project_melody(self, features: mx.array) -> mx.array:
        """Features of a melody (..., bins) -> (..., D)."""
        assert self.melody is not None
        return self.melody(features.astype(self.dtype))

    def _grow(self, count: int) -> None:
        """Make the table of positions long enough, in whole thousands."""
        if count > self._positions.shape[0]:
            table = positions(-(-count // 1024) * 1024, self.config.width)
            self._positions = mx.array(table).astype(self.dtype)
            mx.eval(self._positions)


class Block:
    """One layer: attention to what came before, to the text where there is one, and a feed-forward part."""

    def __init__(self, config: Config, source: Source, index: int) -> None:
        name = f"layers.{index}"
        self.heads = config.heads
        self.attention_norm = Norm(source, f"{name}.attention_norm")
        self.qkv = Linear(source.matrix(f"{name}.attention.in"))
        self.out = Linear(source.matrix(f"{name}.attention.out"))
        self.cross = None if config.text_in_prefix else Cross(config, source, name)
        self.feed_norm = Norm(source, f"{name}.feed_norm")
        self.widen = Linear(source.matrix(f"{name}.widen"))
        self.narrow = Linear(source.matrix(f"{name}.narrow"))
        self.activate = activation(config.activation)

    def __call__(
        self,
        x: mx.array,
        cache: LayerCache,
        start: int,
        mask: mx.array | str | None,
        text: tuple[mx.array, mx.array] | None,
        text_mask: mx.array | None,
    ) -> mx.array:
        count, steps, _ = x.shape
        qkv = (
            self.qkv(self.attention_norm(x)).reshape(count, steps, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        )
        keys, values = cache.add(start, qkv[1], qkv[2])
        x = x + self.out(attend(qkv[0], keys, values, mask))
        if self.cross is not None and text is not None:
            x = self.cross(x, text, text_mask)
        return x + self.narrow(self.activate(self.widen(self.feed_norm(x))))


class Cross:
    """Attention of the first rows to the text. A row with nothing to attend to gets exactly nothing."""

    def __init__(self, config: Config, source: Source, name: str) -> None:
        self.heads = config.heads
        self.norm = Norm(source, f"{name}.cross_norm")
        matrix = source.matrix(f"{name}.cross.in")
        width = config.width
        if isinstance(matrix, Quantized):
            self.query, self.memory = Linear(matrix.rows(0, width)), Linear(matrix.rows(width, 3 * width))
        else:
            self.query, self.memory = Linear(matrix[:width]), Linear(matrix[width:])
        self.out = Linear(source.matrix(f"{name}.cross.out"))

    def remember(self, text: mx.array) -> tuple[mx.array, mx.array]:
        """Keys and values (rows, heads, L, head width) of text vectors (rows, L, width)."""
        count, length, _ = text.shape
        pair = self.memory(text).reshape(count, length, 2, self.heads, -1).transpose(2, 0, 3, 1, 4)
        return mx.contiguous(pair[0]), mx.contiguous(pair[1])

    def __call__(self, x: mx.array, text: tuple[mx.array, mx.array], mask: mx.array | None) -> mx.array:
        keys, values = text
        attending, steps = keys.shape[0], x.shape[1]
        asked = x[:attending]
        query = self.query(self.norm(asked)).reshape(attending, steps, self.heads, -1).transpose(0, 2, 1, 3)
        asked = asked + self.out(attend(query, keys, values, mask))
        return asked if attending == x.shape[0] else mx.concatenate([asked, x[attending:]])
