"""Begin with what a folder that `export.py` wrote has learned: what fits is taken, word by word.

Waves of a clock take the place of waves so slow that they hardly move within a window. What these gave on
average goes into the embeddings, so that the layers above find it where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beats import keep_time
from export import WORDS
from network import Network
from numpy.typing import NDArray
from safetensors.numpy import load
from tokenizers import Tokenizer

from audiogen_core.musicgen.config import Config
from audiogen_core.musicgen.positions import positions
from audiogen_core.musicgen.weights import LAYOUTS, pieces
from audiogen_mlx.musicgen.model import Transformer
from audiogen_mlx.nn import parameters


@torch.no_grad()
def begin(network: Network, folder: Path, words: Tokenizer) -> None:
    """Fill a network with the weights of a folder; `words` are those that the network is to know."""
    stored = load((folder / "model.safetensors").read_bytes())
    config = Config.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"])
    transformer = Transformer(config)
    theirs, _, ours = (list(parameters(transformer, pieces(config, layout))) for layout in LAYOUTS)
    known = network.state_dict()
    for name in known:
        if name in stored and name != WORDS:
            known[name].copy_(_plain(stored, name))
    for whole, one in zip(ours, theirs, strict=True):
        parts = _plain(stored, whole.pieces[0]).chunk(len(one.pieces))
        for name, part in zip(one.pieces, parts, strict=True):
            known[name].copy_(part)
    before = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    rows = _plain(stored, WORDS)
    for word, index in words.get_vocab().items():
        if word in before:
            known[WORDS][index] = rows[before[word]]
    model = network.settings.model
    if model.clock != config.clock:
        old, new = (
            torch.from_numpy(positions(network.settings.data.window, model.width, clock))
            for clock in (config.clock, model.clock)
        )
        for table in network.decoder.model.decoder.embed_tokens:
            table.weight += (old - new).mean(dim=0) / model.codebooks
        keep_time(network, words)


def _plain(stored: dict[str, NDArray[Any]], name: str) -> torch.Tensor:
    array = stored[name].astype(np.float32)
    scale = stored.get(f"{name}.scale")
    return torch.from_numpy(array if scale is None else array * scale.astype(np.float32)[:, None])
