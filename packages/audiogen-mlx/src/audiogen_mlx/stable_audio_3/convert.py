"""Writing a Stable Audio 3, from any of its layouts, as a folder with everything that a run needs.

model_config.json is as the authors have it; the checkpoint has our names, so that it can be quantised. The
text encoder has a folder of its own, as in theirs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiogen_core.errors import OptionError
from audiogen_core.files import atomic_path
from audiogen_core.tokenizer import FILE as TOKENIZER
from audiogen_mlx import nn, t5gemma
from audiogen_mlx.convert import OnStep, check_folder, network_tensors, plain_tensors, write_tensors
from audiogen_mlx.stable_audio_3 import weights
from audiogen_mlx.stable_audio_3.config import describe
from audiogen_mlx.stable_audio_3.load import CONFIG, Files
from audiogen_mlx.stable_audio_3.lora import Lora

LICENCES = ("LICENSE.md", "LICENSE_GEMMA.md", "NOTICE")


def convert(
    files: Files,
    folder: str | Path,
    *,
    loras: Sequence[Lora] = (),
    dtype: str = "float32",
    bits: int | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Write a model into a folder of its own, which then needs nothing beside it.

    loras    that are merged into it
    dtype    of the network and of T5Gemma; norms, biases and the autoencoder stay float32
    bits     4 or 8 quantises the network
    force    write over a model that is there
    on_step  called with (bytes written, bytes in all), for each of two files

    The configuration is written last, so a folder that was begun and not ended is not taken for a model; the
    licences that lie beside the model come with it. Raises ModelError, WeightsError or OptionError.
    """
    folder = check_folder(folder, force)
    if folder.resolve() == files.folder.resolve():
        raise OptionError(f"{folder}: the model itself; name another folder")
    config, tables = files.read_config(), weights.read_tables(files.checkpoint)
    stored = weights.stored_bits(tables.dit)
    if stored is not None and bits not in (None, stored):
        raise OptionError(f"{files.checkpoint}: quantised to {stored} bits already; leave out bits")
    if loras:
        weights.check_plain(stored, files.checkpoint)
        tables = weights.with_loras(tables, loras)
    tensors = {
        f"dit.{name}": tensor
        for name, tensor in network_tensors(
            weights.outline(config.dit, stored or bits),
            tables.dit,
            dtype,
            squeezed=weights.SQUEEZED,
            stored_quantized=stored is not None,
        ).items()
    }
    for part, table in (("embedders.", tables.embedders), ("vae.", tables.vae)):
        tensors |= plain_tensors(table, part, table, "float32")
    text = folder / (config.text or "text_encoder")
    facts, encoder = t5gemma.read_config(files.text.encoder), t5gemma.read(files.text.encoder)
    tokenizer = t5gemma.read_tokenizer(files.text.tokenizer)
    names = nn.stored_shapes(t5gemma.T5GemmaEncoder(facts))
    encoder.check(names)
    text.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(folder / weights.OWN, tensors, on_step)
    write_tensors(text / "model.safetensors", plain_tensors(encoder, "", names, dtype), on_step)
    _write(text / "config.json", facts.describe())
    with atomic_path(text / TOKENIZER) as temporary:
        temporary.write_text(tokenizer.to_json(), encoding="utf-8")
    for name in LICENCES:
        if (files.folder / name).is_file():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes((files.folder / name).read_bytes())
    _write(folder / CONFIG, describe(config))
    return folder


def _write(path: Path, facts: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
