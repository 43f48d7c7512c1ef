"""Style conditioning: a few seconds of a clip, heard by MERT and squeezed into coarse codes, as tokens.

Excerpt at 32 kHz -> 24 kHz -> MERT -> transformer -> residual quantiser, of which only the first
codebooks are used -> every 15th vector: five tokens a second.
Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck features"
(arXiv 2407.12563).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiogen_core.audio import SILENCE, Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.musicgen.config import STYLE, StyleConfig
from audiogen_core.musicgen.mert import SAMPLE_RATE
from audiogen_core.sinc import Samples, resample
from audiogen_core.weights import Weights

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


@dataclass(frozen=True)
class Heard:
    """What a style conditioner is given.

    samples    of the excerpt, float32 (time,) at MERT's rate
    codebooks  of the quantiser that are used
    stride     vectors per token
    """

    samples: Samples
    codebooks: int
    stride: int


def hear(
    audio: Audio | str | Path,
    config: StyleConfig,
    *,
    eval_q: int | None = None,
    excerpt_seconds: float | None = None,
    start: float | None = None,
    ds_factor: int | None = None,
) -> Heard:
    """The excerpt of a clip or a file, and what is made of it.

    eval_q           how many codebooks of the quantiser are used, 1 to 6: the fewer, the looser the
                     hold of the style; None: as in the model's settings, 3
    excerpt_seconds  that are listened to; None: 3
    start            seconds, where the excerpt begins; None: it is the middle of the clip
    ds_factor        vectors per token; None: 15, which makes five tokens a second

    The original takes an excerpt at random. Raises OptionError for an option out of range; AudioError
    when the clip is missing, no audio, shorter than the excerpt, or silent there.
    """
    count = _whole("eval_q", eval_q, config.eval_q, config.codebooks)
    stride = _whole("ds_factor", ds_factor, config.stride, COARSEST)
    seconds = _between("excerpt_seconds", excerpt_seconds, config.seconds, SHORTEST, LONGEST)
    samples = excerpt(audio, config.sample_rate, seconds, start)
    return Heard(resample(samples, config.sample_rate, SAMPLE_RATE, hold_ends=True), count, stride)


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


@dataclass(frozen=True)
class StyleSizes:
    """What the weights of a style conditioner say of it.

    inputs   width of MERT's vectors
    width    of the transformer
    layers   of the transformer
    outputs  width of the tokens, that of the music model
    """

    inputs: int
    width: int
    layers: int
    outputs: int

    @classmethod
    def of(cls, table: Weights, config: StyleConfig) -> StyleSizes:
        """From an audiocraft checkpoint. Raises WeightsError, ModelError when it disagrees with `config`."""
        width, inputs = _matrix(table, f"{STYLE}embed.weight")
        outputs, _ = _matrix(table, f"{STYLE}output_proj.weight")
        if width % config.heads:
            raise ModelError(f"a style transformer {width} wide cannot have {config.heads} heads")
        at = re.compile(re.escape(STYLE) + r"transformer\.layers\.(\d+)\.")
        layers = 1 + max((int(match[1]) for match in map(at.match, table) if match), default=-1)
        return cls(inputs, width, layers, outputs)

    def check_mert(self, width: int) -> None:
        """Raise ModelError unless a MERT of that width can feed it."""
        if width != self.inputs:
            raise ModelError(
                f"this MERT gives vectors of {width}, the style conditioner takes {self.inputs}; use "
                "m-a-p/MERT-v1-95M"
            )


def codebooks(config: StyleConfig) -> list[str]:
    """The tensors of the quantiser, (entries, width) each."""
    return [f"{STYLE}rvq.vq.layers.{index}._codebook.embed" for index in range(config.codebooks)]


def pieces(layers: int) -> dict[str, tuple[str, ...]]:
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
