"""Style conditioning: a few seconds of a clip, heard by MERT and squeezed into coarse codes, as tokens.

Excerpt at 32 kHz -> 24 kHz -> MERT -> transformer -> residual quantiser, of which only the first
codebooks are used -> every 15th vector: five tokens a second.
Source: Rouard et al. 2024, "Audio conditioning for music generation via discrete bottleneck features"
(arXiv 2407.12563).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiogen_core.audio import Audio
from audiogen_core.errors import AudioError, ModelError, OptionError
from audiogen_core.weights import Weights
from audiogen_mlx.musicgen.melody import SILENCE
from audiogen_mlx.musicgen.mert import SAMPLE_RATE, Mert
from audiogen_mlx.musicgen.resample import Samples, resample
from audiogen_mlx.musicgen.style_network import PREFIX, UNUSED, StyleConfig, StyleNetwork

__all__ = ["PREFIX", "UNUSED", "StyleConditioner", "StyleConfig"]

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

    @classmethod
    def from_table(
        cls,
        table: Weights,
        config: StyleConfig,
        mert: Callable[[], Mert],
        *,
        prefix: str = PREFIX,
    ) -> StyleConditioner:
        """From the weights of an audiocraft checkpoint, of which those below `prefix` are taken.

        The names in UNUSED are left. Raises WeightsError, or ModelError when weights and settings disagree.
        """
        return cls(StyleNetwork(table, config, prefix=prefix), mert)

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
