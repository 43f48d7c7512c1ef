"""Whether an exported MAGNeT is whole and works, and how near a smaller one is to the float32 one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiogen_core.musicgen.conditioning import Floats
from audiogen_onnx.catalog import located
from audiogen_onnx.magnet.generate import Magnet
from audiogen_onnx.magnet.manifest import MagnetManifest
from audiogen_onnx.musicgen.verify import compared
from audiogen_onnx.vampnet.verify import Verified, random_codes

FRAMES = 100
"""Of codes at random, half of them masked."""


def verify(folder: str | Path, reference: str | Path | None = None) -> list[Verified]:
    """Check every file's hash, run every graph, and compare with a reference folder, in all stages, with and
    without a text; the arguments and errors are those of `audiogen_onnx.musicgen.verify.verify`.
    """
    return compared(located(folder), None if reference is None else located(reference), _outputs, "network")


def _outputs(folder: Path) -> tuple[MagnetManifest, dict[str, Floats]]:
    magnet = Magnet.load(folder, verify=True)
    text = magnet.text(*magnet.tokenizer.encode(["a slow piece for the piano"]))
    books = magnet.config.network.codebooks
    codes = random_codes(books, magnet.config.network.special, 2, FRAMES)
    run = magnet.network.run(text[None], None, 2)
    logits = np.stack([run(codes, stage, stage) for stage in range(books)])
    return MagnetManifest.load(folder), {"text": text, "network": logits}
