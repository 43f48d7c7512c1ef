"""What codecs and autoencoders share where numpy values meet a framework: checks, ids, and chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import AudioError, AudioMismatch
from audiogen_core.ops import Float, Ops
from audiogen_core.stages import Chunk, Stage, stream

if TYPE_CHECKING:
    from audiogen_core.audio import Audio


class Geometry(Protocol):
    """The facts of a codec or an autoencoder that a clip must fit."""

    @property
    def name(self) -> str: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def channels(self) -> int: ...


def same_model(ours: str, theirs: str) -> bool:
    """Whether two ids agree: the names, and the hashes after `@` where both have one."""
    name, _, mark = ours.partition("@")
    other, _, other_mark = theirs.partition("@")
    return name == other and (not mark or not other_mark or mark == other_mark)


def check_audio(audio: Audio, info: Geometry) -> None:
    """Raise AudioMismatch unless the clip has the rate and the channels that are needed."""
    if audio.sample_rate != info.sample_rate:
        raise AudioMismatch(
            f"{info.name} needs {info.sample_rate} Hz, got {audio.sample_rate} Hz; "
            f"use audio.resample({info.sample_rate})"
        )
    if audio.samples.shape[0] != info.channels:
        raise AudioMismatch(
            f"{info.name} needs {info.channels} channel(s), got {audio.samples.shape[0]}; "
            f"use audio.mix({info.channels})"
        )


def run_blocks(ops: Ops, stages: Sequence[Stage], chunks: Iterable[Chunk]) -> Iterator[Float]:
    """The stages over chunks of one clip, as numpy blocks (channels, steps); empty ones left out."""
    for signal, _ in stream(ops, stages, chunks):
        block = ops.numpy(signal)[0]
        if block.shape[1]:
            yield block


def even(
    blocks: Iterable[NDArray[Any]], size: int, dtype: type[np.generic]
) -> Iterator[tuple[NDArray[Any], bool]]:
    """Blocks of any length -> blocks of `size` along the last axis, the last marked and maybe shorter."""
    held: list[NDArray[Any]] = []
    count = 0
    for block in blocks:
        held.append(np.asarray(block))
        count += held[-1].shape[1]
        if count > size:  # more than one block: what is put out now is certainly not the last
            joined = np.concatenate(held, axis=1)
            whole = (count - 1) // size * size
            for start in range(0, whole, size):
                yield joined[:, start : start + size].astype(dtype, copy=False), False
            held = [joined[:, whole:]]
            count -= whole
    if count == 0:
        raise AudioError("there is nothing to encode or decode: the clip has no samples")
    yield np.concatenate(held, axis=1).astype(dtype, copy=False), True
