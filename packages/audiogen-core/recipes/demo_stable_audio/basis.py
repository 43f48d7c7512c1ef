"""The latents of the demo autoencoder: `python basis.py --corpus CORPUS -o demo-latents.safetensors`.

What the demo codec has between its encoder and its decoder, 128 numbers at 75 Hz, in stacks of a few frames,
on the axes along which stacks of music vary most. A beat is a whole number of stacks of four. Axes are scaled
by the square root of their deviation: large ones then still come first in a diffusion, and small ones count.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from audiogen_core import codecs
from audiogen_core.codecs.frame_latents import FORMAT
from audiogen_core.files import atomic_path

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from make import Corpus

PIECES = 360  # of the corpus; two hours of 20 s each
FRAMES = 4  # in a stack
CHANNELS = 96

Floats = NDArray[np.float32]


def vectors(codes: NDArray[np.int16], books: Floats) -> Floats:
    """Codes (P, K, F) to the sums of their entries (P, F, 128)."""
    total: Floats = sum(books[k][codes[:, k].astype(np.int64)] for k in range(len(books)))
    return total


def fit(samples: Floats, channels: int) -> dict[str, Floats]:
    """Axes (channels, n), mean (n,) and scale (channels,) of samples (M, n).

    A latent is axes @ (x - mean) * scale.
    """
    mean = samples.mean(0, dtype=np.float64)
    centred = samples - mean.astype(np.float32)
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(samples))
    values, axes = values[::-1][:channels], axes[:, ::-1][:, :channels].T
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # one sign of two
    deviation = np.sqrt(values)
    scale = 1 / np.sqrt(deviation * deviation.mean())
    named = {"axes": axes, "mean": mean, "scale": scale}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in named.items()}


def save(path: Path, basis: dict[str, Floats], frames: int) -> Path:
    stored = {name: value.astype(np.float16) if name == "axes" else value for name, value in basis.items()}
    config = {"frames": frames, "channels": len(basis["axes"]), "codebooks": 0}
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"format": FORMAT, "config": json.dumps(config)})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    codes = Corpus.read(arguments.corpus, "train").codes[:PIECES]
    found = vectors(codes, codecs.load_codec("demo").codebook_vectors())
    samples = found.reshape(-1, FRAMES * found.shape[-1])
    print(save(arguments.output, fit(samples, CHANNELS), FRAMES))


if __name__ == "__main__":
    main()
