"""VampNet checkpoints of any size with random weights, in the layout upstream publishes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

FULL_CODEC = {
    "encoder_dim": 64,
    "encoder_rates": [2, 6, 8, 8],
    "decoder_dim": 1536,
    "decoder_rates": [6, 4, 4, 2, 2, 2],
    "n_codebooks": 14,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "quantizer_dropout": False,
    "sample_rate": 44100,
}
FULL_COARSE = {
    "n_heads": 20,
    "n_layers": 20,
    "r_cond_dim": 0,
    "n_codebooks": 4,
    "n_conditioning_codebooks": 0,
    "latent_dim": 8,
    "embedding_dim": 1280,
    "vocab_size": 1024,
    "flash_attn": False,
    "noise_mode": "mask",
    "dropout": 0.1,
    "ctrl_dims": None,
    "cond_dim": 0,
}
FULL_FINE = {**FULL_COARSE, "n_layers": 16, "n_codebooks": 14, "n_conditioning_codebooks": 4}


def write_network(path: Path, settings: dict[str, Any], seed: int = 0) -> Path:
    """coarse.pth or c2f.pth."""
    draw = _Draw(seed)
    width, books, size = settings["embedding_dim"], settings["n_codebooks"], settings["vocab_size"]
    predicted = books - settings["n_conditioning_codebooks"]
    state = {
        "embedding.special.MASK": draw(books, settings["latent_dim"], scale=1.0),
        "embedding.out_proj.weight": draw(width, books * settings["latent_dim"], 1),
        "embedding.out_proj.bias": draw(width, scale=0.1),
        "transformer.norm.weight": 1 + draw(width, scale=0.1),
        "classifier.layers.0.bias": draw(predicted * size, scale=0.1),
        "classifier.layers.0.weight_g": 1 + draw(predicted * size, 1, 1, scale=0.1).abs(),
        "classifier.layers.0.weight_v": draw(predicted * size, width, 1),
        "transformer.layers.0.self_attn.relative_attention_bias.weight": draw(
            32, settings["n_heads"], scale=1.0
        ),
    }
    for layer in range(settings["n_layers"]):
        state |= _layer(draw, f"transformer.layers.{layer}", width)
    return _save(path, state, settings)


def write_codec(path: Path, settings: dict[str, Any], seed: int = 0) -> Path:
    """codec.pth: LAC."""
    draw, state = _Draw(seed), dict[str, torch.Tensor]()

    def conv(name: str, *shape: int) -> None:
        state[f"{name}.weight_v"] = 0.4 * draw(*shape)  # so that sums of branches stay of order one
        norm = state[f"{name}.weight_v"].flatten(1).norm(dim=1)
        state[f"{name}.weight_g"] = norm.reshape(-1, *(1 for _ in shape[1:]))
        transposed = ".block.1" in name and name.startswith("decoder") and "layer" not in name
        state[f"{name}.bias"] = draw(shape[1] if transposed else shape[0], scale=0.01)

    def snake(name: str, width: int) -> None:
        state[f"{name}.alpha"] = 1 + draw(1, width, 1, scale=0.1).abs()

    width = settings["encoder_dim"]
    conv("encoder.block.0", width, 1, 7)
    for index, rate in enumerate(settings["encoder_rates"], 1):
        block = f"encoder.block.{index}.block"
        for unit in range(3):
            snake(f"{block}.{unit}.block.0", width)
            conv(f"{block}.{unit}.block.1", width, width, 7)
            snake(f"{block}.{unit}.block.2", width)
            conv(f"{block}.{unit}.block.3", width, width, 1)
        snake(f"{block}.3", width)
        conv(f"{block}.4", 2 * width, width, 2 * rate)
        width *= 2
    last = len(settings["encoder_rates"]) + 1
    snake(f"encoder.block.{last}", width)
    conv(f"encoder.block.{last + 1}", width, width, 3)
    for book in range(settings["n_codebooks"]):
        quantizer, dim = f"quantizer.quantizers.{book}", settings["codebook_dim"]
        conv(f"{quantizer}.in_proj", dim, width, 1)
        conv(f"{quantizer}.out_proj", width, dim, 1)
        state[f"{quantizer}.codebook.weight"] = draw(settings["codebook_size"], dim, scale=1.0)
    _decoder(settings, width, conv, snake)
    return _save(path, state, settings)


def write_checkpoints(
    folder: Path,
    codec: dict[str, Any] = FULL_CODEC,
    coarse: dict[str, Any] = FULL_COARSE,
    fine: dict[str, Any] = FULL_FINE,
) -> Path:
    """A folder of all three; the published geometry unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    write_codec(folder / "codec.pth", codec, seed=1)
    write_network(folder / "coarse.pth", coarse, seed=2)
    write_network(folder / "c2f.pth", fine, seed=3)
    return folder


class _Draw:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float | None = None) -> torch.Tensor:
        """Normal numbers; without a scale such that a product with them keeps its size."""
        values = torch.randn(shape, generator=self.generator)
        return values * (scale if scale is not None else 1 / math.sqrt(math.prod(shape[1:])))


def _layer(draw: _Draw, name: str, width: int) -> dict[str, torch.Tensor]:
    shapes = {
        "self_attn.w_qs": (width, width),
        "self_attn.w_ks": (width, width),
        "self_attn.w_vs": (width, width),
        "self_attn.fc": (width, width),
        "feed_forward.w_1": (4 * width, width),
        "feed_forward.w_2": (width, 2 * width),
    }
    state = {
        f"{name}.norm_1.weight": 1 + draw(width, scale=0.1),
        f"{name}.norm_3.weight": 1 + draw(width, scale=0.1),
    }
    for part, (rows, columns) in shapes.items():
        state[f"{name}.{part}.weight"] = draw(rows, columns)
        if part != "self_attn.w_ks":
            state[f"{name}.{part}.lora_A"] = draw(8, columns)
            state[f"{name}.{part}.lora_B"] = draw(rows, 8, scale=0.1)
    return state


def _decoder(settings: dict[str, Any], latent: int, conv: Any, snake: Any) -> None:
    width = settings["decoder_dim"]
    conv("decoder.model.0", width, latent, 7)
    for index, rate in enumerate(settings["decoder_rates"], 1):
        block = f"decoder.model.{index}.block"
        snake(f"{block}.0", width)
        conv(f"{block}.1", width, width // 2, 2 * rate)
        width //= 2
        for branch, kernel in enumerate((3, 7, 11)):
            for unit in range(3):
                layer = f"{block}.2.mrf_blocks.{branch}.block.{unit}.layer"
                snake(f"{layer}.0", width)
                conv(f"{layer}.1", width, width, kernel)
                snake(f"{layer}.2", width)
                conv(f"{layer}.3", width, width, kernel)
    last = len(settings["decoder_rates"]) + 1
    snake(f"decoder.model.{last}", width)
    conv(f"decoder.model.{last + 1}", 1, width, 7)


def _save(path: Path, state: dict[str, torch.Tensor], settings: dict[str, Any]) -> Path:
    torch.save({"state_dict": state, "metadata": {"kwargs": settings}}, path)
    return path
