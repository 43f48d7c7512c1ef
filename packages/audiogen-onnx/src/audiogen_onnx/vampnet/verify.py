"""Whether an exported folder is whole and works, and how near a quantised one is to the float32 one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.errors import ManifestError, ModelError
from audiogen_onnx.catalog import located
from audiogen_onnx.manifest import CODEC, GRAPHS, Manifest
from audiogen_onnx.session import Session
from audiogen_onnx.vampnet.draw import Filters, draw

FRAMES = 64
"""Length of the random clips that the graphs are tried on."""

STRAY_CODES = 0.01
"""The part of an encoder's codes that may differ: entries equally near, which rounding decides."""


@dataclass(frozen=True)
class Verified:
    """One graph that works.

    graph           name
    size            bytes of its files
    relative_error  norm of the difference from the reference's output, over the norm of that; None without
                    a reference, and for the encoder
    top1            part of the most likely codes (encoder: codes) that are the reference's; None without a
                    reference, and for the decoder
    """

    graph: str
    size: int
    relative_error: float | None = None
    top1: float | None = None


def verify(folder: str | Path, reference: str | Path | None = None) -> list[Verified]:
    """Check every file's hash, run every graph on random input, and compare with a reference folder.

    A beat tracker is opened, but not run.

    reference  the float32 folder that `folder` was quantised from

    Raises ManifestError when a file is not the one described, or the folders are not of one model;
    ModelError when a graph's output is not finite or a step does not draw what it should.
    """
    folder = located(folder)
    manifest = Manifest.load(folder, verify=True)
    other = None if reference is None else Manifest.load(reference)
    if other is not None and _model(other) != _model(manifest):
        raise ManifestError(f"{reference}: is not the model of {folder}, so they cannot be compared")
    rows = []
    for name in (*(CODEC if manifest.has_codec else ()), "coarse", "fine"):
        output = _output(manifest, folder, name)
        size = sum(stored.size for stored in manifest.graphs[name].files)
        if other is None or reference is None:
            rows.append(Verified(name, size))
        else:
            rows.append(Verified(name, size, *_compared(name, output, _output(other, reference, name))))
    for name, geometry in (("coarse", manifest.coarse), ("fine", manifest.fine)):
        network, step = (manifest.graph_path(folder, graph) for graph in (name, f"{name}_step"))
        compare_step(network, step, geometry.conditioning_codebooks)
        rows.append(Verified(f"{name}_step", step.stat().st_size))
    for name in sorted(set(manifest.graphs) - set(GRAPHS)):
        Session(manifest.graph_path(folder, name))
        rows.append(Verified(name, sum(stored.size for stored in manifest.graphs[name].files)))
    return rows


def compare_step(network: Path, step: Path, given: int) -> None:
    """Raise ModelError unless a step's graph draws what numpy draws from the network's logits.

    given  how many of the first codebooks the network does not make
    """
    rng, frames, temperature = np.random.default_rng(0), 9, 0.8
    whole = Session(network)
    books, size = whole.shapes["codes"][1], whole.shapes["logits"][3]
    codes = random_codes(books, size, 1, frames)
    logits = whole.run({"codes": codes})["logits"]
    places = frames * (books - given)
    exponential = rng.exponential(size=(1, places, size)).astype(np.float32)
    made = Session(step).run(
        {
            "codes": codes,
            "exponential": exponential,
            "uniform": np.full((1, places), 0.5, np.float32),
            "masked_next": np.zeros((1, 1), np.int64),
            "temperature": np.array(temperature, np.float32),
            "mask_temperature": np.array(0, np.float32),
        }
    )
    rows = logits.transpose(0, 2, 1, 3).reshape(places, -1)
    tokens, _ = draw(rows, exponential[0], Filters(temperature=temperature))
    drawn = tokens.reshape(frames, -1).T
    own = codes[0, given:]
    expected = np.concatenate([codes[0, :given], np.where(own == size, drawn, own)])
    wrong = float((made["drawn_codes"][0] != expected).mean())
    if wrong > STRAY_CODES or not np.array_equal(made["next_codes"], made["drawn_codes"]):
        raise ModelError(f"{step.name}: {wrong:.1%} of its draws differ from numpy's; nothing was written")


def random_codes(codebooks: int, size: int, batch: int, frames: int, seed: int = 0) -> NDArray[np.int64]:
    """Codes (batch, codebooks, frames) below `size`, about half of them masked: `size` itself."""
    rng = np.random.default_rng(seed)
    shape = (batch, codebooks, frames)
    return np.where(rng.random(shape) < 0.5, size, rng.integers(0, size, shape))


def _model(manifest: Manifest) -> tuple[Any, ...]:
    return manifest.created_from, manifest.codec, manifest.coarse, manifest.fine


def _output(manifest: Manifest, folder: str | Path, name: str) -> NDArray[Any]:
    """What a graph makes of random input, the same for every folder of one model."""
    codec, rng = manifest.codec, np.random.default_rng(0)
    if name == "encoder":
        shape = (1, codec.channels, FRAMES * codec.hop_length)
        inputs: dict[str, NDArray[Any]] = {"audio": rng.uniform(-0.5, 0.5, shape).astype(np.float32)}
    elif name == "decoder":
        inputs = {"codes": rng.integers(0, codec.codebook_size, (1, codec.codebooks, FRAMES))}
    else:
        books = (manifest.coarse if name == "coarse" else manifest.fine).codebooks
        inputs = {"codes": random_codes(books, codec.codebook_size, 1, FRAMES)}
    path = manifest.graph_path(folder, name)
    (made,) = Session(path).run(inputs).values()
    if not np.isfinite(made).all():
        raise ModelError(f"{path}: gives numbers that are not finite; export it again, as float32")
    return made


def _compared(name: str, output: NDArray[Any], expected: NDArray[Any]) -> tuple[float | None, float | None]:
    """The relative error, and the part of the most likely codes that agree, as `Verified` has them."""
    if name == "encoder":
        return None, float((output == expected).mean())
    error = float(np.linalg.norm(output - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    if name == "decoder":
        return error, None
    return error, float((output.argmax(axis=-1) == expected.argmax(axis=-1)).mean())
