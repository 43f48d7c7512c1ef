"""One clip on its way through VampNet: encoded, masked, made anew, decoded, and set back to how it was.

Sound passes in blocks, so that memory does not grow with the clip; only its codes are held as a whole.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from audiogen_core.audio import Audio, resampled
from audiogen_core.codec import Codec
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.progress import counted
from audiogen_core.store import Store, cut
from audiogen_onnx.vampnet.draw import Int
from audiogen_onnx.vampnet.loudness import Meter
from audiogen_onnx.vampnet.mask import Mask, seconds_to_frames
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.pair import Pair
from audiogen_onnx.vampnet.prompts import Layout, build_mask, spans
from audiogen_onnx.vampnet.sampling import OnStep
from audiogen_onnx.vampnet.sound import (
    Blocks,
    Circle,
    Levels,
    Source,
    gain_in,
    gain_out,
    glide,
    in_samples,
    measure,
    pasted,
)

FADE = 0.01
"""Seconds of the cross-fades between a clip and what was made."""

MARGIN = 1.0
"""Seconds of a loop that the codec sees beyond the joint."""


@dataclass(frozen=True, eq=False)
class Made:
    """One result, as codes.

    codes       int64 (channels, K, F)
    mask        bool (K, F), what was made; the same for all channels
    confidence  mean log probability of what was drawn
    seed        that gives it, or None where the noise was given
    """

    codes: Int
    mask: Mask
    confidence: float
    seed: int | None


@dataclass(frozen=True, eq=False)
class Clip:
    """A source, measured, and encoded when its codes are asked for.

    codec, pair  what it is encoded and made anew with
    levels       its length, loudness and peak
    layout       where the frames of the result lie
    gain         what its samples are multiplied by before they are encoded
    """

    codec: Codec
    pair: Pair
    source: Source
    options: VampOptions
    levels: Levels
    layout: Layout
    gain: float

    @classmethod
    def open(cls, codec: Codec, pair: Pair, loudness: float, source: Source, options: VampOptions) -> Clip:
        """Measure a source.

        loudness  LUFS that it is brought to before it is encoded

        Raises AudioError.
        """
        info = codec.info
        levels = measure(source, info.sample_rate)
        layout = Layout.of(options, info.sample_rate, info.hop_length, info.codebooks, levels.length)
        return cls(codec, pair, source, options, levels, layout, gain_in(levels.mean, levels.peak, loudness))

    # ---- codes

    @cached_property
    def codes(self) -> Int:
        """int64 (channels, K, F), places before and after the clip included."""
        layout, channels = self.layout, self.source.channels
        codes = np.zeros((channels, layout.codebooks, layout.frames), np.int64)
        for channel in range(channels):
            codes[channel, :, layout.before : layout.before + layout.inside] = self._encode(channel)
        return codes

    def make(
        self, mask: ArrayLike | None, noise: Noise | int, count: int, on_step: OnStep | None
    ) -> list[Made]:
        """`count` results, the one the networks were surest of first.

        noise  a seed, result i being that of seed + i; or a source that all draw from in turn
        """
        seeds = [noise + index if isinstance(noise, int) else None for index in range(count)]
        sources: list[Noise] = (
            [SeededNoise(noise + index) for index in range(count)]
            if isinstance(noise, int)
            else [noise] * count
        )
        masks = [self._mask(mask, source) for source in sources]
        channels = self.source.channels
        steps = sum(self.pair.steps(chosen[None], self.options) for chosen in masks) * channels
        add = counted(on_step, steps)

        def step(*_: float) -> None:  # each channel counts its own steps; here they are steps of the whole
            add(1)

        made = [
            self._make(chosen, source, seed, step)
            for chosen, source, seed in zip(masks, sources, seeds, strict=True)
        ]
        return sorted(made, key=lambda result: -result.confidence)

    def mask(self, given: ArrayLike | None, seed: int) -> Mask:
        """The mask (codebooks, frames) that a seed gives, before anything is made."""
        return self._mask(given, SeededNoise(seed))

    def _make(self, mask: Mask, noise: Noise, seed: int | None, step: OnStep) -> Made:
        """All channels draw the same numbers: what is alike in them stays alike."""
        results = []
        for channel, codes in enumerate(self.codes):
            # a copy for all but the last channel, which leaves the source where one channel leaves it
            last = channel == len(self.codes) - 1
            source = noise if last else deepcopy(noise)
            given = seed if seed is not None and self.options.compat == "upstream" else source
            results.append(self.pair.make(codes[None], mask[None], self.options, given, step))
        confidence = float(np.mean([result.confidence for result in results]))
        return Made(np.concatenate([result.codes for result in results]), mask, confidence, seed)

    def _mask(self, given: ArrayLike | None, noise: Noise) -> Mask:
        return build_mask(self.options, self.layout, given=given, noise=noise, clip=self._mono)

    def _mono(self) -> Audio:
        """The clip as the networks hear it, in one channel."""
        rate = self.codec.info.sample_rate
        blocks = [block.mean(axis=0, keepdims=True) for block in self.source.blocks(rate)]
        return Audio(np.concatenate(blocks, axis=1) * np.float32(self.gain), rate)

    def _encode(self, channel: int) -> Int:
        rate, circle = self.codec.info.sample_rate, self._circle()
        sound = self.source.blocks(rate) if circle is None else circle.around(self.source, rate)
        gain = np.float32(self.gain)
        parts = self.codec.encode_blocks(block[channel : channel + 1] * gain for block in sound)
        codes = np.concatenate(list(parts), axis=1).astype(np.int64)
        start = 0 if circle is None else circle.margin
        return codes[:, start : start + self.layout.inside]

    def _circle(self) -> Circle | None:
        info = self.codec.info
        if not self.options.loop:
            return None
        margin = seconds_to_frames(MARGIN, info.sample_rate, info.hop_length)
        return Circle(self.levels.length, info.hop_length, min(margin, self.levels.length // info.hop_length))

    # ---- sound

    def sound(self, made: Made, sample_rate: int, folder: Path | None = None) -> Blocks:
        """The sound of a result in blocks (channels, n): at the loudness of the clip, of exact length.

        With infill or outpainting, the rest is the clip itself, resampled only where another rate than its
        own is asked for.

        sample_rate  of the result, Hz
        folder       for a temporary file, where the result does not fit into memory
        """
        channels, length = self.source.channels, self.length(sample_rate)
        with Store(channels, folder) as store:
            for block in self._decode(made.codes):
                store.add(block)
            new = resampled(self._levelled(store), self.layout.sample_rate, sample_rate, channels)
            new, made_in = cut(new, 0, length, channels), spans(self.options, self.layout, FADE)
            if not made_in:
                yield from new
                return
            start = -round(self.options.outpaint_left * sample_rate)
            original = cut(self.source.blocks(sample_rate), start, length, channels)
            yield from pasted(new, original, in_samples(made_in, sample_rate), round(FADE * sample_rate))

    def length(self, sample_rate: int) -> int:
        """Samples of a result at this rate."""
        info, options = self.codec.info, self.options
        if sample_rate == info.sample_rate:
            return self.layout.left + self.levels.length * options.time_stretch_factor + self.layout.right
        seconds = self.source.length / self.source.sample_rate * options.time_stretch_factor
        return round((seconds + options.outpaint_left + options.outpaint_right) * sample_rate)

    def _decode(self, codes: Int) -> Blocks:
        circle = self._circle()
        if circle is not None:
            codes = circle.codes(codes)
        parts = [self.codec.decode_blocks([channel.astype(np.int32)]) for channel in codes]
        for blocks in zip(*parts, strict=True):
            yield np.concatenate(blocks)

    def _levelled(self, store: Store) -> Blocks:
        """The result as loud as the clip; where it joins the clip itself, by the gain of the encoding."""
        joins = bool(spans(self.options, self.layout, FADE))
        gain = np.float32(1 / self.gain if joins else self._gain_out(store))
        return (block * gain for block in self._made(store))

    def _made(self, store: Store) -> Blocks:
        """The part of what was decoded that is the result; of a loop, with its ends joined."""
        rate, circle = self.codec.info.sample_rate, self._circle()
        if circle is None:
            return store.part(self.layout.skipped, self.length(rate))
        start = circle.margin * circle.hop
        fade = min(round(FADE * rate), start, circle.length)
        lead = np.concatenate([*store.part(start - fade, fade), store.empty], axis=1)
        return glide(store.part(start, circle.length), circle.length, lead)

    def _gain_out(self, store: Store) -> float:
        """What sets the result to the loudness of the clip, unless one of them is silent.

        What would clip, and did not in the clip, is made quieter.
        """
        meter = Meter(self.codec.info.sample_rate, self.source.channels)
        for block in self._made(store):
            meter.add(block)
        return gain_out(meter.loudness(), meter.peak, self.levels.loudness, self.levels.peak)
