"""The corpus the demo models learn from: composed pieces as codes of the demo codec.

    python make.py --out FOLDER --hours 12 [--held-minutes 20]

Writes train.npz and held.npz with `codes` int16 (pieces, codebooks, frames), and train.jsonl and held.jsonl
with a line per piece: `frames_per_bar`, `caption`, the attributes of `audiogen_core.compose` (`seed` among
them) and `notes` as [onset, length, instrument, pitch] in frames. Pieces are named by their seeds, so the
same command writes the same corpus. One that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from captions import caption
from numpy.typing import NDArray

from audiogen_core import codecs
from audiogen_core.compose import STYLES, TEMPI, Piece, compose
from audiogen_core.files import atomic_path

FIRST_SEEDS = {"train": 1_000_000_000, "held": 2_000_000_000}
PIECE_SECONDS = 20.0
PIECES_PER_PART = 60

Codes = NDArray[np.int16]
Encode = Callable[[Piece], Codes]


@dataclass(frozen=True)
class Corpus:
    """One split of the corpus, in memory: codes (pieces, codebooks, frames) and the facts of each piece."""

    codes: Codes
    facts: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path, split: str) -> Corpus:
        with np.load(folder / f"{split}.npz") as file:
            codes = file["codes"]
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        facts = [json.loads(line) for line in lines]
        if len(facts) != len(codes):
            raise ValueError(
                f"{folder}: {len(codes)} pieces of codes and {len(facts)} lines in {split}.jsonl"
            )
        return cls(codes, facts)


def describe(piece: Piece) -> dict[str, Any]:
    """The line of a piece. Its caption is drawn from its seed; models that train long may draw others."""
    steps = STYLES[piece.attributes["style"]].steps
    rng = np.random.Generator(np.random.PCG64([11, piece.attributes["seed"]]))
    return {
        "frames_per_bar": steps * TEMPI[piece.attributes["tempo"]],
        "caption": caption(rng, piece.attributes),
        **piece.attributes,
        "notes": piece.notes,
    }


def encoder() -> Encode:
    codec = codecs.load_codec("demo", "torch")
    return lambda piece: codec.encode(piece.audio).values.astype(np.int16)


def make(folder: Path, split: str, pieces: int, encode: Encode, seconds: float = PIECE_SECONDS) -> Path:
    """Write one split; returns the path of its codes."""
    parts = folder / f"{split}.parts"
    parts.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, pieces, PIECES_PER_PART):
        path = parts / f"{start:06d}.npz"
        if not path.is_file():
            seeds = range(
                FIRST_SEEDS[split] + start, FIRST_SEEDS[split] + min(pieces, start + PIECES_PER_PART)
            )
            _write_part(path, seeds, encode, seconds)
        paths.append(path)
    return _join(folder, split, paths)


def _write_part(path: Path, seeds: range, encode: Encode, seconds: float) -> None:
    composed = [compose(seed, seconds=seconds) for seed in seeds]
    lines = [json.dumps(describe(piece), separators=(",", ":")) for piece in composed]
    codes = np.stack([encode(piece) for piece in composed])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, codes=codes, lines=np.array(lines))


def _join(folder: Path, split: str, paths: list[Path]) -> Path:
    codes, lines = [], []
    for path in paths:
        with np.load(path) as file:
            codes.append(file["codes"])
            lines += file["lines"].tolist()
    with atomic_path(folder / f"{split}.jsonl") as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    target = folder / f"{split}.npz"
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.savez(file, codes=np.concatenate(codes))
    shutil.rmtree(paths[0].parent)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=12.0, help="of music to train on")
    parser.add_argument("--held-minutes", type=float, default=20.0, help="of music held out")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    encode = encoder()
    lengths = {"held": arguments.held_minutes * 60, "train": arguments.hours * 3600}
    for split, seconds in lengths.items():
        if not (arguments.out / f"{split}.npz").is_file():
            print(make(arguments.out, split, max(1, round(seconds / PIECE_SECONDS)), encode))


if __name__ == "__main__":
    main()
