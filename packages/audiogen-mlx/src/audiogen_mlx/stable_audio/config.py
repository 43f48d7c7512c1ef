"""The facts of a model, read from its own files by `read_config`.

Nothing is guessed from tensors. Every key that changes arithmetic is honoured, or refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from audiogen_mlx.stable_audio.schedules import DistributionShift

PROMPT, SECONDS_START, SECONDS_TOTAL = "prompt", "seconds_start", "seconds_total"
INPAINT_MASK, INPAINT_INPUT = "inpaint_mask", "inpaint_masked_input"

FLOW_OBJECTIVES = ("rectified_flow", "rf_denoiser")
OBJECTIVES = ("v", *FLOW_OBJECTIVES)


class Bounds(Protocol):
    """What plans of windows, loops and parts to make anew have to know of a model of either generation.

    frames          latent frames that it makes at most
    window          samples of them
    window_seconds  the same in seconds
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def hop_length(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def window_seconds(self) -> float: ...


@dataclass(frozen=True)
class DitConfig:
    """The geometry of the diffusion transformer.

    io_channels      of the latents
    concat_channels  beside them at the input (inpainting)
    embed_dim        E, width of the network; heads of embed_dim / heads
    context_dim      K, width of projected tokens: E, or cond_token_dim where they are not widened
    rotary_dim       of each head, rotated by position
    cross_layers     how many of the first layers attend to tokens
    positions        for which a vector is learned, and added; 0: rotation alone tells them
    """

    io_channels: int
    embed_dim: int
    depth: int
    heads: int
    cond_token_dim: int = 0
    context_dim: int = 0
    global_cond_dim: int = 0
    rotary_dim: int = 32
    concat_channels: int = 0
    adaptive_norm: bool = False
    qk_norm: str = "none"
    memory_tokens: int = 0
    positions: int = 0
    patch_size: int = 1
    ff_mult: float = 4.0
    ff_out_bias: bool = True
    norm_eps: float = 1e-5
    layer_scale: bool = False
    cross_layers: int = 0

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.heads

    @property
    def context_heads(self) -> int:
        """Heads of the keys and values of tokens; each serves heads / context_heads queries."""
        return self.context_dim // self.head_dim

    @property
    def input_channels(self) -> int:
        return self.io_channels + self.concat_channels

    @property
    def lead(self) -> int:
        """Positions before the latents: memory tokens, then the global token unless it steers the norms."""
        return self.memory_tokens + (0 if self.adaptive_norm else 1)

    @property
    def ff_dim(self) -> int:
        return int(self.embed_dim * self.ff_mult)


@dataclass(frozen=True)
class TextConditioner:
    """A prompt through T5: `max_length` tokens, padding included; `project` when a layer follows T5."""

    id: str
    t5: str
    max_length: int
    project: bool


@dataclass(frozen=True)
class NumberConditioner:
    """A number of seconds, clamped to [minimum, maximum]; `whole` looks it up in a table of integers."""

    id: str
    minimum: float
    maximum: float
    whole: bool = False


@dataclass(frozen=True)
class Published:
    """How the authors of a model run it."""

    sampler: str
    steps: int
    guidance_scale: float
    sigma_min: float = 0.3
    sigma_max: float = 500.0


@dataclass(frozen=True)
class Config:
    """A model.

    inpaint           its input takes a mask and masked latents
    objective         "v", or one of rectified flow
    sample_size       samples it was trained on
    hop_length        samples per latent frame
    cond_dim          width of conditioning tokens
    cross_ids         conditioners whose tokens are attended to, in order
    global_ids        conditioners that make the global token, in order
    concat_ids        what is put beside the latents, in order
    defaults          conditioner id -> the id whose value it takes where it has none
    autoencoder       name of an autoencoder of audiogen_core; "" where it is in the checkpoint
    published         how it is run, where its own files say so
    """

    inpaint: bool
    objective: str
    sample_size: int
    sample_rate: int
    channels: int
    hop_length: int
    dit: DitConfig
    cond_dim: int
    text: TextConditioner
    numbers: tuple[NumberConditioner, ...]
    cross_ids: tuple[str, ...]
    global_ids: tuple[str, ...]
    concat_ids: tuple[str, ...] = ()
    shift: DistributionShift | None = None
    defaults: tuple[tuple[str, str], ...] = ()
    autoencoder: str = ""
    published: Published | None = None

    @property
    def flow(self) -> bool:
        """Whether the objective is rectified flow."""
        return self.objective in FLOW_OBJECTIVES

    @property
    def frames(self) -> int:
        """Latent frames of the window, the length a run always has."""
        return self.sample_size // self.hop_length

    @property
    def window(self) -> int:
        """Samples of the window."""
        return self.frames * self.hop_length

    @property
    def window_seconds(self) -> float:
        return self.window / self.sample_rate

    @property
    def max_seconds(self) -> float:
        """The longest clip: the window, or what `seconds_total` can say, whichever is less."""
        limits = [number.maximum for number in self.numbers if number.id == SECONDS_TOTAL]
        return min([self.window_seconds, *limits])
