"""Whether exported graphs do what numpy does with the same weights: a folder that disagrees is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from audiogen_core.errors import ModelError
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.files import Files
from audiogen_core.ops import Float
from audiogen_core.t5 import T5Config
from audiogen_onnx.exporter.musicgen import decoder as decoders
from audiogen_onnx.exporter.musicgen import style as styles
from audiogen_onnx.exporter.musicgen import text as texts
from audiogen_onnx.exporter.musicgen.numbers import BITS
from audiogen_onnx.exporter.musicgen.source import Source
from audiogen_onnx.musicgen.decoder import Decoder
from audiogen_onnx.session import Session

TOLERANCE = 1e-4
"""How far numbers may lie apart when the largest is 1 or less; in proportion when it is larger."""

ROUGH = 0.2
"""The same where onnxruntime rounds activations to 8 bits on the way, as the length of the difference over
that of what was expected: what is laid out wrong is beyond 1."""

TEXT_LENGTHS = (1, 7, 40)
DECODER_STEPS = ((1, 3), (6, 2))
"""Steps of the first call, and single ones after it."""


def text(path: Path, t5: T5Config, config: Config, encoder: Source, model: Source, dtype: str) -> None:
    """Raise ModelError unless the graph of the text encoder agrees."""
    session, rng = Session(path), np.random.default_rng(0)
    ids = rng.integers(0, t5.vocabulary, max(TEXT_LENGTHS))
    for length in TEXT_LENGTHS:
        # What is behind the end of a text must not matter.
        made = session.run({"ids": ids[None], "mask": np.arange(len(ids))[None] < length})["vectors"]
        expected = texts.by_numpy(t5, config, encoder, model, ids[:length], dtype)
        check(made[0, :length], expected, f"{path.name} at {length} tokens", rough=False)


def decoder(path: Path, cross: Path | None, config: Config, source: Source, dtype: str) -> None:
    """Raise ModelError unless the graph of the transformer agrees, gone through in steps, with two rows of
    different conditioning.
    """
    network = Decoder(config, Session(path), None if cross is None else Session(cross))
    rng = np.random.default_rng(0)

    def vectors(count: int) -> Float:
        return rng.normal(size=(count, config.width)).astype(np.float32)

    made: list[Float] = []
    asked: list[decoders.Row] = []
    for first, more in DECODER_STEPS:
        steps = first + more
        tokens = rng.integers(0, config.codebook_size + 1, (2, config.codebooks, steps), np.int32)
        rows = [decoders.Row(tokens[0]), decoders.Row(tokens[1])]
        given = Rows(2)
        if cross is not None:
            text = vectors(4)
            given = Rows(2, text=text[None], mask=np.array([[True, True, True, False]]))
            rows[0] = replace(rows[0], text=text[:3])
        if network.prefixed:
            long, short = vectors(5), vectors(3)
            filled = np.concatenate([np.zeros((2, config.width), np.float32), short])
            given = replace(given, prefix=np.stack([long, filled]), fill=(0, 2))
            rows = [replace(rows[0], prefix=long), replace(rows[1], prefix=short)]
        run = network.run(given, steps)
        parts = [run(tokens[:, :, :first])]
        parts += [run(tokens[:, :, step : step + 1]).copy() for step in range(first, steps)]
        made += list(np.concatenate(parts, axis=2))
        asked += rows
    del network  # its weights are read once more, by numpy
    for logits, expected in zip(made, decoders.by_numpy(config, source, asked, dtype), strict=True):
        check(logits, expected, f"{path.name} at {logits.shape[1]} steps", rough=dtype in BITS)


def melody(path: Path, config: Config, source: Source) -> None:
    """Raise ModelError unless the graph of melodies agrees."""
    assert config.chroma is not None
    features = np.eye(config.chroma.bins, dtype=np.float32)
    weight = source.take("melody.weight", config.width, config.chroma.bins)
    expected = features @ weight.T + source.take("melody.bias", config.width)
    check(Session(path).run({"features": features})["vectors"], expected, path.name, rough=False)


def style(path: Path, config: Config, files: Files) -> None:
    """Raise ModelError unless the graph of styles agrees, with few codebooks and all of them."""
    assert config.style is not None
    session, rng = Session(path), np.random.default_rng(0)
    for samples, count in ((12_000, 1), (9_001, config.style.codebooks)):
        sound = rng.uniform(-0.5, 0.5, samples).astype(np.float32)
        used = (np.arange(config.style.codebooks) < count).astype(np.float32)
        made = session.run({"samples": sound[None], "used": used})["tokens"][0]
        expected = styles.by_numpy(config, files, sound, count)
        check(made, expected, f"{path.name} at {samples} samples", rough=False)


def check(made: Float, expected: Float, where: str, *, rough: bool) -> None:
    if made.shape != expected.shape:
        raise ModelError(
            f"{where}: has the shape {made.shape}, numpy's is {expected.shape}; nothing was written"
        )
    if rough:
        difference = float(np.linalg.norm(made - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    else:
        difference = float(np.abs(made - expected).max()) / max(1.0, float(np.abs(expected).max()))
    allowed = ROUGH if rough else TOLERANCE
    if not difference <= allowed:  # also when it is NaN
        raise ModelError(
            f"{where}: differs from numpy by {difference:.1e}, allowed is {allowed}; nothing was written"
        )
