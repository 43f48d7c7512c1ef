"""Writing a MusicGen as one self-contained folder: config.json, model.safetensors, tokenizer.json.

Tensors pass one at a time, so memory holds no more than the largest.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core import weights
from audiogen_core.codecs import encodec
from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_path
from audiogen_core.weights import Weights
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen import style
from audiogen_mlx.musicgen.config import FORMAT
from audiogen_mlx.musicgen.files import TEXT, Files, text_weights
from audiogen_mlx.musicgen.settings_file import CONFIG, STATE, read_json, read_package
from audiogen_mlx.musicgen.weights import DTYPES, GROUP, Quantized, Source, is_linear, quantized_shapes
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.t5 import T5Encoder, pieces
from audiogen_mlx.tokenizer import FILE as TOKENIZER

CODEC = "audio_encoder."
WEIGHTS = "model.safetensors"

OnStep = Callable[[float, float], None]

_KINDS = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "uint32": ("U32", 4)}
"""dtype -> its name in a safetensors file, and bytes of one element."""


@dataclass(frozen=True)
class Entry:
    """One tensor to be written: `read` gives it in that dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], mx.array]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _KINDS[self.dtype][1]


def convert(
    files: Files,
    folder: str | Path,
    *,
    dtype: str = "float32",
    bits: int | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Write a model into a folder of its own, which then needs nothing beside it.

    dtype    of the transformer and the text encoder; norms and the codec stay float32
    bits     4 or 8 quantises the transformer's linear layers
    force    write over a model that is there
    on_step  called with (bytes written, bytes in all)

    The config is written last, so a folder that was begun and not ended is not taken for a model. Raises
    ModelError, WeightsError or OptionError.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: a file; name a folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OptionError(f"{folder}: not empty; use --force to write over it, or another name")
    if folder.resolve() == files.folder.resolve():
        raise OptionError(f"{folder}: the model itself; name another folder")
    source = Source(
        files.table, files.config, files.layout, dtype=dtype, bits=bits, stored_bits=files.stored_bits
    )
    named = files.named_codec if files.places.codec is None else None
    codec: dict[str, Any] = {"codec": named}
    codec_entries: list[Entry] = []
    if named is None:
        described, table = _codec(files)
        codec = {"audio_encoder": described}
        codec_entries = list(_plain(table, CODEC, list(table), "float32"))
    tokenizer = files.tokenizer_file
    tokenizer = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
    if not tokenizer.is_file():
        raise ModelError(f"{tokenizer}: no such file; name the model's tokenizer (--tokenizer)")
    entries = [
        *_transformer(source),
        *_text(files, dtype),
        *_style(files),
        *codec_entries,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    with bounded_cache():
        write(folder / WEIGHTS, entries, on_step)
    _copy(tokenizer, folder / TOKENIZER)
    if files.config.style is not None and (files.folder / "mert").is_dir():
        shutil.copytree(files.folder / "mert", folder / "mert", dirs_exist_ok=True)
    settings = {
        "format": FORMAT,
        "model": files.config.to_dict(),
        "text_encoder": files.t5_settings,
        **codec,
        "defaults": files.own_defaults,
        "dtype": dtype,
        "bits": source.bits,
        "group": GROUP,
        "source": files.fingerprint(),
    }
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def write(path: Path, entries: list[Entry], on_step: OnStep | None = None) -> None:
    """A safetensors file of the entries, read and written one by one; whole or not at all."""
    header: dict[str, Any] = {}
    offset = 0
    for entry in entries:
        end = offset + entry.bytes
        header[entry.name] = {
            "dtype": _KINDS[entry.dtype][0],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            file.write(_bytes(entry))
            done += entry.bytes
            if on_step is not None:
                on_step(done, offset)


def _bytes(entry: Entry) -> memoryview:
    array = entry.read()
    if array.shape != entry.shape:
        raise ModelError(f"{entry.name} has shape {array.shape}, expected {entry.shape}")
    if array.dtype == mx.bfloat16:  # numpy has no such type
        array = array.view(mx.uint16)
    return np.ascontiguousarray(np.array(array, copy=False)).reshape(-1).view(np.uint8).data


def _transformer(source: Source) -> Iterator[Entry]:
    kind = next(name for name, dtype in DTYPES.items() if dtype == source.dtype)
    for name, parameter in source.parameters.items():
        shape = parameter.shape
        if source.bits is not None and is_linear(name):
            yield from _quantized(source, name, shape, kind)
        elif len(shape) == 1:
            yield Entry(name, "float32", shape, lambda name=name: source.vector(name))  # type: ignore[misc]
        else:
            yield Entry(name, kind, shape, lambda name=name: source.array(name))  # type: ignore[misc]


def _quantized(source: Source, name: str, shape: tuple[int, ...], kind: str) -> Iterator[Entry]:
    """The three parts of a quantised matrix, which is read when the first is asked for."""
    held: list[Quantized] = []

    def part(index: int) -> mx.array:
        if index == 0:
            matrix = source.matrix(name)
            assert isinstance(matrix, Quantized)
            held[:] = [matrix]
        return (held[0].packed, held[0].scales, held[0].offsets)[index]

    assert source.bits is not None
    shapes = quantized_shapes(shape, source.bits)
    for index, (suffix, size) in enumerate(zip(Quantized.suffixes(), shapes, strict=True)):
        read: Callable[[], mx.array] = lambda index=index: part(index)  # type: ignore[misc]  # noqa: E731
        yield Entry(name + suffix, "uint32" if index == 0 else kind, size, read)


def _text(files: Files, dtype: str) -> Iterator[Entry]:
    table = text_weights(files)
    shapes = stored_shapes(T5Encoder(files.t5_config), pieces(files.t5_config))
    table.check(shapes)
    return _plain(table, TEXT, list(shapes), dtype)


def _style(files: Files) -> Iterator[Entry]:
    names = [name for name in files.table if name.startswith(style.PREFIX)]
    return _plain(files.table, "", names if files.config.style is not None else [], "float32")


def _plain(table: Weights, prefix: str, names: list[str], dtype: str) -> Iterator[Entry]:
    for name in names:
        shape = table.shape(name)
        read: Callable[[], mx.array] = lambda name=name, shape=shape: mx.array(  # type: ignore[misc]  # noqa: E731
            table.take(name, shape)
        ).astype(DTYPES[dtype])
        yield Entry(prefix + name, dtype, shape, read)


def _codec(files: Files) -> tuple[Mapping[str, Any], Weights]:
    """The codec as transformers describes it, and its weights."""
    if files.layout != "audiocraft" and files.places.codec is None:
        config = files.settings.get("audio_encoder")
        if not isinstance(config, dict):
            raise ModelError(f"{files.folder / CONFIG}: says nothing of the codec")
        return config, files.table.below(CODEC).apply(encodec.TRANSFORMERS)
    path = Path(files.codec_path).expanduser()
    if path.is_dir() and (path / CONFIG).is_file():
        return read_json(path / CONFIG), weights.read(path).apply(encodec.TRANSFORMERS)
    if path.is_file() and path.name != STATE:
        settings = encodec.from_audiocraft(read_package(path))
        return describe_codec(settings), weights.read(path).apply(encodec.ORIGINAL)
    raise ModelError(f"{path}: not a codec that can be put into the folder; give a transformers folder of it")


def describe_codec(config: encodec.EncodecConfig) -> dict[str, Any]:
    """transformers' configuration of an EnCodec: `encodec.from_transformers` read backwards."""
    bits = max(1, math.ceil(math.log2(max(2, config.codebook_size))))
    frame_rate = math.ceil(config.sample_rate / config.hop_length)
    return {
        "model_type": "encodec",
        "sampling_rate": config.sample_rate,
        "audio_channels": config.channels,
        "upsampling_ratios": list(config.ratios),
        "num_filters": config.filters,
        "hidden_size": config.dimension,
        "codebook_dim": config.dimension,
        "codebook_size": config.codebook_size,
        "target_bandwidths": [config.codebooks * frame_rate * bits / 1000],
        "use_causal_conv": config.causal,
        "use_conv_shortcut": config.shortcut,
        "kernel_size": config.kernel,
        "last_kernel_size": config.last_kernel,
        "residual_kernel_size": config.residual_kernel,
        "num_residual_layers": config.residual_layers,
        "dilation_growth_rate": config.dilation_growth,
        "compress": config.compress,
        "num_lstm_layers": config.lstm_layers,
        "pad_mode": config.pad_mode,
        "trim_right_ratio": config.trim_right_ratio,
        "norm_type": "time_group_norm" if config.group_norm else "weight_norm",
        "normalize": bool(config.chunk_length),
        "chunk_length_s": config.chunk_length / config.sample_rate or None,
        "overlap": 1 - config.chunk_stride / config.chunk_length if config.chunk_length else None,
    }


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
