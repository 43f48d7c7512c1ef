"""Layouts: how the codes of a clip become the token sequence a model sees, and back.

Codes are (B, T, K): batch, frames, codebooks. Tokens are (B, S, Q): batch, steps, streams; the streams of one
step enter the model together. Four layouts, compared in MusicGen (arXiv 2306.05284):

    first     Q = 1, S = T          the first codebook alone
    parallel  Q = K, S = T          all codebooks of a frame in one step
    delay     Q = K, S = T + K - 1  codebook k is k steps late, so it is drawn knowing the ones before it
    flatten   Q = 1, S = T * K      one code after the other; codebook k has ids k * N to k * N + N - 1

Every stream has one special id beyond its codes. It stands where a layout leaves a gap, and a frame of it
(`codebook_size` in every codebook, called a BOS frame) opens each track. The special id is an input only:
it is never a target and never generated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiogen_core.errors import CodesError, OptionError
from audiogen_minigpt.config import LAYOUTS, ModelConfig, check_choice


@dataclass(frozen=True)
class Layout:
    """One layout for K codebooks of N entries.

    name           "first", "parallel", "delay" or "flatten"
    codebooks      K
    codebook_size  N; also the id that marks a BOS frame in codes
    """

    name: str
    codebooks: int
    codebook_size: int

    def __post_init__(self) -> None:
        check_choice("layout", self.name, LAYOUTS)
        if self.name == "first" and self.codebooks != 1:
            raise OptionError(f"the layout 'first' has one codebook, got {self.codebooks}")

    @classmethod
    def from_config(cls, config: ModelConfig) -> Layout:
        """The layout a model was made for."""
        return cls(config.layout, config.codebooks, config.codebook_size)

    @property
    def streams(self) -> int:
        """Q, the tokens of one step."""
        return 1 if self.name == "flatten" else self.codebooks

    @property
    def vocab(self) -> int:
        """How many codes one stream has, the special id not counted."""
        return self.codebook_size * (self.codebooks if self.name == "flatten" else 1)

    @property
    def special(self) -> int:
        """The id in tokens of a gap or a BOS frame, the same in every stream."""
        return self.vocab

    @property
    def steps_per_frame(self) -> int:
        """K with flatten, else 1."""
        return self.codebooks if self.name == "flatten" else 1

    @property
    def delays(self) -> tuple[int, ...]:
        """How many steps each stream is late."""
        return tuple(range(self.streams)) if self.name == "delay" else (0,) * self.streams

    def steps(self, frames: int) -> int:
        """S, the steps of T frames."""
        return frames * self.steps_per_frame + max(self.delays)

    def window(self, context: int) -> int:
        """The frames to hand to `apply` so that its inputs have `context` steps (or just fewer, flatten)."""
        return (context + 1 - max(self.delays)) // self.steps_per_frame

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes (B, T, K) in [0, N], N marking a BOS frame -> tokens (B, S, Q). Raises CodesError."""
        self._check(codes)
        if self.name == "flatten":
            offsets = torch.arange(self.codebooks, device=codes.device) * self.codebook_size
            shifted = torch.where(codes == self.codebook_size, self.special, codes + offsets)
            return shifted.flatten(1).unsqueeze(-1)  # (B, T, K) -> (B, T*K, 1)
        if self.name != "delay":
            return codes
        batch, frames, streams = codes.shape
        tokens = codes.new_full((batch, self.steps(frames), streams), self.special)
        for stream, late in enumerate(self.delays):
            tokens[:, late : late + frames, stream] = codes[:, :, stream]
        return tokens

    def undo(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S, Q) -> codes (B, T, K): the exact inverse of `tokens`. Raises CodesError."""
        if tokens.ndim != 3 or tokens.shape[2] != self.streams:
            raise CodesError(
                f"tokens must be (batch, steps, {self.streams}) for this layout, got {tuple(tokens.shape)}"
            )
        frames, rest = divmod(tokens.shape[1] - max(self.delays), self.steps_per_frame)
        if frames < 0 or rest:
            raise CodesError(f"{tokens.shape[1]} steps are no whole number of frames in layout {self.name!r}")
        if self.name == "flatten":
            grid = tokens.reshape(-1, frames, self.codebooks)  # (B, T*K, 1) -> (B, T, K)
            offsets = torch.arange(self.codebooks, device=tokens.device) * self.codebook_size
            return torch.where(grid == self.special, self.codebook_size, grid - offsets)
        if self.name != "delay":
            return tokens
        rows = [tokens[:, late : late + frames, stream] for stream, late in enumerate(self.delays)]
        return torch.stack(rows, dim=2)

    def apply(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a model is trained on: codes (B, T, K) -> inputs, targets, mask, each (B, steps(T) - 1, Q).

        The targets are the tokens one step later. The mask is True where the target is a code, and False
        where it is the special id. `window(context)` says how many frames fill a context.
        """
        tokens = self.tokens(codes)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        return inputs, targets, targets != self.special

    def crop(self, tokens: Tensor, start: int) -> Tensor:
        """What is left of tokens (B, S, Q) from step `start` on, as if the clip began there.

        `start` must be the first step of a frame. The special id takes the place of codes of earlier frames,
        so crop(tokens(codes), start) is tokens(codes[:, start / steps_per_frame:]).
        """
        rest = tokens[:, start:].clone()
        for stream, late in enumerate(self.delays):
            rest[:, :late, stream] = self.special
        return rest

    def _check(self, codes: Tensor) -> None:
        if codes.ndim != 3 or codes.shape[2] != self.codebooks:
            raise CodesError(
                f"codes must be (batch, frames, {self.codebooks}) for this layout, got {tuple(codes.shape)}"
            )
