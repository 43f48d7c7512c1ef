"""Checkpoint to the folder that `audiogen_mlx` loads: `python export.py RUN/checkpoint.pt -o FOLDER`.

Matrices become int8 rows with a float16 scale each. The codec is named, not copied: it comes with the core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import tokenizer
from network import text_config
from numpy.typing import NDArray
from prompts import save as save_prompts
from safetensors.numpy import save
from settings import Settings

from audiogen_core.codecs.frame import quantize
from audiogen_core.files import atomic_path
from audiogen_core.musicgen.config import FORMAT, Config
from audiogen_core.musicgen.options import Defaults
from audiogen_core.musicgen.weights import LAYOUTS, pieces
from audiogen_core.t5 import T5Config
from audiogen_core.t5 import pieces as pieces_of_t5
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.nn import parameters, stored_shapes
from audiogen_mlx.t5 import T5Encoder

CODEC = "demo"
FRAME_RATE = 75  # of it, Hz

DEFAULTS = Defaults(guidance_scale=3.0, temperature=0.5, top_k=64)
STRIDE = 4.8  # seconds: whole sixteenths of every tempo, so that the clock goes on in the next window

WORDS = "text_encoder.shared.weight"

Table = dict[str, NDArray[Any]]


def export(checkpoint: Path, folder: Path, *, exact: bool = False) -> Path:
    """Write config.json, model.safetensors, tokenizer.json and prompts.json; `exact` keeps float32."""
    state = torch.load(checkpoint, weights_only=True)
    network = {name: value.numpy() for name, value in state["network"].items()}
    settings = Settings.read_dict(state["settings"])
    text = settings.text
    vocabulary = network["text_encoder.shared.weight"].shape[0]
    config = describe(settings)
    text_settings = text_config(text, vocabulary).to_diff_dict()
    table = {**_decoder(network, config), **_text_encoder(network, T5Config.from_dict(text_settings))}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(table if exact else shrunk(table)))
    facts = {
        "format": FORMAT,
        "model": config.to_dict(),
        "text_encoder": text_settings,
        "codec": CODEC,
        "dtype": "float32",
        "bits": None,
        "defaults": {**asdict(DEFAULTS), "stride_seconds": round(min(STRIDE, config.window_seconds / 2), 3)},
    }
    tokenizer().save(str(folder / "tokenizer.json"))
    save_prompts(folder / "prompts.json")
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def describe(settings: Settings) -> Config:
    model = settings.model
    return Config(
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        hidden=model.hidden,
        codebooks=model.codebooks,
        codebook_size=model.codebook_size,
        delays=tuple(range(model.codebooks)),
        channels=1,
        text_width=settings.text.width,
        text_encoder="its own",
        window_seconds=settings.data.window / FRAME_RATE,
        clock=model.clock,
    )


def shrunk(table: Table) -> Table:
    """Large matrices as int8 rows, everything else as float16: what marks a word is large beside the rest."""
    made: Table = {}
    for name, array in sorted(table.items()):
        if array.ndim == 2 and array.size > 1024 and name != WORDS:
            rows = quantize(array)
            made[name], made[f"{name}.scale"] = rows[".weight"], rows[".weight.scale"]
        else:
            made[name] = array.astype(np.float16)
    return made


def _decoder(network: Table, config: Config) -> Table:
    transformer = Transformer(config)
    theirs, _, ours = (list(parameters(transformer, pieces(config, layout))) for layout in LAYOUTS)
    return {
        whole.pieces[0]: np.concatenate([network[piece] for piece in one.pieces]).astype(np.float32)
        for whole, one in zip(ours, theirs, strict=True)
    }


def _text_encoder(network: Table, config: T5Config) -> Table:
    names = stored_shapes(T5Encoder(config), pieces_of_t5(config))
    return {f"text_encoder.{name}": network[f"text_encoder.{name}"] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--exact", action="store_true", help="keep float32")
    arguments = parser.parse_args()
    print(export(arguments.checkpoint, arguments.out, exact=arguments.exact))


if __name__ == "__main__":
    main()
