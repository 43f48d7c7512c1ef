"""The layers codecs are made of. A layer is called on a signal, and knows how far it looks.

`reach(left, right)` answers: when the first `left` and last `right` steps of the input are not to be
trusted (because a long clip was cut there), how many steps at each end of the output are not? Streaming
in chunks follows from this one fact (see `audiogen_core.stages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from audiogen_core.ops import Ops, PadMode, Signal, Weight


class Layer(Protocol):
    """A function of a signal, with a finite reach."""

    def __call__(self, ops: Ops, x: Signal) -> Signal: ...

    def reach(self, left: int, right: int) -> tuple[int, int]: ...


class Pointwise:
    """Base of layers that look at one step of time only."""

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return left, right


class Elu(Pointwise):
    """x where positive, exp(x) - 1 elsewhere (arXiv 1511.07289)."""

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.elu(x)


class Tanh(Pointwise):
    """The hyperbolic tangent: bounds the waveform."""

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.tanh(x)


@dataclass(frozen=True)
class Snake(Pointwise):
    """x + sin(alpha x)^2 / alpha, per channel (arXiv 2006.08195)."""

    alpha: Weight
    beta: Weight | None = None

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.snake(x, self.alpha, self.beta)


@dataclass(frozen=True)
class GroupNorm(Pointwise):
    """Normalises over channels and the whole time: only for codecs that work in fixed chunks."""

    weight: Weight
    bias: Weight
    eps: float = 1e-5

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.group_norm(x, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Conv:
    """A convolution with its own padding.

    `left` and `right` steps are padded. With `fill_last` the end is padded further, so that the last
    window is full and no input is lost: as EnCodec does when a length is not a multiple of the stride.
    """

    weight: Weight
    bias: Weight | None
    kernel: int
    stride: int = 1
    dilation: int = 1
    left: int = 0
    right: int = 0
    mode: PadMode = "constant"
    fill_last: bool = False

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        right = self.right
        if self.fill_last:
            right += (-ops.length(x)) % self.stride
        if self.left or right:
            x = _pad(ops, x, self.left, right, self.mode)
        return ops.conv(x, self.weight, self.bias, stride=self.stride, dilation=self.dilation)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return -(-(left + self.left) // self.stride), -(-(right + self.right) // self.stride)


@dataclass(frozen=True)
class ConvTranspose:
    """A transposed convolution whose surplus is cut off: `left` and `right` steps of the output."""

    weight: Weight
    bias: Weight | None
    kernel: int
    stride: int
    left: int
    right: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        y = ops.conv_transpose(x, self.weight, self.bias, stride=self.stride)
        return ops.trim(y, self.left, self.right)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        spill = self.kernel - self.stride
        return (
            max(0, left * self.stride + spill - self.left),
            max(0, right * self.stride + spill - self.right),
        )


@dataclass(frozen=True)
class Residual:
    """A branch added to its input, which may pass through a shortcut of its own."""

    branch: Sequence[Layer]
    shortcut: Layer | None = None

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        y = run(ops, self.branch, x)
        return y + (x if self.shortcut is None else self.shortcut(ops, x))

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return reach(self.branch, left, right)


@dataclass(frozen=True)
class Mean:
    """The mean of several branches over the same input."""

    branches: Sequence[Sequence[Layer]]

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        total = run(ops, self.branches[0], x)
        for branch in self.branches[1:]:
            total = total + run(ops, branch, x)
        return total * (1 / len(self.branches))

    def reach(self, left: int, right: int) -> tuple[int, int]:
        reaches = [reach(branch, left, right) for branch in self.branches]
        return max(each[0] for each in reaches), max(each[1] for each in reaches)


@dataclass(frozen=True)
class PadToMultiple(Pointwise):
    """Zeros after the end of a clip, up to the next multiple of `size`: nothing but at its last chunk."""

    size: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        missing = -ops.length(x) % self.size
        return ops.pad(x, 0, missing) if missing else x


@dataclass(frozen=True)
class Append(Pointwise):
    """So many zeros after the end, where transposed convolutions of odd stride make too few steps."""

    count: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.pad(x, 0, self.count)


def run(ops: Ops, layers: Sequence[Layer], x: Signal) -> Signal:
    """The layers one after another."""
    for layer in layers:
        x = layer(ops, x)
    return x


def reach(layers: Sequence[Layer], left: int = 0, right: int = 0) -> tuple[int, int]:
    """How many steps at each end of the output the layers' cut input spoils."""
    for layer in layers:
        left, right = layer.reach(left, right)
    return left, right


def _pad(ops: Ops, x: Signal, left: int, right: int, mode: PadMode) -> Signal:
    """Pad; a clip too short to be reflected is first extended by zeros, which are cut off again.

    So EnCodec does it (`pad1d` of its reference implementation).
    """
    extra = 0
    if mode == "reflect":
        extra = max(0, max(left, right) + 1 - ops.length(x))
        if extra:
            x = ops.pad(x, 0, extra, "constant")
    x = ops.pad(x, left, right, mode)
    return ops.trim(x, 0, extra) if extra else x
