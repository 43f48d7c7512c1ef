"""Style conditioning: a few seconds of a clip, heard by MERT and squeezed into coarse codes, as tokens.

Excerpt at 32 kHz -> 24 kHz -> MERT -> transformer -> residual quantiser, of which only the first
codebooks are used -> every 15th vector: five tokens a second.
Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck features"
(arXiv 2407.12563).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.nn.layers.normalization import LayerNorm

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.layers import ResidualQuantizer
from audiogen_core.sinc import Samples, resample
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.config import STYLE, StyleConfig
from audiogen_mlx.musicgen.melody import SILENCE
from audiogen_mlx.musicgen.mert import SAMPLE_RATE, Mert
from audiogen_mlx.nn import Linear, Module, attend, gelu, load_strict, positions
from audiogen_mlx.ops import MlxOps

IGNORED = (
    rf"(?!{re.escape(STYLE)}).*",  # the rest of the checkpoint, for loaders as strict as this one
    r".*\.rvq\.vq\.layers\.\d+\._codebook\.(inited|cluster_size|embed_avg)",
    r".*\.batch_norm\.num_batches_tracked",
)
"""Regular expressions of the names in an audiocraft checkpoint that a style conditioner has no use for."""

BATCH_NORM_EPS = 1e-5

SHORTEST, LONGEST = 0.5, 10.0
"""Seconds an excerpt may have; the published model was trained on 1.5 to 4.5."""

COARSEST = 75
"""The most vectors of MERT per token: one token a second."""


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
        if mert.config.width != self.network.inputs:
            raise ModelError(
                f"this MERT gives vectors of {mert.config.width}, the style conditioner takes "
                f"{self.network.inputs}; use m-a-p/MERT-v1-95M"
            )
        return mert

    def embed(
        self,
        audio: Audio | str | Path | None,
        *,
        eval_q: int | None = None,
        excerpt_seconds: float | None = None,
        start: float | None = None,
        ds_factor: int | None = None,
    ) -> mx.array:
        """A clip or a file -> style tokens (tokens, D); None -> `null(1)`.

        eval_q           how many codebooks of the quantiser are used, 1 to 6: the fewer, the looser the
                         hold of the style; None: as in the model's settings, 3
        excerpt_seconds  that are listened to; None: 3
        start            seconds, where the excerpt begins; None: it is the middle of the clip
        ds_factor        vectors per token; None: 15, which makes five tokens a second

        The original takes an excerpt at random. Raises OptionError for an option out of range; AudioError
        when the clip is missing, no audio, shorter than the excerpt, or silent there.
        """
        if audio is None:
            return self.null(1)
        count = _whole("eval_q", eval_q, self.config.eval_q, self.config.codebooks)
        stride = _whole("ds_factor", ds_factor, self.config.stride, COARSEST)
        seconds = _between("excerpt_seconds", excerpt_seconds, self.config.seconds, SHORTEST, LONGEST)
        samples = excerpt(audio, self.config.sample_rate, seconds, start)
        samples = resample(samples, self.config.sample_rate, SAMPLE_RATE, hold_ends=True)
        heard = self.mert(mx.array(samples)[None])
        tokens = self.network(heard, eval_q=count, stride=stride)[0]
        mx.eval(tokens)
        return tokens

    def null(self, tokens: int) -> mx.array:
        """The tokens of no style: zeros (tokens, D)."""
        return mx.zeros((tokens, self.network.outputs))


def excerpt(
    source: Audio | str | Path, sample_rate: int, seconds: float, start: float | None = None
) -> Samples:
    """A stretch of a clip or a file, averaged over its channels, as float32 (time,) at `sample_rate`.

    start  seconds, or None for the middle of the clip

    Raises AudioError when the clip is missing, no audio, too short or silent; OptionError when the stretch
    does not lie within it.
    """
    audio = (source if isinstance(source, Audio) else Audio.load(source)).mix(1)
    name = "the style clip" if isinstance(source, Audio) else f"the style clip {source}"
    samples = resample(audio.samples[0], audio.sample_rate, sample_rate, hold_ends=True)
    length = int(seconds * sample_rate)
    spare = len(samples) - length
    if spare < 0:
        raise AudioError(
            f"{name} is too short: it has {audio.duration:.2f} s and an excerpt of {seconds:g} s is taken; "
            "give a longer clip, or a smaller excerpt_seconds"
        )
    first = spare // 2 if start is None else round(start * sample_rate) if math.isfinite(start) else -1
    if not 0 <= first <= spare:
        raise OptionError(
            f"{name}: an excerpt of {seconds:g} s can start at 0 to {spare / sample_rate:.2f} s, got {start}"
        )
    taken = samples[first : first + length]
    if np.abs(taken).max() < SILENCE:
        raise AudioError(
            f"{name} is silent from {first / sample_rate:.2f} s on: nothing there reaches -80 dB"
        )
    return taken


class StyleNetwork(Module):
    """What MERT heard to style tokens: transformer, batch norm, residual quantiser, projection. Float32.

    inputs   width of MERT's vectors
    outputs  width of the tokens, that of the music model; they are `config.stride` vectors apart
    """

    def __init__(
        self,
        config: StyleConfig,
        quantizer: ResidualQuantizer,
        *,
        inputs: int,
        width: int,
        layers: int,
        outputs: int,
    ) -> None:
        super().__init__()
        self.config, self.quantizer = config, quantizer
        self.inputs, self.outputs = inputs, outputs
        self.embed = Linear(inputs, width)
        self.blocks = [Block(width, config.heads) for _ in range(layers)]
        if config.batch_norm:
            self.batch_norm = BatchNorm(width)
        self.project = Linear(width, outputs)

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
    width, inputs = _matrix(table, f"{STYLE}embed.weight")
    outputs, _ = _matrix(table, f"{STYLE}output_proj.weight")
    if width % config.heads:
        raise ModelError(f"a style transformer {width} wide cannot have {config.heads} heads")
    at = re.compile(re.escape(STYLE) + r"transformer\.layers\.(\d+)\.")
    layers = 1 + max((int(match[1]) for match in map(at.match, table) if match), default=-1)
    names = [f"{STYLE}rvq.vq.layers.{index}._codebook.embed" for index in range(config.codebooks)]
    quantizer = ResidualQuantizer(MlxOps(), [table.take(name, (None, width)) for name in names])
    network = StyleNetwork(config, quantizer, inputs=inputs, width=width, layers=layers, outputs=outputs)
    load_strict(network, table, pieces=_pieces(layers), ignore=IGNORED)
    return network


def _pieces(layers: int) -> dict[str, tuple[str, ...]]:
    """The parameters of the network -> their tensors in an audiocraft checkpoint."""
    names = {"batch_norm.mean": "batch_norm.running_mean", "batch_norm.variance": "batch_norm.running_var"}
    for leaf in ("weight", "bias"):
        names |= {f"embed.{leaf}": f"embed.{leaf}", f"project.{leaf}": f"output_proj.{leaf}"}
    for i in range(layers):
        at, ours = f"transformer.layers.{i}", f"blocks.{i}"
        for leaf in ("weight", "bias"):
            names[f"{ours}.attention_norm.{leaf}"] = f"{at}.norm1.{leaf}"
            names[f"{ours}.feed_norm.{leaf}"] = f"{at}.norm2.{leaf}"
        names[f"{ours}.qkv.weight"] = f"{at}.self_attn.in_proj_weight"
        names[f"{ours}.out.weight"] = f"{at}.self_attn.out_proj.weight"
        names[f"{ours}.up.weight"] = f"{at}.linear1.weight"
        names[f"{ours}.down.weight"] = f"{at}.linear2.weight"
    return {ours: (STYLE + theirs,) for ours, theirs in names.items()}


def _matrix(table: Weights, name: str) -> tuple[int, int]:
    shape = table.shape(name)
    if len(shape) != 2:
        raise ModelError(f"{table.source}: {name} has shape {shape}, expected a matrix")
    return shape[0], shape[1]


def _between(name: str, value: float | None, default: float, low: float, high: float) -> float:
    if value is None:
        return default
    if not low <= value <= high:
        raise OptionError(f"{name} must be from {low:g} to {high:g}, got {value}")
    return value


def _whole(name: str, value: int | None, default: int, high: int) -> int:
    if value is not None and value % 1 != 0:
        raise OptionError(f"{name} must be a whole number, got {value}")
    return int(_between(name, value, default, 1, high))
