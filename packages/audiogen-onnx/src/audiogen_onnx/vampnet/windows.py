"""Clips of any length: windows that overlap, each continuing from what the one before has made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiogen_core.noise import Noise
from audiogen_onnx.vampnet.draw import Float, Int
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.sampling import Bools, Filled, FillOptions, OnStep, fill_scored


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) that a network sees; those of [first, last) come out of it."""

    start: int
    stop: int
    first: int
    last: int


def plan(frames: int, size: int, before: int, after: int) -> list[Window]:
    """Windows of equal size over a clip: each frame comes out of exactly one of them.

    size    frames in a window; a shorter clip is one window
    before  frames a window sees, at least, before the ones that come out of it
    after   and after them; both are nothing at the ends of the clip

    Context is cut down to a third of a window before, and an eighth after: at least half of it is made.
    """
    before, after = min(before, size // 3), min(after, size // 8)
    if frames <= size:
        return [Window(0, frames, 0, frames)]
    hop = size - before - after
    count = 1 + -(-(frames - size) // hop)
    starts = [round(index * (frames - size) / (count - 1)) for index in range(count)]
    firsts = [0, *(start + before for start in starts[1:]), frames]
    return [
        Window(start, start + size, firsts[index], firsts[index + 1]) for index, start in enumerate(starts)
    ]


@dataclass(frozen=True, eq=False)
class LongFill:
    """Filling masked codes with one network, window by window.

    before, after  frames of context, as `plan` has them
    """

    network: Network
    options: FillOptions
    before: int
    after: int

    def windows(self, mask: Bools) -> list[Window]:
        """The windows in which there is something to make. The mask is (B, K, F)."""
        wanted: Bools = np.asarray(self._wanted(mask).any(axis=(0, 1)))
        found = plan(mask.shape[-1], self.network.window, self.before, self.after)
        return [window for window in found if wanted[window.first : window.last].any()]

    def steps(self, mask: Bools) -> int:
        """How many calls of the network this will take."""
        return len(self.windows(mask)) * self.options.steps

    def run(self, codes: Int, mask: Bools, noise: Noise, on_step: OnStep | None = None) -> Filled:
        """Codes (B, K, F), the masked places of the rows that the network makes being filled.

        A window sees what earlier ones made as if it had been given. What lies behind its last frame is
        made as well, so that the frames before have a future, and is then made anew by the next window.
        """
        codes = codes.copy()
        confidence: Float = np.zeros(codes.shape, np.float32)
        todo = self._wanted(mask)
        for window in self.windows(mask):
            part, out = slice(window.start, window.stop), slice(window.first, window.last)
            filled = fill_scored(
                codes[..., part],
                todo[..., part],
                self.network.logits,
                self.options,
                noise=noise,
                conditioning_codebooks=self.network.conditioning_codebooks,
                on_step=on_step,
                codebook_size=self.network.codebook_size,
            )
            made = slice(window.first - window.start, window.last - window.start)
            codes[..., out] = filled.codes[..., made]
            confidence[..., out] = filled.confidence[..., made]
            todo[..., : window.last] = False
        return Filled(codes, confidence)

    def _wanted(self, mask: Bools) -> Bools:
        wanted = mask.copy()
        wanted[:, : self.network.conditioning_codebooks] = False
        return wanted


def counted(on_step: OnStep | None, total: int) -> OnStep:
    """An `on_step` for several jobs, each of which counts from 1: it tells the steps done in all."""
    done = 0

    def step(_: float, __: float) -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    return step
