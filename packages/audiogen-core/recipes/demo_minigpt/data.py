"""The demo corpus as a folder of codes that `audiogen-minigpt train` reads.

    python data.py CORPUS -o DATA --tempo medium

CORPUS was made by recipes/demo_music.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiogen_core import codecs
from audiogen_core.codec import fingerprint
from audiogen_core.compose import TEMPI
from audiogen_core.dataset.shards import Meta, Part, Track, checksum, write_report, write_shard

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from make import Corpus

SPLITS = {"train": "train", "held": "val"}
PIECES_PER_SHARD = 512


def write(corpus: Path, out: Path, codebooks: int, tempo: str | None = None) -> int:
    """Write the folder, of pieces of one tempo or of all; returns how many frames it holds."""
    codec = codecs.load_codec("demo")
    out.mkdir(parents=True)
    Meta.of(codec.info, fingerprint(codec.codebook_vectors()), codebooks, {"source": "compose"}).save(out)
    number = total = 0
    for name, split in SPLITS.items():
        pieces = Corpus.read(corpus, name)
        codes = pieces.codes[[tempo in (None, facts["tempo"]) for facts in pieces.facts]]
        for start in range(0, len(codes), PIECES_PER_SHARD):
            some = codes[start : start + PIECES_PER_SHARD, :codebooks]
            parts = [_part(piece, split, f"{name}/{start + i:06d}") for i, piece in enumerate(some)]
            write_shard(out, number, parts)
            number, total = number + 1, total + some.shape[0] * some.shape[2]
    write_report(out, [])
    return total


def _part(piece: NDArray[np.int16], split: str, name: str) -> Part:
    """A piece (codebooks, frames) as a track; what stands for its sound's hash is that of its codes."""
    frames = np.ascontiguousarray(piece.T, np.uint16)
    sha1 = hashlib.sha1(frames.tobytes(), usedforsecurity=False).hexdigest()
    return Track(name, len(frames), None, split, 0.0, sha1, checksum(frames)), frames


def main() -> None:
    parser = argparse.ArgumentParser(description="The demo corpus as a folder of codes.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--codebooks", type=int, default=4)
    parser.add_argument("--tempo", choices=list(TEMPI), help="pieces of this tempo alone")
    options = parser.parse_args()
    print(write(options.corpus, options.out, options.codebooks, options.tempo), "frames")


if __name__ == "__main__":
    main()
