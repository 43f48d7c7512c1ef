"""A MusicGen from its folder: the parts, loaded strictly, and what they compute for a run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from audiogen_core import patterns
from audiogen_core.codec import Codec
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.musicgen.conditioning import Conditioner, Floats, Rows, Tokens
from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.files import BITS, CODEC_SECONDS, Files, Places, check_codec
from audiogen_core.musicgen.options import DTYPES as DTYPE_NAMES
from audiogen_core.musicgen.stereo import StereoCodec
from audiogen_core.musicgen.weights import Layout, ignored, pieces
from audiogen_core.sampling import Sampling
from audiogen_core.tokenizer import Tokenizer
from audiogen_core.weights import Weights
from audiogen_mlx import nn
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen.mert import Mert
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.musicgen.sampling import Sampler
from audiogen_mlx.musicgen.style import StyleConditioner, load_style
from audiogen_mlx.nn import DTYPES
from audiogen_mlx.t5 import load_t5

SYNC_STEPS = 25
"""Steps after which results are looked at; between them the device is never waited for."""


def find_files(name_or_path: str | Path, places: Places, *, unlisted: bool = False) -> Files:
    """The files of a model from the catalogue, a hub id or a path. Raises as `MusicGen.load` does."""
    from audiogen_mlx.catalog import MUSICGEN

    return Files.find(MUSICGEN, name_or_path, places, unlisted=unlisted)


class Parts:
    """A MusicGen, loaded: everything strictly, tensor by tensor."""

    def __init__(self, files: Files, *, dtype: str | None = None, bits: int | None = None) -> None:
        from audiogen_core.codecs import load_codec
        from audiogen_mlx.ops import MlxOps

        self.files = files
        self.config = files.config
        self.bits = files.stored_bits or bits
        dtype = dtype or files.stored_dtype
        with bounded_cache():
            self.transformer = load_transformer(
                files.table, self.config, files.layout, dtype=dtype, bits=bits, stored_bits=files.stored_bits
            )
            self.style_conditioner: StyleConditioner | None = None
            if self.config.style is not None:
                network = load_style(files.table, self.config.style)
                self.style_conditioner = StyleConditioner(network, lambda: Mert.load(files.mert_folder))
            self.t5 = load_t5(files.t5_config, files.text_table, dtype=DTYPES[dtype])
            codec: Codec = load_codec(files.codec_path, MlxOps(), files.places.fetch)
        codec.chunk_seconds = CODEC_SECONDS
        self.codec: Codec = StereoCodec(codec) if self.config.channels == 2 else codec
        check_codec(files, self.codec.info)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.files)

    # What a run asks for: see `audiogen_core.musicgen.conditioning.Network`

    def text(self, ids: Tokens, mask: NDArray[np.bool_]) -> Floats:
        return _numpy(self.transformer.project_text(self.t5(mx.array(ids), mx.array(mask)))[0])

    def melody(self, features: Floats) -> Floats:
        return _numpy(self.transformer.project_melody(mx.array(features)))

    def style(self, clip: Any, **options: Any) -> Floats:
        assert self.style_conditioner is not None
        return _numpy(self.style_conditioner.embed(clip, **options))

    def sampler(self, sampling: Sampling, seeds: Sequence[int], steps: int) -> Sampler:
        return Sampler(sampling, self.config.codebooks, seeds, steps)

    def steps(
        self, rows: Rows, tokens: Tokens, first: int, conditioner: Conditioner, sampler: Sampler, base: int
    ) -> Generator[Tokens]:
        wanted = mx.array(tokens)
        current, end = wanted[:, :, :first], tokens.shape[2]
        run = self.transformer.run(rows, end - 1)
        groups = len(conditioner.groups)
        try:
            for start in range(first, end, SYNC_STEPS):
                columns = []
                for step in range(start, min(start + SYNC_STEPS, end)):
                    logits = self.transformer(mx.tile(current, (groups, 1, 1)), run, last=True)
                    logits = conditioner.join(logits)[:, :, 0]  # (B, K, N)
                    drawn = sampler(logits, base + step - first).astype(mx.int32)
                    column = mx.where(wanted[:, :, step] == patterns.UNKNOWN, drawn, wanted[:, :, step])
                    current = column[:, :, None]
                    columns.append(column)
                    mx.async_eval(column)  # type: ignore[no-untyped-call]
                made = np.array(mx.stack(columns, axis=2))
                if not mx.isfinite(logits).all().item():
                    raise ModelError(
                        f"{self.files.folder}: the model gave NaN or infinity; its weights are damaged, or "
                        "overflow in this dtype: try bfloat16 or float32"
                    )
                yield made
        finally:
            run.close()  # keys and values, whoever still holds this run


def _numpy(array: mx.array) -> Floats:
    """In float32, which holds numbers of all dtypes exactly."""
    return np.array(array.astype(mx.float32))


def load_transformer(
    table: Weights,
    config: Config,
    layout: Layout,
    *,
    dtype: str = "float32",
    bits: int | None = None,
    stored_bits: int | None = None,
) -> Transformer:
    """The transformer with its weights; see `outline`. Raises OptionError, or WeightsError."""
    network = outline(config, dtype=dtype, bits=bits, stored_bits=stored_bits)
    nn.load_strict(
        network,
        table,
        pieces=pieces(config, layout),
        dtype=DTYPES[dtype],
        stored_quantized=stored_bits is not None,
        ignore=ignored(config),
    )
    return network


def read_tokenizer(files: Files) -> Tokenizer:
    """The tokenizer of a model. Raises ModelError."""
    tokenizer = Tokenizer.load(files.tokenizer_file)
    return tokenizer.literal() if files.places.lora else tokenizer


def outline(
    config: Config, *, dtype: str = "float32", bits: int | None = None, stored_bits: int | None = None
) -> Transformer:
    """A transformer that holds no weights yet: it says which there are, and of which shapes.

    dtype        one of DTYPES, of all weights
    bits         4 or 8 quantises the linear layers without a bias
    stored_bits  of those layers where they are stored quantised

    Raises OptionError for an unknown dtype or number of bits, or a model that cannot be quantised.
    """
    if dtype not in DTYPE_NAMES:
        raise OptionError(f"dtype must be one of {', '.join(DTYPE_NAMES)}, got {dtype!r}")
    if bits is not None and bits not in BITS:
        raise OptionError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    if stored_bits is not None and bits not in (None, stored_bits):
        raise OptionError(f"this model is stored in {stored_bits} bits and cannot be loaded in {bits}")
    network = Transformer(config)
    bits = stored_bits or bits
    if bits is not None:
        for name, width in {"width": config.width, "hidden width": config.hidden}.items():
            if width % nn.GROUP:
                raise OptionError(
                    f"this model cannot be quantised: its {name}, {width}, is no multiple of {nn.GROUP}"
                )
        nn.quantize(network, bits)
    return network
