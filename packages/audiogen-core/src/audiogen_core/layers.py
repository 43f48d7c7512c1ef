"""What codecs are made of: layers, the stages that run them over clips of any length, and quantisers.

A layer is called on a signal and knows how far it looks. `reach(left, right)` answers: when the first `left`
and last `right` steps of the input are not to be trusted (because a long clip was cut there), how many steps
at each end of the output are not?

Streaming in chunks follows from this one fact. A codec's encoder or decoder is a few stages. A convolutional
stage sees a bounded stretch of its input, so a chunk is run together with the context it needs, and what the
cut has spoilt is thrown away; a recurrent stage carries its state from chunk to chunk. Nothing is
approximated: a chunked result differs from the whole one only as float32 sums differ in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from audiogen_core.ops import Float, Indices, Lstm, Ops, PadMode, Signal, Weight

Chunk = tuple[Signal, bool]
"""A stretch of a clip, and whether it is the last."""


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
    """A branch added to its input, which may pass through a shortcut: layers that see one step each."""

    branch: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return run(ops, self.branch, x) + run(ops, self.shortcut, x)

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


@dataclass(frozen=True)
class Convolutional:
    """Layers of finite reach that make `up` output steps of every `down` input steps."""

    layers: Sequence[Layer]
    down: int = 1
    up: int = 1

    @cached_property
    def context(self) -> tuple[int, int]:
        """Input steps needed to the left and right of a chunk, in whole multiples of `down`.

        One more output step than the layers reach is kept on each side: a layer that reflects at the
        end of the clip then still finds real samples to reflect.
        """
        left, right = reach(self.layers)
        return (-(-left // self.up) + 1) * self.down, (-(-right // self.up) + 1) * self.down

    def stream(self, ops: Ops, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        left, right = self.context
        held: list[Signal] = []  # input from `start` to `end`
        start = end = done = 0  # input steps; everything before `done` has been put out
        for chunk, last in chunks:
            held.append(chunk)
            end += ops.length(chunk)
            # Output is certain up to here: behind it, the cut at the end of the chunk shows.
            limit = end if last else max(done, (end - right) // self.down * self.down)
            if not last and limit <= max(done, 0 if done else left):
                continue  # too little yet; the first chunk must be long enough to be reflected at its start
            stop = end if last else limit + right
            window = ops.concat(held)
            held = [window]
            y = run(ops, self.layers, ops.trim(window, 0, end - stop))
            before = (done - start) // self.down * self.up  # steps made again, only as context
            kept = (limit - done) // self.down * self.up
            yield ops.trim(y, before, 0 if last else ops.length(y) - before - kept), last
            done = limit
            keep = max(start, done - left)
            held = [ops.trim(window, keep - start, 0)]
            start = keep

    def whole(self, ops: Ops, x: Signal) -> Signal:
        return run(ops, self.layers, x)


@dataclass(frozen=True)
class Rechunk:
    """Cuts what comes into chunks of `size` steps, and gathers what is shorter; changes no value.

    Before a stage of many channels it bounds what that stage holds in memory.
    """

    size: int

    def stream(self, ops: Ops, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        held: list[Signal] = []
        count = 0
        for chunk, last in chunks:
            held.append(chunk)
            count += ops.length(chunk)
            if count <= self.size and not last:
                continue
            window = ops.concat(held)
            while count > self.size:
                yield ops.trim(window, 0, count - self.size), False
                window = ops.trim(window, self.size, 0)
                count -= self.size
            held = [window]
            if last:
                yield window, True

    def whole(self, ops: Ops, x: Signal) -> Signal:
        return x


@dataclass(frozen=True)
class Recurrent:
    """An LSTM with a skip connection around it."""

    lstm: Lstm

    def stream(self, ops: Ops, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        state = None
        for chunk, last in chunks:
            y, state = self.lstm(chunk, state)
            yield y + chunk, last

    def whole(self, ops: Ops, x: Signal) -> Signal:
        return self.lstm(x, None)[0] + x


Stage = Convolutional | Rechunk | Recurrent


def stream(ops: Ops, stages: Sequence[Stage], chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The stages one after another over chunks of one clip."""
    for stage in stages:
        chunks = stage.stream(ops, chunks)
    return iter(chunks)


def whole(ops: Ops, stages: Sequence[Stage], x: Signal) -> Signal:
    """The stages one after another over a whole clip."""
    for stage in stages:
        x = stage.whole(ops, x)
    return x


class Quantizer(Protocol):
    """Signals to indices (B, F), one per codebook, and back."""

    def encode(self, x: Signal, count: int) -> list[Indices]: ...

    def decode(self, codes: Sequence[Indices]) -> Signal: ...


class ResidualQuantizer:
    """Nearest entries by Euclidean distance, codebook after codebook (arXiv 2107.03312).

    codebooks  one float32 (N, D) array per codebook
    """

    def __init__(self, ops: Ops, codebooks: Sequence[Float]) -> None:
        self.ops = ops
        self.codebooks = [ops.codebook(book) for book in codebooks]

    def encode(self, x: Signal, count: int) -> list[Indices]:
        """A signal of D channels -> the indices (B, F) in each of the first `count` codebooks."""
        codes = []
        for book in self.codebooks[:count]:
            codes.append(self.ops.nearest(x, book))
            x = x - self.ops.lookup(codes[-1], book)
        return codes

    def decode(self, codes: Sequence[Indices]) -> Signal:
        """The sum of the chosen entries: a signal of D channels."""
        total = self.ops.lookup(codes[0], self.codebooks[0])
        for indices, book in zip(codes[1:], self.codebooks[1:], strict=False):
            total = total + self.ops.lookup(indices, book)
        return total


class ProjectedCodebook(NamedTuple):
    """A codebook in a space of few dimensions d, with the way there and back. Torch's layouts."""

    entries: Float  # (N, d)
    in_weight: Float  # (d, D, 1)
    in_bias: Float  # (d,)
    out_weight: Float  # (D, d, 1)
    out_bias: Float  # (D,)


class ProjectedQuantizer:
    """Nearest entries by angle, each codebook in a small space of its own (arXiv 2306.06546, section 3.2).

    What is compared is scaled to length one; what is added up are the entries as they are, projected back.
    """

    def __init__(self, ops: Ops, codebooks: Sequence[ProjectedCodebook]) -> None:
        self.ops = ops
        self.books = [_Adopted(ops, book) for book in codebooks]

    def encode(self, x: Signal, count: int) -> list[Indices]:
        """A signal of D channels -> the indices (B, F) in each of the first `count` codebooks."""
        return [indices for _, indices in self.steps(x, count)]

    def steps(self, x: Signal, count: int) -> Iterator[tuple[Signal, Indices]]:
        """Of each codebook in turn, what it saw (a signal of d channels) and what it chose."""
        for book in self.books[:count]:
            small = self.ops.conv(x, book.in_weight, book.in_bias)
            indices = book.nearest(small)
            yield small, indices
            x = x - book.decode(indices)

    def decode(self, codes: Sequence[Indices]) -> Signal:
        """The sum of the chosen entries, projected back: a signal of D channels."""
        total = self.books[0].decode(codes[0])
        for indices, book in zip(codes[1:], self.books[1:], strict=False):
            total = total + book.decode(indices)
        return total


class _Adopted:
    """A projected codebook in the adapter's hands."""

    def __init__(self, ops: Ops, book: ProjectedCodebook) -> None:
        self.ops = ops
        self.width = book.entries.shape[1]
        self.entries = ops.codebook(book.entries)
        # Scaled by the adapter itself, so that both sides of the comparison are rounded alike: (N, d).
        directions = ops.numpy(ops.unit(ops.signal(book.entries.T[None])))[0].T
        self.directions = ops.codebook(directions)
        self.in_weight = ops.conv_weight(book.in_weight)
        self.in_bias = ops.vector(book.in_bias)
        self.out_weight = ops.conv_weight(book.out_weight)
        self.out_bias = ops.vector(book.out_bias)

    def nearest(self, small: Signal) -> Indices:
        return self.ops.nearest(self.ops.unit(small), self.directions)

    def decode(self, indices: Indices) -> Signal:
        return self.ops.conv(self.ops.lookup(indices, self.entries), self.out_weight, self.out_bias)
