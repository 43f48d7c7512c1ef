"""A training to the folder that audiogen_mlx loads: `python export.py RUN/checkpoint.pt -o FOLDER`.

The layout is that of stable-audio-tools: model_config.json, model.safetensors, and the T5 in `t5`. Matrices
are int8 rows with a float16 scale each, everything else is float16; with `--exact` all stays float32. The
autoencoder is the demo one of audiogen_core, so it is named, not stored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import tokenizer
from network import NUMBERS, text_config
from numpy.typing import NDArray
from prompts import OWN_TEMPO
from prompts import save as save_prompts
from safetensors.numpy import save_file
from settings import Data, Model, Noise, Settings, Text, Training
from torch import Tensor

from audiogen_core import codecs
from audiogen_core.codecs.frame import quantize
from audiogen_core.files import atomic_path

SAMPLING = {"sampler": "dpmpp", "steps": 40, "guidance_scale": 3.0}
NO_INT8 = ("timestep_features", "memory_tokens", "pos_emb")

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


def export(checkpoint: Path, folder: Path, *, exact: bool = False) -> Path:
    """Write the running mean of a training into a folder."""
    state = torch.load(checkpoint, weights_only=True)
    settings, mean = settings_of(state["settings"]), state["mean"]
    words = tokenizer()
    text, pack = folder / "t5", plain if exact else packed
    text.mkdir(parents=True, exist_ok=True)
    words.save(str(text / "tokenizer.json"))
    save_prompts(text / "prompts.json", {} if settings.model.clock else OWN_TEMPO)
    write_json(text / "config.json", text_config(settings, words.get_vocab_size()))
    save(text / "model.safetensors", text_weights(mean), plain if exact else halves)
    save(folder / "model.safetensors", model_weights(mean), pack)
    write_json(folder / "model_config.json", model_config(settings))
    return folder


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings that a checkpoint holds."""
    kinds = {"model": Model, "text": Text, "data": Data, "noise": Noise, "training": Training}
    return Settings(seed=values["seed"], **{name: kind(**values[name]) for name, kind in kinds.items()})


def model_config(settings: Settings) -> dict[str, Any]:
    """The model as stable-audio-tools describes one, with what this package adds: `sampling`, "audiogen"."""
    model, text = settings.model, settings.text
    info = codecs.load_autoencoder("demo").info
    token = text.width
    numbers = [
        {"id": name, "type": "number", "config": {"min_val": 0.0, "max_val": model.max_seconds}}
        for name in NUMBERS
    ]
    t5 = {"t5_model_name": "t5", "max_length": text.max_length}
    network = {
        "io_channels": model.latent_channels,
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.heads,
        "cond_token_dim": token,
        "global_cond_dim": len(NUMBERS) * token,
        "input_concat_dim": model.latent_channels + 1,
        "global_cond_type": "adaLN",
        "num_memory_tokens": model.memory_tokens,
        "attn_kwargs": {"qk_norm": "ln"},
        "ff_kwargs": {"mult": model.ff_mult},
        "transformer_type": "continuous_transformer",
        "project_cond_tokens": True,
    }
    if model.clock:
        network |= {"use_abs_pos_emb": True, "abs_pos_emb_max_length": model.frames}
    return {
        "model_type": "diffusion_cond_inpaint",
        "sample_size": model.frames * info.hop_length,
        "sample_rate": info.sample_rate,
        "audio_channels": info.channels,
        "sampling": SAMPLING,
        "model": {
            "pretransform": {
                "type": "audiogen",
                "config": {"name": info.name, "downsampling_ratio": info.hop_length},
            },
            "conditioning": {
                "configs": [{"id": "prompt", "type": "t5", "config": t5}, *numbers],
                "cond_dim": token,
            },
            "diffusion": {
                "type": "dit",
                "diffusion_objective": "rectified_flow",
                "cross_attention_cond_ids": ["prompt", *NUMBERS],
                "global_cond_ids": list(NUMBERS),
                "input_concat_ids": ["inpaint_mask", "inpaint_masked_input"],
                "config": network,
            },
            "io_channels": model.latent_channels,
        },
    }


def model_weights(mean: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Transformer and embedders in the names of stable-audio-tools."""
    named = {}
    for name, value in mean.items():
        part, _, rest = name.partition(".")
        if part == "dit":
            named[f"model.model.{rest}"] = value
        elif part == "numbers":
            number, _, rest = rest.partition(".")
            rest = rest.replace("frequencies", "0.weights").replace("out.", "1.")
            named[f"conditioner.conditioners.{number}.embedder.embedding.{rest}"] = value
    return named


def text_weights(mean: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The T5 in the names of transformers."""
    found = {name.removeprefix("text."): value for name, value in mean.items() if name.startswith("text.")}
    found.pop("encoder.embed_tokens.weight", None)  # the same as shared.weight
    return found


def packed(name: str, array: Floats) -> Arrays:
    """A matrix as int8 rows, anything else as float16."""
    if array.ndim < 2 or any(part in name for part in NO_INT8):
        return halves(name, array)
    rows = quantize(array.reshape(len(array), -1))
    return {name: rows[".weight"].reshape(array.shape), f"{name}.scale": rows[".weight.scale"]}


def halves(name: str, array: Floats) -> Arrays:
    return {name: array.astype(np.float16)}


def plain(name: str, array: Floats) -> Arrays:
    return {name: array}


def save(path: Path, tensors: Mapping[str, Tensor], pack: Callable[[str, Floats], Arrays]) -> None:
    stored: Arrays = {}
    for name, value in tensors.items():
        stored |= pack(name, value.detach().float().numpy())
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in stored.items()}, temporary)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--exact", action="store_true", help="store float32")
    arguments = parser.parse_args()
    print(export(arguments.checkpoint, arguments.output, exact=arguments.exact))


if __name__ == "__main__":
    main()
