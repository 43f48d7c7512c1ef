"""The codec as two ONNX graphs: audio to codes, and codes to audio.

Only standard operators; the batch and the time are free. Padding a clip to whole frames is left to the
caller, so that no length is baked into a graph.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiogen_core.codec import Codec
from audiogen_core.errors import OptionError
from audiogen_core.layers import Convolutional, Layer, PadToMultiple, ProjectedQuantizer, Stage, reach, run
from audiogen_onnx.codec import FACTS

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
_EXAMPLE = (2, 5)  # batch and frames of the example a graph is traced with


def export_codec(codec: Codec, folder: str | Path) -> tuple[Path, Path]:
    """Write `encoder.onnx` and `decoder.onnx`, each with a `.data` file of its weights, into a folder.

    codec  LAC or DAC, loaded with ops="torch"

    encoder  `audio` float32 (B, 1, N), N a multiple of the hop length -> `codes` int64 (B, K, T)
    decoder  `codes` int64 (B, K, T) -> `audio` float32 (B, 1, T * hop length). A codebook whose codes are
             below 0 adds nothing: so fewer codebooks are decoded

    As VampNet does, the decoder first finds the entry nearest to each code's own; another one is found only
    where two entries of a codebook point the same way. The replacement is a table in the graph, there only
    if it changes a code.

    Returns the two paths. Raises OptionError for another kind of codec.
    """
    encoder, decoder = Path(folder) / ENCODER, Path(folder) / DECODER
    return export_encoder(codec, encoder), export_decoder(codec, decoder)


def export_encoder(codec: Codec, path: str | Path) -> Path:
    """Write the graph `audio` -> `codes`; see `export_codec`."""
    layers, hop = _layers(codec, codec._encoder), codec.info.hop_length
    frames = torch.export.Dim("frames", min=1, max=1 << 20)
    return _write(
        _Encoder(codec, layers),
        torch.zeros(_EXAMPLE[0], codec.info.channels, _EXAMPLE[1] * hop),
        path,
        names=("audio", "codes"),
        time=frames * hop,
        facts=_facts(codec, layers),
    )


def export_decoder(codec: Codec, path: str | Path) -> Path:
    """Write the graph `codes` -> `audio`; see `export_codec`."""
    layers = _layers(codec, codec._decoder)
    return _write(
        _Decoder(codec, layers),
        torch.zeros(_EXAMPLE[0], codec.info.codebooks, _EXAMPLE[1], dtype=torch.int64),
        path,
        names=("codes", "audio"),
        time=torch.export.Dim("frames", min=1, max=1 << 20),
        facts=_facts(codec, layers),
    )


class _Encoder(torch.nn.Module):
    def __init__(self, codec: Codec, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.ops, self.layers, self.count = codec.ops, layers, codec.info.codebooks
        self.quantizer = codec._quantizer

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        latents = run(self.ops, self.layers, audio)
        return torch.stack(self.quantizer.encode(latents, self.count), dim=1)


class _Decoder(torch.nn.Module):
    def __init__(self, codec: Codec, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.ops, self.layers = codec.ops, layers
        self.books = _quantizer(codec).books
        entries = settled(codec)
        changed = (entries != np.arange(codec.info.codebook_size)).any()
        self.settled = [torch.tensor(row) if changed else None for row in entries]

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        latents: Any = 0.0
        for index, (book, table) in enumerate(zip(self.books, self.settled, strict=True)):
            row = codes[:, index]
            entry = row.clamp(min=0)
            if table is not None:
                entry = table[entry]
            latents = latents + book.decode(entry) * (row >= 0).to(torch.float32)[:, None]
        audio: torch.Tensor = run(self.ops, self.layers, latents)
        return audio


def settled(codec: Codec) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of each entry, the one that is found when the entry itself is quantised: int64 (K, N)."""
    ops, entries = codec.ops, codec.codebook_vectors()
    books = _quantizer(codec).books
    nearest = [
        book.nearest(ops.signal(rows[:, : book.width].T[None]))
        for book, rows in zip(books, entries, strict=True)
    ]
    return np.concatenate([ops.indices_numpy(row) for row in nearest])


def _quantizer(codec: Codec) -> ProjectedQuantizer:
    if not isinstance(codec._quantizer, ProjectedQuantizer) or codec.ops.name != "torch":
        raise OptionError(f"{codec.info.name}: only LAC and DAC loaded with ops='torch' can be exported")
    return codec._quantizer


def _layers(codec: Codec, stages: Sequence[Stage]) -> list[Layer]:
    """The layers of all stages, without the padding of a clip's end."""
    _quantizer(codec)  # refuses what cannot be exported before anything is traced
    return [
        layer
        for stage in stages
        if isinstance(stage, Convolutional)
        for layer in stage.layers
        if not isinstance(layer, PadToMultiple)
    ]


def _facts(codec: Codec, layers: Sequence[Layer]) -> dict[str, Any]:
    """What the runtime must know of a graph: the codec, and how many output steps a cut spoils."""
    return {**vars(codec.info), "reach": reach(layers)}


def _write(
    shell: torch.nn.Module,
    example: torch.Tensor,
    path: str | Path,
    *,
    names: tuple[str, str],
    time: Any,
    facts: dict[str, Any],
) -> Path:
    batch = torch.export.Dim("batch", min=1, max=1 << 12)
    with torch.no_grad(), _no_word_of_torchvision():
        program = torch.onnx.export(
            shell.eval(),
            (example,),
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=({0: batch, 2: time},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo=True there always is one
    program.model.metadata_props[FACTS] = json.dumps(facts)
    program.save(str(path), external_data=True)
    return Path(path)


@contextmanager
def _no_word_of_torchvision() -> Iterator[None]:
    """torch's exporter warns that torchvision is missing, which nothing here needs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
