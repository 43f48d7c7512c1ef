"""Both networks together: codes and a mask in, new codes out, in the default way or the original's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from audiogen_core.noise import Noise, SeededNoise
from audiogen_onnx.vampnet.draw import Float, Int
from audiogen_onnx.vampnet.mask_values import seconds_to_frames
from audiogen_onnx.vampnet.network import Network
from audiogen_onnx.vampnet.options import VampOptions
from audiogen_onnx.vampnet.sampling import Bools, OnStep
from audiogen_onnx.vampnet.tokens import TokenVamp, stretched
from audiogen_onnx.vampnet.upstream import UpstreamVamp
from audiogen_onnx.vampnet.windows import LongFill, Window


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
            job = UpstreamVamp(*self._asked(options), options.fill(), options.feedback_steps)
            made, _ = job.run(codes, mask, noise, on_step)
            return Tokens(made, np.zeros(len(made), np.float32))
        source = SeededNoise(noise) if isinstance(noise, int) else noise
        filled = self._job(options).run(codes, mask, source, on_step)
        total = np.where(mask, filled.confidence, 0).sum(axis=(1, 2))
        return Tokens(filled.codes, (total / np.maximum(1, mask.sum(axis=(1, 2)))).astype(np.float32))

    def steps(self, mask: Bools, options: VampOptions) -> int:
        """How many calls of the networks a mask (B, K, F) takes, before it is stretched."""
        rows = slice(0, self.fine.codebooks)
        _, wider = stretched(
            np.zeros(mask[:, rows].shape, np.int64), mask[:, rows], options.time_stretch_factor
        )
        if options.compat == "upstream":
            job = UpstreamVamp(*self._asked(options), options.fill(), options.feedback_steps)
            return job.steps(wider.shape[-1])
        return self._job(options).steps(wider)

    def windows(self, mask: Bools, options: VampOptions) -> list[Window]:
        """Where the coarse network works, for a mask (B, K, F)."""
        return self._job(options).coarse.windows(mask[:, : self.coarse.codebooks])

    def _job(self, options: VampOptions) -> TokenVamp:
        coarse, fine = self._asked(options)
        return TokenVamp(
            LongFill(coarse, options.fill(), *self._context(options.context_seconds)),
            LongFill(fine, options.fine_fill(), *self._context(options.context_seconds / 4)),
            options.feedback_steps,
            options.loop,
        )

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
