"""The published Stable Audio models without their weights: configurations, names and shapes of tensors.

Written from the layout of stable-audio-tools (models/dit.py, transformer.py, autoencoders.py,
conditioners.py), not from the tables that are tested against it.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from audiogen_core.formats.stored import StoredArray
from audiogen_core.weights import Weights

Shapes = dict[str, tuple[int, ...]]

BLOCK = 1_000_003  # numbers drawn for a tensor; larger ones repeat them, which takes no time

MULTIPLES, STRIDES, WIDTH = (1, 2, 4, 8, 16), (2, 4, 4, 8, 8), 128

SMALL: dict[str, Any] = {
    "io_channels": 64,
    "embed_dim": 1024,
    "depth": 16,
    "num_heads": 8,
    "cond_token_dim": 768,
    "global_cond_dim": 768,
    "transformer_type": "continuous_transformer",
    "attn_kwargs": {"qk_norm": "ln"},
}
ONE: dict[str, Any] = {
    "io_channels": 64,
    "embed_dim": 1536,
    "depth": 24,
    "num_heads": 24,
    "cond_token_dim": 768,
    "global_cond_dim": 1536,
    "project_cond_tokens": False,
    "transformer_type": "continuous_transformer",
}


def configuration(name: str) -> dict[str, Any]:
    """The model_config.json of "small" or "1.0"."""
    small = name == "small"
    numbers = ["seconds_total"] if small else ["seconds_start", "seconds_total"]
    configs: list[dict[str, Any]] = [
        {
            "id": "prompt",
            "type": "t5",
            "config": {"t5_model_name": "t5-base", "max_length": 64 if small else 128},
        }
    ]
    limit = 256 if small else 512
    configs += [{"id": one, "type": "number", "config": {"min_val": 0, "max_val": limit}} for one in numbers]
    diffusion: dict[str, Any] = {
        "cross_attention_cond_ids": ["prompt", *numbers],
        "global_cond_ids": numbers,
        "type": "dit",
        "config": SMALL if small else ONE,
    }
    if small:
        diffusion["diffusion_objective"] = "rf_denoiser"
    tree = {
        "model_type": "diffusion_cond",
        "sample_size": 524288 if small else 2097152,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": {
            "pretransform": _pretransform(),
            "conditioning": {"configs": configs, "cond_dim": 768},
            "diffusion": diffusion,
            "io_channels": 64,
        },
        "training": {"learning_rate": 5e-5},
    }
    return copy.deepcopy(tree)


def _pretransform() -> dict[str, Any]:
    side = {"channels": WIDTH, "c_mults": [*MULTIPLES], "strides": [*STRIDES], "use_snake": True}
    return {
        "type": "autoencoder",
        "iterate_batch": True,
        "config": {
            "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 128, **side}},
            "decoder": {
                "type": "oobleck",
                "config": {"out_channels": 2, "latent_dim": 64, "final_tanh": False, **side},
            },
            "bottleneck": {"type": "vae"},
            "latent_dim": 64,
            "downsampling_ratio": 2048,
            "io_channels": 2,
        },
    }


def transformer(settings: dict[str, Any]) -> Shapes:
    """Names after `model.model.`."""
    width, heads = settings["embed_dim"], settings["num_heads"]
    tokens, io = settings["cond_token_dim"], settings["io_channels"]
    context = width if settings.get("project_cond_tokens", True) else tokens
    head = width // heads
    table: Shapes = {
        "timestep_features.weight": (128, 1),
        "to_timestep_embed.0.weight": (width, 256),
        "to_timestep_embed.0.bias": (width,),
        "to_timestep_embed.2.weight": (width, width),
        "to_timestep_embed.2.bias": (width,),
        "to_cond_embed.0.weight": (context, tokens),
        "to_cond_embed.2.weight": (context, context),
        "to_global_embed.0.weight": (width, settings["global_cond_dim"]),
        "to_global_embed.2.weight": (width, width),
        "preprocess_conv.weight": (io, io, 1),
        "postprocess_conv.weight": (io, io, 1),
        "transformer.project_in.weight": (width, io),
        "transformer.project_out.weight": (io, width),
        "transformer.rotary_pos_emb.inv_freq": (max(head // 2, 32) // 2,),
    }
    for index in range(settings["depth"]):
        at = f"transformer.layers.{index}"
        for norm in ("pre_norm", "cross_attend_norm", "ff_norm"):
            table |= {f"{at}.{norm}.gamma": (width,), f"{at}.{norm}.beta": (width,)}
        table |= {
            f"{at}.self_attn.to_qkv.weight": (3 * width, width),
            f"{at}.self_attn.to_out.weight": (width, width),
            f"{at}.cross_attn.to_q.weight": (width, width),
            f"{at}.cross_attn.to_kv.weight": (2 * context, context),
            f"{at}.cross_attn.to_out.weight": (width, width),
            f"{at}.ff.ff.0.proj.weight": (8 * width, width),
            f"{at}.ff.ff.0.proj.bias": (8 * width,),
            f"{at}.ff.ff.2.weight": (width, 4 * width),
            f"{at}.ff.ff.2.bias": (width,),
        }
        if settings.get("attn_kwargs", {}).get("qk_norm") == "ln":
            for attention in ("self_attn", "cross_attn"):
                for norm in ("q_norm", "k_norm"):
                    for part in ("weight", "bias"):
                        table[f"{at}.{attention}.{norm}.{part}"] = (head,)
    return table


def conditioners(ids: list[str]) -> Shapes:
    """Names after `conditioner.conditioners.`."""
    table: Shapes = {}
    for name in ids:
        at = f"{name}.embedder.embedding"
        table |= {f"{at}.0.weights": (128,), f"{at}.1.weight": (768, 257), f"{at}.1.bias": (768,)}
    return table


def autoencoder() -> Shapes:
    """Names after `pretransform.model.`."""
    widths = [WIDTH, *(WIDTH * multiple for multiple in MULTIPLES)]
    table = _conv("encoder.layers.0", widths[0], 2, 7)
    for block, stride in enumerate(STRIDES):
        at, inner, outer = f"encoder.layers.{block + 1}.layers", widths[block], widths[block + 1]
        for unit in range(3):
            table |= _residual(f"{at}.{unit}", inner)
        table |= _snake(f"{at}.3", inner) | _conv(f"{at}.4", outer, inner, 2 * stride)
    table |= _snake("encoder.layers.6", widths[-1]) | _conv("encoder.layers.7", 128, widths[-1], 3)
    table |= _conv("decoder.layers.0", widths[-1], 64, 7)
    for block, stride in enumerate(reversed(STRIDES)):
        at, inner, outer = f"decoder.layers.{block + 1}.layers", widths[-1 - block], widths[-2 - block]
        table |= _snake(f"{at}.0", inner)
        table |= _conv(f"{at}.1", inner, outer, 2 * stride, bias=outer)
        for unit in range(3):
            table |= _residual(f"{at}.{unit + 2}", outer)
    last = _conv("decoder.layers.7", 2, widths[0], 7)
    del last["decoder.layers.7.bias"]
    return table | _snake("decoder.layers.6", widths[0]) | last


def _conv(at: str, first: int, second: int, kernel: int, bias: int | None = None) -> Shapes:
    return {
        f"{at}.weight_g": (first, 1, 1),
        f"{at}.weight_v": (first, second, kernel),
        f"{at}.bias": (first if bias is None else bias,),
    }


def _snake(at: str, width: int) -> Shapes:
    return {f"{at}.alpha": (width,), f"{at}.beta": (width,)}


def _residual(at: str, width: int) -> Shapes:
    at = f"{at}.layers"
    return (
        _snake(f"{at}.0", width)
        | _conv(f"{at}.1", width, width, 7)
        | _snake(f"{at}.2", width)
        | _conv(f"{at}.3", width, width, 1)
    )


def random_weights(shapes: Shapes, seed: int = 0) -> Weights:
    """Tensors of these shapes, made when they are read: small normal numbers, the same for a seed."""

    def stored(index: int, shape: tuple[int, ...]) -> StoredArray:
        def load() -> np.ndarray:
            count = int(np.prod(shape))
            drawn = np.random.default_rng([seed, index]).standard_normal(min(count, BLOCK), dtype=np.float32)
            return np.resize(drawn / np.float32(max(np.sqrt(np.prod(shape[1:])), 1.0)), shape)

        return StoredArray(shape, "float32", load)

    return Weights(
        {name: stored(index, shape) for index, (name, shape) in enumerate(shapes.items())}, "random"
    )
