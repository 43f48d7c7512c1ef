"""Reading a folder of codes: one long stream of frames, and windows drawn from it without a state.

`Dataset` is one split; `Windows` is what a model is trained and judged on, the part of one process.

All tracks of a split lie behind one another, a BOS frame (`codebook_size` in every codebook) before each.
Nothing is ever padded. Which windows an update sees is a pure function of (seed, step), whatever the number
of processes, so a resumed run needs to remember its step and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.dataset.shards import FACTS, Meta, Stretch, Track, identity, read_shards, tracks_of
from audiogen_core.errors import CodesError, OptionError
from audiogen_core.training.errors import differences
from audiogen_core.values import closed

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """The tracks of one split; their codes are read when they are needed.

    meta       facts of the folder
    codebooks  K, how many of the stored ones are read
    tracks     in the order of the stream
    starts     where each track's BOS frame lies in the stream; the last entry is the stream's length
    """

    meta: Meta
    split: str
    codebooks: int
    tracks: tuple[Track, ...]
    starts: Ints
    sources: tuple[Stretch, ...]

    @classmethod
    @closed()
    def open(cls, data: str | Path, *, split: str = "train", codebooks: int | None = None) -> Dataset:
        """Open a folder that `encode` made.

        Raises CodesError when it is damaged, OptionError for more codebooks than it holds.
        """
        if split not in ("train", "val"):
            raise OptionError(f"split must be train or val, got {split!r}")
        meta = Meta.load(data)
        count = meta.codebooks if codebooks is None else codebooks
        if not 1 <= count <= meta.codebooks:
            raise OptionError(f"{data}: holds {meta.codebooks} codebooks, asked for {count}")
        shards = read_shards(data)
        whole = {shard.path: shard.stretch(meta.codebooks) for shard in shards}
        parts = [part for part in tracks_of(shards) if part[2].split == split]
        tracks = tuple(track for _, _, track in parts)
        sources = tuple(replace(whole[shard.path], start=start) for shard, start, _ in parts)
        lengths = [track.frames + 1 for track in tracks]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(meta, split, count, tracks, starts, sources)

    @property
    def frames(self) -> int:
        """Frames of audio; BOS frames are not counted."""
        return sum(track.frames for track in self.tracks)

    @property
    def seconds(self) -> float:
        """Seconds of audio."""
        return self.frames / self.meta.frame_rate

    @property
    def length(self) -> int:
        """Frames of the stream, BOS frames included."""
        return int(self.starts[-1])

    def check(self) -> Dataset:
        """Itself. Raises CodesError unless all codes are those that were written, by their hashes."""
        for source, track in zip(self.sources, self.tracks, strict=True):
            source.check(track, self.meta.codebook_size)
        return self

    def read(self, start: int, count: int) -> Ints:
        """`count` frames of the stream from `start` on, int64 (count, K); after its end comes its beginning.

        Raises CodesError when the split is empty, a code lies beyond the codebook, or a shard has changed
        since it was opened.
        """
        if not self.tracks:
            raise CodesError(f"there are no {self.split} tracks in this folder of codes")
        out = np.full((count, self.codebooks), self.meta.codebook_size, np.int64)
        done, place = 0, start % self.length
        while done < count:
            track = int(np.searchsorted(self.starts, place, side="right")) - 1
            first = place - int(self.starts[track])  # 0 is the BOS frame
            take = min(count - done, int(self.starts[track + 1]) - place)
            skip = 1 if first == 0 else 0
            codes = self.sources[track].read(first - 1 + skip, take - skip)[:, : self.codebooks]
            if codes.size and int(codes.max()) >= self.meta.codebook_size:
                raise CodesError(
                    f"the codes of {self.tracks[track].path!r} lie beyond the codebook; run encode --verify"
                )
            out[done + skip : done + take] = codes
            done, place = done + take, (place + take) % self.length
        return out

    def track(self, index: int) -> Ints:
        """All codes of one track, int64 (frames, K)."""
        return self.read(int(self.starts[index]) + 1, self.tracks[index].frames)

    def windows(self, context: int) -> int:
        """Windows in one pass over the stream: at least one."""
        return max(1, self.length // context)

    def batch(
        self, step: int, *, batch_size: int, context: int, seed: int, rank: int = 0, world: int = 1
    ) -> Ints:
        """The windows of an update, int64 (batch_size / world, context, K).

        `batch_size` counts the whole batch; process `rank` of `world` gets its part of the rows. In each
        pass every window is seen once, in an order drawn from the seed, and the windows lie elsewhere.
        """
        if batch_size % world:
            raise OptionError(f"a batch of {batch_size} cannot be shared by {world} processes equally")
        rows = batch_size // world
        first = step * batch_size + rank * rows
        windows = self.windows(context)
        places = []
        for row in range(first, first + rows):
            epoch, turn = divmod(row, windows)
            order, phase = _shuffled(windows, context, seed, epoch)
            places.append(phase + int(order[turn]) * context)
        return np.stack([self.read(place, context) for place in places])

    def fixed(self, context: int, limit: int) -> Ints:
        """At most `limit` windows spread evenly over the stream, always the same: int64 (n, context, K)."""
        count = min(limit, self.windows(context))
        places = [self.length * index // count for index in range(count)]
        return np.stack([self.read(place, context) for place in places])


class Windows:
    """The windows of a folder of codes that one process of a run sees. All hashes are checked first.

    frames      length of a window
    rank, world number of this process, and how many there are
    facts       the codec and geometry of the data; see `shards.FACTS`
    identity    tells these codes from others
    frame_rate  Hz
    train, val  the data; val is None where no track is held out

    Raises CodesError when the data is damaged or there is nothing to train on.
    """

    def __init__(
        self, data: str | Path, codebooks: int, frames: int, *, rank: int = 0, world: int = 1
    ) -> None:
        self.train = Dataset.open(data, split="train", codebooks=codebooks).check()
        if not self.train.frames:
            raise CodesError(f"{data}: there is nothing to train on; encode more audio into it")
        val = Dataset.open(data, split="val", codebooks=codebooks).check()
        self.val = val if val.frames else None
        self.frames, self.rank, self.world = frames, rank, world
        self.facts = self.train.meta.facts
        self.identity = identity((*self.train.tracks, *val.tracks))
        self.frame_rate = self.train.meta.frame_rate
        self._fixed: Ints | None = None

    def train_batch(self, step: int, batch: int, seed: int) -> Ints:
        """This process's rows of the batch of a step: int64 (batch / world, frames, K).

        A pure function of the seed and the step; all processes' rows together are one batch.
        """
        return self.train.batch(
            step, batch_size=batch, context=self.frames, seed=seed, rank=self.rank, world=self.world
        )

    def val_batches(self, batch: int, limit: int) -> Iterator[Ints]:
        """The fixed validation windows, at most `limit`, shared out over the processes in equal batches.

        Where they do not come out even, windows of BOS frames fill up: they hold no target.
        """
        if self.val is None:
            return
        if self._fixed is None:
            self._fixed = self.val.fixed(self.frames, limit)
        missing = -len(self._fixed) % self.world
        empty = np.full((missing, *self._fixed.shape[1:]), self.train.meta.codebook_size, np.int64)
        mine = np.concatenate([self._fixed, empty])[self.rank :: self.world]
        rows = max(1, batch // self.world)
        for start in range(0, len(mine), rows):
            yield mine[start : start + rows]

    def opening(self, frames: int) -> Ints:
        """The first frames of the first validation track, or else training track: int64 (n <= frames, K)."""
        data = self.val or self.train
        return data.read(1, min(frames, data.tracks[0].frames))


@lru_cache(maxsize=4)
def _shuffled(windows: int, context: int, seed: int, epoch: int) -> tuple[Ints, int]:
    """The order of the windows in one pass, and how far all of them are shifted.

    Drawn from the generator's raw numbers, which numpy promises never to change.
    """
    raw = np.random.PCG64([seed, epoch]).random_raw(windows + 1)
    return np.argsort(raw[:-1], kind="stable"), int(raw[-1] % context)


def check_data(where: str, facts: Mapping[str, Any], data_where: str, data: Mapping[str, Any]) -> None:
    """Raise OptionError, with the differences, unless data is what a checkpoint was trained on.

    More codebooks in the data than the model uses do no harm; every other fact must agree.
    """
    different = [key for key in FACTS if key != "codebooks" and facts.get(key) != data.get(key)]
    if int(data.get("codebooks", 0)) < int(facts.get("codebooks", 0)):
        different.append("codebooks")
    if different:
        rows = {key: (facts.get(key), data.get(key)) for key in different}
        raise OptionError(f"{data_where} does not fit {where}; {differences(rows, where, data_where)}")
