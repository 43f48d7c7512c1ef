"""Running layers over a clip of any length, in chunks, with the result of the whole clip at once.

A codec's encoder or decoder is a few stages. A convolutional stage sees a bounded stretch of its input,
so a chunk is run together with the context it needs and what the cut has spoilt is thrown away. A
recurrent stage carries its state from chunk to chunk. Nothing is approximated: a chunked result differs
from the whole one only as float32 sums differ in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from audiogen_core.codecs.layers import Layer, reach, run
from audiogen_core.ops import Lstm, Ops, Signal

Chunk = tuple[Signal, bool]  # a stretch of a clip, and whether it is the last


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
            limit = end if last else max(done, (end - right) // self.down * self.down)
            if not last and limit <= max(done, 0 if done else left):
                continue  # too little yet; the first chunk must be long enough to be reflected at its start
            stop = end if last else limit + right
            window = ops.concat(held)
            held = [window]
            y = run(ops, self.layers, ops.trim(window, 0, end - stop))
            before = (done - start) // self.down * self.up
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
