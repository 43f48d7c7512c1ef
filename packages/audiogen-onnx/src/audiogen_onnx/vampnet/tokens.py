"""From codes and a mask to new codes: the coarse network, then the fine one, over clips of any length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiogen_core.errors import OptionError
from audiogen_core.noise import Noise
from audiogen_onnx.vampnet.draw import Float, Int
from audiogen_onnx.vampnet.sampling import Bools, Filled, OnStep
from audiogen_onnx.vampnet.windows import LongFill, counted


@dataclass(frozen=True, eq=False)
class TokenVamp:
    """One job.

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
        step = counted(on_step, self.steps(mask))
        rows = self.coarse.network.codebooks
        first = Filled(codes[:, :rows].copy(), np.zeros_like(codes[:, :rows], np.float32))
        for turn in range(self.feedback_steps):
            first = _update(first, self.coarse, self._turned(mask[:, :rows], turn), noise, step)
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
        total = sum(self.coarse.steps(self._turned(coarse, turn)) for turn in range(self.feedback_steps))
        total += self.fine.steps(mask)
        if self.circular:
            for part, wanted in ((self.coarse, coarse), (self.fine, mask)):
                rolled, _, _ = _around(part, wanted)
                total += part.steps(rolled)
        return total

    def _turned(self, mask: Bools, turn: int) -> Bools:
        """The mask of a feedback step: nothing is made that the first step was to keep."""
        return mask & np.roll(mask, turn, axis=-1)

    def _joint(self, done: Filled, part: LongFill, mask: Bools, noise: Noise, step: OnStep) -> Filled:
        """The frames around the place where the end meets the beginning, made once more."""
        wanted, roll, rows = _around(part, mask)
        codes = np.roll(done.codes, roll, axis=-1)
        confidence = np.roll(done.confidence, roll, axis=-1)
        near = Filled(codes[..., rows], confidence[..., rows])
        near = _update(near, part, wanted, noise, step)
        codes[..., rows], confidence[..., rows] = near.codes, near.confidence
        return Filled(np.roll(codes, -roll, axis=-1), np.roll(confidence, -roll, axis=-1))


def _update(done: Filled, part: LongFill, mask: Bools, noise: Noise, step: OnStep) -> Filled:
    """Fill, and keep the confidence of what is not made again."""
    made = part.run(done.codes, mask, noise, step)
    confidence: Float = np.where(mask, made.confidence, done.confidence)
    return Filled(made.codes, confidence)


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
