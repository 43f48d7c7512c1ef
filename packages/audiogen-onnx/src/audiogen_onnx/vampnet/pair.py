"""Both networks together: codes and a mask in, new codes out, in the default way or the original's.

The coarse network makes the first rows of codes, then the fine one, which sees them, the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise, SeededNoise
from audiogen_core.progress import counted
from audiogen_onnx.vampnet.draw import Filters, Float, Int
from audiogen_onnx.vampnet.mask import seconds_to_frames
from audiogen_onnx.vampnet.network import LongFill, Network, Window
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.sampling import Bools, Filled, FillOptions, OnStep
from audiogen_onnx.vampnet.upstream import UpstreamVamp


@dataclass(frozen=True, eq=False)
class Tokens:
    """Codes that were made, (B, K, F), and the mean log probability of what was drawn, float32 (B,).

    The original's way keeps no probabilities: they are 0 there.
    """

    codes: Int
    confidence: Float


@dataclass(frozen=True, eq=False)
class Pair:
    """The coarse network, which makes the first rows of codes, and the fine one, which makes the rest.

    sample_rate, hop_length  of the codec: what a frame is
    """

    coarse: Network
    fine: Network
    sample_rate: int
    hop_length: int

    def make(
        self, codes: Int, mask: Bools, options: VampOptions, noise: Noise | int, on_step: OnStep | None = None
    ) -> Tokens:
        """int64 codes (B, K, F) with the masked places made; noise, or a seed.

        Fewer rows than the fine network reads are filled up, the new ones being made; further ones are cut.
        """
        missing = ((0, 0), (0, max(0, self.fine.codebooks - codes.shape[1])), (0, 0))
        codes, mask = np.pad(codes, missing), np.pad(mask, missing, constant_values=True)
        rows = slice(0, self.fine.codebooks)
        codes, mask = stretched(codes[:, rows], mask[:, rows], options.time_stretch_factor)
        if options.compat == "upstream":
            new, _ = self._upstream(options).run(codes, mask, noise, on_step)
            return Tokens(new, np.zeros(len(new), np.float32))
        source = SeededNoise(noise) if isinstance(noise, int) else noise
        filled = self._job(options).run(codes, mask, source, on_step)
        total = np.where(mask, filled.confidence, 0).sum(axis=(1, 2))
        return Tokens(filled.codes, (total / np.maximum(1, mask.sum(axis=(1, 2)))).astype(np.float32))

    def steps(self, mask: Bools, options: VampOptions) -> int:
        """How many calls of the networks a mask (B, K, F) takes, before it is stretched."""
        mask = mask[:, : self.fine.codebooks]
        _, mask = stretched(np.zeros(mask.shape, np.int64), mask, options.time_stretch_factor)
        if options.compat == "upstream":
            return self._upstream(options).steps(mask.shape[-1])
        return self._job(options).steps(mask)

    def windows(self, mask: Bools, options: VampOptions) -> list[Window]:
        """Where the coarse network works, for a mask (B, K, F)."""
        return self._job(options).coarse.windows(mask[:, : self.coarse.codebooks])

    def _job(self, options: VampOptions) -> TokenVamp:
        coarse, fine = self._asked(options)
        return TokenVamp(
            LongFill(coarse, coarse_fill(options), *self._context(options.context_seconds)),
            LongFill(fine, fine_fill(options), *self._context(options.context_seconds / 4)),
            options.feedback_steps,
            options.loop,
        )

    def _upstream(self, options: VampOptions) -> UpstreamVamp:
        return UpstreamVamp(*self._asked(options), coarse_fill(options), options.feedback_steps)

    def _asked(self, options: VampOptions) -> tuple[Network, Network]:
        """The networks, with the windows that were asked for."""
        asked = ((self.coarse, options.window_seconds), (self.fine, options.fine_window_seconds))
        coarse, fine = (
            part if seconds is None else replace(part, window=max(1, self._frames(seconds)))
            for part, seconds in asked
        )
        return coarse, fine

    def _context(self, seconds: float) -> tuple[int, int]:
        """Frames before and after what a window makes: what lies before matters more."""
        frames = self._frames(seconds)
        return frames - frames // 5, frames // 5

    def _frames(self, seconds: float) -> int:
        return seconds_to_frames(seconds, self.sample_rate, self.hop_length)


@dataclass(frozen=True, eq=False)
class TokenVamp:
    """One vamp of codes: the coarse network, then the fine one.

    coarse, fine    how each network fills its rows
    feedback_steps  how often the coarse network goes over the clip. From the second time on the prompts
                    inside what is generated move on by a frame each time, and what was made there before
                    becomes the prompt
    circular        the end of the clip leads into its beginning: the frames around that place are made once
                    more, seeing both sides
    """

    coarse: LongFill
    fine: LongFill
    feedback_steps: int = 1
    circular: bool = False

    def run(self, codes: Int, mask: Bools, noise: Noise, on_step: OnStep | None = None) -> Filled:
        """Codes (B, K, F) with the masked places made, K the codebooks of the fine network.

        confidence  of every code that was made: the log probability with which it was last drawn
        """
        add = counted(on_step, self.steps(mask))

        def step(*_: float) -> None:  # each window counts its own steps; here they are steps of the whole
            add(1)

        rows = self.coarse.network.codebooks
        first = Filled(codes[:, :rows].copy(), np.zeros_like(codes[:, :rows], np.float32))
        for turn in range(self.feedback_steps):
            first = _update(first, self.coarse, _turned(mask[:, :rows], turn), noise, step)
        if self.circular:
            first = self._joint(first, self.coarse, mask[:, :rows], noise, step)
        whole = Filled(codes.copy(), np.zeros(codes.shape, np.float32))
        whole.codes[:, :rows] = first.codes
        whole.confidence[:, :rows] = first.confidence
        kept = self.fine.network.conditioning_codebooks
        fine_mask = mask & (np.arange(codes.shape[1])[:, None] >= kept)
        whole = _update(whole, self.fine, fine_mask, noise, step)
        return self._joint(whole, self.fine, fine_mask, noise, step) if self.circular else whole

    def steps(self, mask: Bools) -> int:
        """How many calls of the networks this will take."""
        coarse = mask[:, : self.coarse.network.codebooks]
        total = sum(self.coarse.steps(_turned(coarse, turn)) for turn in range(self.feedback_steps))
        total += self.fine.steps(mask)
        if self.circular:
            for part, wanted in ((self.coarse, coarse), (self.fine, mask)):
                rolled, _, _ = _around(part, wanted)
                total += part.steps(rolled)
        return total

    def _joint(self, done: Filled, part: LongFill, mask: Bools, noise: Noise, step: OnStep) -> Filled:
        """The frames around the place where the end meets the beginning, made once more."""
        wanted, roll, rows = _around(part, mask)
        codes = np.roll(done.codes, roll, axis=-1)
        confidence = np.roll(done.confidence, roll, axis=-1)
        near = Filled(codes[..., rows], confidence[..., rows])
        near = _update(near, part, wanted, noise, step)
        codes[..., rows], confidence[..., rows] = near.codes, near.confidence
        return Filled(np.roll(codes, -roll, axis=-1), np.roll(confidence, -roll, axis=-1))


def coarse_fill(options: VampOptions) -> FillOptions:
    """How the coarse network's codes are made."""
    return FillOptions(
        steps=options.steps,
        mask_temperature=options.mask_temperature,
        sample_cutoff=options.sample_cutoff,
        filters=Filters(
            temperature=options.temperature,
            typical_mass=options.typical_mass,
            typical_min_tokens=options.typical_min_tokens,
            top_p=options.top_p,
        ),
        compat=options.compat,
    )


def fine_fill(options: VampOptions) -> FillOptions:
    """How the fine network's are: with everything that was asked of the coarse one."""
    coarse, own = coarse_fill(options), options.fine_temperature
    filters = replace(coarse.filters, temperature=options.temperature if own is None else own)
    return replace(coarse, steps=options.fine_steps, filters=filters)


def _turned(mask: Bools, turn: int) -> Bools:
    """The mask of a feedback step: nothing is made that the first step was to keep."""
    return mask & np.roll(mask, turn, axis=-1)


def _update(done: Filled, part: LongFill, mask: Bools, noise: Noise, step: OnStep) -> Filled:
    """Fill, and keep the confidence of what is not made again."""
    filled = part.run(done.codes, mask, noise, step)
    confidence: Float = np.where(mask, filled.confidence, done.confidence)
    return Filled(filled.codes, confidence)


def _around(part: LongFill, mask: Bools) -> tuple[Bools, int, slice]:
    """One window around the joint of a circle: its mask, the roll that brings the joint to the middle of the
    clip, and the frames of the window in the rolled clip.
    """
    frames = mask.shape[-1]
    middle = frames // 2
    size = min(frames, part.network.window)
    start = min(max(0, middle - size // 2), frames - size)
    reach = max(1, min(part.before, size // 4))
    near = np.zeros(frames, np.bool_)
    near[max(0, middle - reach) : middle + reach] = True
    rows = slice(start, start + size)
    return (np.roll(mask, middle, axis=-1) & near)[..., rows], middle, rows


def stretched(codes: Int, mask: Bools, factor: int) -> tuple[Int, Bools]:
    """Every frame repeated `factor` times; only the first of each keeps what the mask said, the others are
    to be generated.
    """
    if factor < 1:
        raise OptionError(f"time_stretch_factor must be a whole number of 1 or more, got {factor}")
    inserted = np.arange(codes.shape[-1] * factor) % factor != 0
    return np.repeat(codes, factor, axis=-1), np.repeat(mask, factor, axis=-1) | inserted
