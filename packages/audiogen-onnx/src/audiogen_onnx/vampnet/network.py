"""One of VampNet's two networks, coarse or fine: codes in, logits out, and how it fills clips of any length.

A clip longer than what the network was trained on is worked off in windows that overlap, each continuing
from what the one before has made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiogen_core.errors import CodesError
from audiogen_core.noise import Noise
from audiogen_onnx.manifest import CodecGeometry, NetworkGeometry
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.draw import Float, Int
from audiogen_onnx.vampnet.sampling import Bools, Filled, FillOptions, OnStep, fill_scored

WIDEST = 1024
"""Frames of a window, at most, unless more was asked for: the memory of attention grows with the square.

VampNet's own windows have 575 and 173.
"""


@dataclass(frozen=True, eq=False)
class Network:
    """One of VampNet's two networks.

    name            for messages
    run             int64 codes (B, K, F), masked places holding the codebook size -> float32 logits
                    (B, P, F, N)
    codebooks       K, the rows it reads
    conditioning_codebooks  the first rows, which it never makes; P = K minus this
    codebook_size   N
    window          frames it was trained on: what lies further apart it cannot relate
    """

    name: str
    run: Callable[[Int], NDArray[Any]]
    codebooks: int
    conditioning_codebooks: int
    codebook_size: int
    window: int

    def logits(self, codes: ArrayLike) -> Float:
        """Codes (K, F) or (B, K, F) -> float32 logits (P, F, N) or (B, P, F, N).

        A place to be generated holds the codebook size. Raises CodesError when the codes do not fit.
        """
        values = np.asarray(codes)
        if values.ndim not in (2, 3) or values.shape[-2] != self.codebooks or values.size == 0:
            raise CodesError(
                f"the {self.name} model reads codes (..., {self.codebooks}, frames), got {values.shape}"
            )
        if not np.issubdtype(values.dtype, np.integer):
            raise CodesError(f"codes must be integers, got {values.dtype}")
        if values.min() < 0 or values.max() > self.codebook_size:
            raise CodesError(
                f"codes must lie in [0, {self.codebook_size}), or be {self.codebook_size} where they are to "
                f"be generated; got {values.min()} to {values.max()}"
            )
        batched = values.reshape(-1, *values.shape[-2:]).astype(np.int64, copy=False)
        logits = np.asarray(self.run(batched), np.float32)
        return logits.reshape(*values.shape[:-2], *logits.shape[1:])

    @classmethod
    def of(cls, name: str, facts: NetworkGeometry, codec: CodecGeometry, session: Session) -> Network:
        """A network of an exported folder."""
        return cls(
            name,
            lambda codes: session.run({"codes": codes})["logits"],
            facts.codebooks,
            facts.conditioning_codebooks,
            codec.codebook_size,
            min(codec.frames(facts.window_seconds), WIDEST),
        )


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
    # As many as it takes, spread evenly: so all have more context than asked for, and none is a short rest.
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
        wanted: Bools = np.asarray(self._wanted(mask).any(axis=(0, 1)))  # (F,)
        windows = plan(mask.shape[-1], self.network.window, self.before, self.after)
        return [window for window in windows if wanted[window.first : window.last].any()]

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
            inner = slice(window.first - window.start, window.last - window.start)
            codes[..., out] = filled.codes[..., inner]
            confidence[..., out] = filled.confidence[..., inner]
            todo[..., : window.last] = False
        return Filled(codes, confidence)

    def _wanted(self, mask: Bools) -> Bools:
        wanted = mask.copy()
        wanted[:, : self.network.conditioning_codebooks] = False
        return wanted
