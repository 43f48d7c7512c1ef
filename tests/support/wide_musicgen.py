"""The small model of the fixtures made wide enough to be quantised, with made-up weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

_WIDER = {48: 128, 96: 256}


def widen(folder: Path) -> Path:
    """Change a copy of the fixture in place: the transformer becomes 128 wide. Returns the folder."""
    config = json.loads((folder / "config.json").read_text())
    config["decoder"] |= {"hidden_size": 128, "ffn_dim": 256}
    (folder / "config.json").write_text(json.dumps(config))
    rng, path = np.random.default_rng(0), folder / "model.safetensors"

    def widened(name: str, array: np.ndarray) -> np.ndarray:
        if not name.startswith(("decoder.", "enc_to_dec")):
            return array
        shape = tuple(_WIDER.get(size, size) for size in array.shape)
        if len(shape) == 1:
            return np.resize(array, shape)
        return (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)

    save_file({name: widened(name, array) for name, array in load_file(path).items()}, path)
    return folder
