"""Folders of short noise, and the small codec that encodes them quickly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiogen_core import Audio

CODEC = Path(__file__).parents[1] / "fixtures" / "encodec" / "24k"


def noise(seconds: float, seed: int, rate: int = 24000, channels: int = 1) -> Audio:
    """White noise at -10 dBFS."""
    rng = np.random.default_rng(seed)
    return Audio(rng.uniform(-0.3, 0.3, (channels, int(seconds * rate))).astype(np.float32), rate)


def noise_files(folder: Path, count: int, seconds: float = 1.0) -> Path:
    """A folder of `count` files; each differs from the others, and is a little longer. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise(seconds + index / 100, index).save(folder / f"{index:03d}.wav")
    return folder


def shard_files(data: Path) -> dict[str, bytes]:
    """The files of all shards, by name."""
    return {path.name: path.read_bytes() for path in sorted(data.glob("shard-*"))}
