"""The verbs in which every codec is written once: the protocol that an adapter of a framework follows.

Codec code speaks of *time* and *channels* and never of axis numbers. A signal is opaque to it: the
torch and numpy adapters hold (B, C, T), an mlx adapter holds (B, T, C). Signals support `+`, `-` and
`*` with each other and with plain numbers; everything else is a verb of `Ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Signal = Any  # (B, C, T) seen from outside; the adapter decides how it lies in memory
Weight = Any  # a weight adopted by the adapter
Indices = Any  # integers (B, F)
State = Any  # the state of a recurrent layer

Float = NDArray[np.float32]
PadMode = Literal["reflect", "constant"]


class LstmLayer(NamedTuple):
    """One LSTM layer in torch's layout: rows are the gates i, f, g, o."""

    weight_ih: Float  # (4H, I)
    weight_hh: Float  # (4H, H)
    bias: Float  # (4H,), both torch biases summed


Lstm = Callable[[Signal, State | None], tuple[Signal, State]]

_BLOCK = 96  # steps whose attention to a window is one product: the larger, the less of it is masked


@dataclass(frozen=True)
class Attention:
    """Softmax attention of steps to steps near them, with rotary positions (arXiv 2104.09864).

    heads    that channels are divided among
    turned   channels of each head that are turned by position, half against half
    segment  so many steps see one another and nothing else, and positions count from the first of them;
             0: there are no segments
    window   without segments, how many steps before and after itself a step sees
    """

    heads: int
    turned: int
    segment: int = 0
    window: tuple[int, int] = (0, 0)

    def blocks(self, length: int) -> tuple[int, int]:
        """Steps that are worked on together, and how many are missing to a whole number of such blocks."""
        size = self.segment or min(length, _BLOCK)
        return size, -length % size

    def rotary(self, length: int) -> tuple[Float, Float]:
        """Cosines and sines that turn the halves of the first channels: (length, turned / 2) each."""
        places = np.arange(length) % self.segment if self.segment else np.arange(length)
        powers = np.arange(0, self.turned, 2, dtype=np.float32) / np.float32(self.turned)
        angles = places.astype(np.float32)[:, None] * (np.float32(1) / np.float32(10_000) ** powers)
        return np.cos(angles), np.sin(angles)

    def hidden(self, length: int) -> Float | None:
        """What is added to scores: 0 where a step is seen, a large negative number where it is not.

        (blocks, size, before + size + after) of the blocks of a window; None for segments, which see all.
        """
        if self.segment:
            return None
        (before, after), (size, missing) = self.window, self.blocks(length)
        starts = np.arange(0, length + missing, size)[:, None, None]
        query, key = np.arange(size)[:, None], np.arange(-before, size + after)[None]
        seen = (key - query >= -before) & (key - query <= after)  # (size, keys)
        # A step of the filling at the end sees itself, so that its softmax has something to divide by.
        there = ((starts + key >= 0) & (starts + key < length)) | (key == query)
        return np.where(seen & there, np.float32(0), np.float32(-1e30))


class Ops(Protocol):
    """What a framework must offer to run the codecs.

    Weights are adopted once, at construction, from numpy arrays in torch's layout.
    """

    name: str
    chunk_seconds: float  # the length of audio worked off best at a time

    # The border
    def signal(self, array: Float) -> Signal: ...  # (B, C, T)
    def numpy(self, signal: Signal) -> Float: ...  # (B, C, T)
    def indices(self, array: NDArray[np.integer[Any]]) -> Indices: ...  # (B, F)
    def indices_numpy(self, indices: Indices) -> NDArray[np.int64]: ...  # (B, F)
    def length(self, signal: Signal) -> int: ...

    # Adoption
    def vector(self, array: Float) -> Weight: ...  # (C,), one number per channel
    def conv_weight(self, array: Float) -> Weight: ...  # (out, in, k)
    def depthwise_weight(self, array: Float) -> Weight: ...  # (C, 1, k)
    def conv_transpose_weight(self, array: Float) -> Weight: ...  # (in, out, k)
    def codebook(self, array: Float) -> Weight: ...  # (N, D)
    def lstm(self, layers: Sequence[LstmLayer]) -> Lstm: ...

    # Time and channels
    def pad(self, x: Signal, left: int, right: int, mode: PadMode = "constant") -> Signal: ...
    def trim(self, x: Signal, left: int, right: int) -> Signal: ...
    def concat(self, parts: Sequence[Signal]) -> Signal: ...  # along time
    def stack(self, parts: Sequence[Signal]) -> Signal: ...  # along channels
    def channels(self, x: Signal, start: int, stop: int) -> Signal: ...
    def fold(
        self, x: Signal, size: int
    ) -> Signal: ...  # `size` steps as the channels of one, step after step
    def unfold(self, x: Signal, size: int) -> Signal: ...  # and back
    def spread(self, vector: Weight, x: Signal) -> Signal: ...  # a vector at every step that x has

    # Linear layers
    def conv(
        self, x: Signal, weight: Weight, bias: Weight | None = None, *, stride: int = 1, dilation: int = 1
    ) -> Signal: ...
    def depthwise_conv(self, x: Signal, weight: Weight, bias: Weight | None = None) -> Signal: ...
    def conv_transpose(
        self, x: Signal, weight: Weight, bias: Weight | None = None, *, stride: int
    ) -> Signal: ...

    # One channel -> the Fourier transforms of its windows every `hop` steps: real parts, then imaginary ones
    def spectrum(self, x: Signal, window: NDArray[np.float64], hop: int) -> Signal: ...

    # Pointwise and norms
    def elu(self, x: Signal) -> Signal: ...
    def gelu(self, x: Signal) -> Signal: ...  # the exact (erf) form
    def tanh(self, x: Signal) -> Signal: ...
    def power(self, x: Signal, exponent: float) -> Signal: ...
    def snake(self, x: Signal, alpha: Weight, beta: Weight | None = None) -> Signal: ...
    def silu(self, x: Signal) -> Signal: ...
    def sine(self, x: Signal, rate: float) -> Signal: ...  # sin(rate x)
    # gamma tanh(alpha x) + beta: what "dynamic tanh" has in the place of a norm (arXiv 2503.10622)
    def dynamic_tanh(self, x: Signal, alpha: float, gamma: Weight, beta: Weight) -> Signal: ...
    def scale(self, x: Signal, factor: Weight) -> Signal: ...  # each channel by its own factor
    def group_norm(self, x: Signal, weight: Weight, bias: Weight, eps: float) -> Signal: ...  # one group
    def layer_norm(self, x: Signal, weight: Weight, bias: Weight, eps: float) -> Signal: ...  # over channels
    def unit(self, x: Signal) -> Signal: ...  # l2-normalised over channels

    # Heads lie side by side in the channels of all three
    def attention(self, query: Signal, key: Signal, value: Signal, how: Attention) -> Signal: ...

    # Codebooks
    def nearest(self, x: Signal, codebook: Weight) -> Indices: ...
    def lookup(self, indices: Indices, codebook: Weight) -> Signal: ...
