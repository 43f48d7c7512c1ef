"""Folders of codes without audio or codec, with a structure that a small model can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiogen_core.dataset import Skip
from audiogen_core.dataset.shards import Meta, Track, checksum, write_report, write_shard

CODEBOOKS = 4
SIZE = 16
FRAME_RATE = 50.0


def melody(seed: int, frames: int, codebooks: int = CODEBOOKS, size: int = SIZE) -> np.ndarray:
    """Codes (frames, codebooks): a repeated figure that a seed varies, and a little noise."""
    rng = np.random.default_rng(seed)
    figure = rng.integers(0, size, (24, codebooks))
    codes = np.tile(figure, (frames // 24 + 1, 1))[:frames]
    noisy = rng.random(codes.shape) < 0.03
    return np.where(noisy, rng.integers(0, size, codes.shape), codes).astype(np.uint16)


def write_tokens(
    folder: Path,
    *,
    train: int = 4,
    val: int = 1,
    frames: int = 600,
    codebooks: int = CODEBOOKS,
    size: int = SIZE,
    codec: str = "nothing",
    codec_hash: str = "00000000",
    hop_length: int = 160,
) -> Path:
    """A folder of `train` + `val` tracks in two shards. Returns it."""
    tracks = [melody(index % max(1, train), frames, codebooks, size) for index in range(train + val)]
    meta = Meta(codec, codec_hash, round(FRAME_RATE * hop_length), hop_length, codebooks, size)
    return write_codes(folder, meta, tracks[:train], tracks[train:])


def write_codes(folder: Path, meta: Meta, train: list[np.ndarray], val: list[np.ndarray]) -> Path:
    """A folder of these tracks (frames, codebooks) in two shards. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    meta.save(folder)
    parts: list[tuple[Track, np.ndarray] | Skip] = []
    for index, codes in enumerate([*train, *val]):
        split, codes = "train" if index < len(train) else "val", codes.astype(np.uint16)
        facts = Track(f"{index}.wav", len(codes), None, split, 0.0, f"{index:040x}", checksum(codes))
        parts.append((facts, codes))
    write_shard(folder, 0, parts[: len(parts) // 2])
    write_shard(folder, 1, parts[len(parts) // 2 :])
    write_report(folder, [])
    return folder
