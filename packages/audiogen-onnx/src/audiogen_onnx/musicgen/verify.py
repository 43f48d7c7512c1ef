"""Whether an exported MusicGen is whole and works, and how near a smaller one is to the float32 one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiogen_core.errors import ManifestError, ModelError
from audiogen_core.musicgen.conditioning import Floats, Rows
from audiogen_onnx.catalog import located
from audiogen_onnx.musicgen.load import Parts
from audiogen_onnx.musicgen.manifest import MusicGenManifest, Prompted
from audiogen_onnx.vampnet.verify import Verified

STEPS = 250
"""Of tokens that are drawn at random and gone through, with and without a text."""


def verify(folder: str | Path, reference: str | Path | None = None) -> list[Verified]:
    """Check every file's hash, run every graph, and compare with a reference folder.

    reference  the float32 folder of the same model

    Raises ManifestError when a file is not the one described, or the folders are not of one model; ModelError
    when what a graph gives is not finite.
    """
    return compared(located(folder), None if reference is None else located(reference), _outputs, "decoder")


Outputs = Callable[[Path], tuple[Prompted, dict[str, Floats]]]
"""A folder's description, and what its graphs make of random input, which is the same for every folder."""


def compared(folder: Path, reference: Path | None, outputs: Outputs, network: str) -> list[Verified]:
    """A row for every graph of a folder. Raises as `verify`.

    network  the graph that makes logits
    """
    manifest, made = outputs(folder)
    expected: dict[str, Floats] = {}
    if reference is not None:
        other, expected = outputs(reference)
        if (other.created_from, other.model) != (manifest.created_from, manifest.model):
            raise ManifestError(f"{reference}: is not the model of {folder}, so they cannot be compared")
    for name, output in made.items():
        if not np.isfinite(output).all():
            raise ModelError(
                f"{folder}: {name} gives numbers that are not finite; export it again, as float32"
            )
    rows = []
    for name, graph in manifest.graphs.items():
        size = sum(stored.size for stored in graph.files)
        error = top1 = None
        if name in made and name in expected:
            error, top1 = _differences(made[name], expected[name])
        rows.append(Verified(name, size, error, top1 if name == network else None))
    return rows


def _outputs(folder: Path) -> tuple[MusicGenManifest, dict[str, Floats]]:
    """What the graphs make of random input, the same for every folder of one model."""
    with MusicGenManifest.opened(folder, verify=True) as manifest:
        parts = Parts(manifest, folder)
        parts.tokenizer  # noqa: B018 - a damaged one is told here
    config, rng = parts.config, np.random.default_rng(0)
    ids = parts.tokenizer.encode(["a slow piece for the piano"])
    text = parts.text(*ids)
    made = {"text": text}
    tokens = rng.integers(0, config.codebook_size, (2, config.codebooks, STEPS), np.int32)
    rows = Rows(2, text=text[None])
    if config.text_in_prefix:
        rows = Rows(2, prefix=np.stack([text, np.zeros_like(text)]))
    run = parts.decoder.run(rows, STEPS)
    logits = [run(tokens[:, :, step : step + 1])[:, :, 0].copy() for step in range(STEPS)]
    run.close()
    made["decoder"] = np.stack(logits)
    if config.chroma is not None:
        made["melody"] = parts.melody(np.eye(config.chroma.bins, dtype=np.float32))
    return manifest, made


def _differences(made: Floats, expected: Floats) -> tuple[float, float]:
    """The relative error, and the part of the likeliest tokens that agree."""
    error = float(np.linalg.norm(made - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    return error, float((made.argmax(axis=-1) == expected.argmax(axis=-1)).mean())
