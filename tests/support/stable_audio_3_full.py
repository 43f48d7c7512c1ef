"""Stable Audio 3 at the sizes that are published, with random weights that are made as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_core.formats.stored import StoredArray
from audiogen_core.weights import Weights

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
KEYS: dict[str, dict[str, list[int]]] = json.loads((FIXTURES / "published_keys.json").read_text())
TEXT = next(name for name in KEYS if name.startswith("t5gemma"))

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "like": "tiny-small",
        "sample_size": 5_292_032,
        "dit": {"embed_dim": 1024, "depth": 20, "num_heads": 16},
        "same": {"channels": 128, "chunk_size": 32, "transformer_depths": [6]},
        "sines": 0,
    },
    "medium": {
        "like": "tiny-medium",
        "sample_size": 16_777_216,
        "dit": {"embed_dim": 1536, "depth": 24, "num_heads": 24},
        "same": {"channels": 256, "transformer_depths": [12]},
        "sines": 8,
    },
}


def configuration(size: str) -> dict[str, Any]:
    """The `model_config.json` of a published model."""
    facts = SIZES[size]
    tree: dict[str, Any] = json.loads((FIXTURES / facts["like"] / "model_config.json").read_text())
    tree |= {"sample_rate": 44_100, "sample_size": facts["sample_size"]}
    model = tree["model"]
    model["io_channels"], model["conditioning"]["cond_dim"] = 256, 768
    model["conditioning"]["configs"][0]["config"]["max_length"] = 256
    model["diffusion"]["config"] |= facts["dit"] | {
        "io_channels": 256, "cond_token_dim": 768, "global_cond_dim": 768, "local_add_cond_dim": 257,
        "num_memory_tokens": 64, "ff_kwargs": {"mult": 4.0},
    }  # fmt: skip
    parts = model["pretransform"]["config"]
    parts |= {"latent_dim": 256, "downsampling_ratio": 4096}
    parts["bottleneck"]["config"]["dim"] = 256
    parts["pretransform"]["config"]["patch_size"] = 256
    for side, outside in (("encoder", "in_channels"), ("decoder", "out_channels")):
        own = {"dim_heads": 64, "strides": [16], "latent_dim": 256, outside: 512}
        parts[side]["config"] |= facts["same"] | own
    parts["decoder"]["config"]["sinusoidal_blocks"] = [facts["sines"]]
    return tree


def text_configuration() -> dict[str, Any]:
    """The `config.json` of the published T5Gemma."""
    path = FIXTURES / "tiny-small" / "t5gemma-b-b-ul2" / "config.json"
    encoder: dict[str, Any] = json.loads(path.read_text())["encoder"]
    sizes = {"vocab_size": 256_000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    rest = {"num_key_value_heads": 12, "head_dim": 64, "intermediate_size": 2048, "query_pre_attn_scalar": 64}
    return {"model_type": "t5gemma", "encoder": encoder | sizes | rest}


def random_weights(shapes: dict[str, list[int]], source: str = "random") -> Weights:
    """Tensors of these names and shapes, small enough that nothing overflows."""
    block = np.random.default_rng(0).standard_normal(1_000_003, dtype=np.float32)

    def array(name: str, shape: tuple[int, ...]) -> StoredArray:
        def read() -> np.ndarray:
            if name.endswith("running_std"):
                return np.ones(shape, np.float32)
            size = int(np.prod(shape))
            scale = np.float32((shape[1] if len(shape) > 1 else 16) ** -0.5 if size else 1)
            return (np.resize(block, size) * scale).reshape(shape).astype(np.float32)

        return StoredArray(shape, "float32", read)

    return Weights({name: array(name, tuple(shape)) for name, shape in shapes.items()}, source)
