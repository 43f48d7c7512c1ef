"""Writing a MusicGen as one self-contained folder: config.json, model.safetensors, tokenizer.json.

What writing a Stable Audio 3 has in common with it is here too.

Tensors pass one at a time, so memory holds no more than the largest.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from audiogen_core.errors import ModelError, OptionError
from audiogen_core.files import atomic_path, require_room
from audiogen_core.formats.safetensors_file import write_safetensors
from audiogen_core.musicgen.config import FORMAT, STYLE
from audiogen_core.musicgen.files import CODEC, CONFIG, TEXT, Files, codec_tensors
from audiogen_core.musicgen.weights import pieces
from audiogen_core.prompts import FILE as PROMPTS
from audiogen_core.prompts import Prompts
from audiogen_core.t5 import pieces as t5_pieces
from audiogen_core.tokenizer import FILE as TOKENIZER
from audiogen_core.weights import StoredArray, Weights
from audiogen_mlx import nn, t5
from audiogen_mlx.memory import bounded_cache
from audiogen_mlx.musicgen.load import outline

WEIGHTS = "model.safetensors"

OnStep = Callable[[float, float], None]


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
    folder = check_folder(folder, force)
    if folder.resolve() == files.folder.resolve():
        raise OptionError(f"{folder}: the model itself; name another folder")
    network = outline(files.config, dtype=dtype, bits=bits, stored_bits=files.stored_bits)
    named = files.named_codec if files.places.codec is None else None
    codec: dict[str, Any] = {"codec": named}
    of_codec: dict[str, StoredArray] = {}
    if named is None:
        described, table = codec_tensors(files)
        codec = {"audio_encoder": described}
        of_codec = plain_tensors(table, CODEC, table, "float32")
    tokenizer = files.tokenizer_file
    tokenizer = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
    if not tokenizer.is_file():
        raise ModelError(f"{tokenizer}: no such file; name the model's tokenizer (--tokenizer)")
    encoder = nn.stored_shapes(t5.T5Encoder(files.t5_config), t5_pieces(files.t5_config))
    text = files.text_table
    text.check(encoder)
    style = [name for name in files.table if name.startswith(STYLE)] if files.config.style else []
    tensors = {
        **network_tensors(
            network,
            files.table,
            dtype,
            pieces=pieces(files.config, files.layout),
            written=pieces(files.config, "audiogen"),
            stored_quantized=files.stored_bits is not None,
        ),
        **plain_tensors(text, TEXT, encoder, dtype),
        **plain_tensors(files.table, "", style, "float32"),
        **of_codec,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(folder / WEIGHTS, tensors, on_step)
    for file in (tokenizer, tokenizer.with_name(PROMPTS)):
        if file.is_file():
            with atomic_path(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)
    if files.places.lora and (prompts := Prompts.read(folder)) is not None:
        with atomic_path(folder / PROMPTS) as temporary:
            temporary.write_text(json.dumps(asdict(prompts.literal()), indent=1), encoding="utf-8")
    if files.config.style is not None and (files.folder / "mert").is_dir():
        shutil.copytree(files.folder / "mert", folder / "mert", dirs_exist_ok=True)
    settings = {
        "format": FORMAT,
        "model": files.config.to_dict(),
        "text_encoder": files.t5_settings,
        **codec,
        "defaults": files.own_defaults,
        "dtype": dtype,
        "bits": files.stored_bits or bits,
        "group": nn.GROUP,
        "source": files.fingerprint(),
    }
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def check_folder(folder: str | Path, force: bool) -> Path:
    """The folder, if a model may be written there. Raises OptionError."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: a file; name a folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OptionError(f"{folder}: not empty; use --force to write over it, or another name")
    require_room(folder / WEIGHTS)
    return folder


def write_tensors(path: Path, tensors: Mapping[str, StoredArray], on_step: OnStep | None) -> None:
    """A safetensors file that appears whole, if there is room for it. Raises OptionError."""
    sizes = (
        math.prod(tensor.shape) * (2 if tensor.dtype.endswith("16") else 4) for tensor in tensors.values()
    )
    require_room(path, sum(sizes))
    with bounded_cache(), atomic_path(path) as temporary:
        write_safetensors(temporary, tensors, on_step=on_step)


def network_tensors(
    network: nn.Module,
    table: Weights,
    dtype: str,
    *,
    pieces: nn.Pieces | None = None,
    written: nn.Pieces | None = None,
    squeezed: Collection[str] = (),
    stored_quantized: bool = False,
) -> dict[str, StoredArray]:
    """The tensors of a network, to be read in this order: norms and biases float32, the others of the dtype.

    pieces   that parameters are read from
    written  and that they are written in, each of them one
    """
    wanted = list(nn.parameters(network, written, stored_quantized=True))
    vectors = {one.name for one in wanted if len(one.shape) == 1}
    read = nn.tensors(
        network,
        table,
        pieces=pieces,
        dtype=nn.DTYPES[dtype],
        keep=vectors.__contains__,
        squeezed=squeezed,
        stored_quantized=stored_quantized,
    )
    tensors: dict[str, StoredArray] = {}
    for one in wanted:
        kind = "uint32" if one.packed else "float32" if one.name in vectors else dtype
        tensors[one.pieces[0]] = StoredArray(one.shape, kind, lambda: _numpy(next(read)[1]))
    return tensors


def plain_tensors(table: Weights, prefix: str, names: Iterable[str], dtype: str) -> dict[str, StoredArray]:
    """Tensors as they are stored, of a dtype."""

    def stored(name: str) -> StoredArray:
        shape = table.shape(name)
        return StoredArray(
            shape, dtype, lambda: _numpy(mx.array(table.take(name, shape)).astype(nn.DTYPES[dtype]))
        )

    return {prefix + name: stored(name) for name in names}


def _numpy(array: mx.array) -> np.ndarray[Any, Any]:
    """Of a type that numpy has; bfloat16 as float32."""
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array, copy=False)
