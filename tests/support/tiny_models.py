"""Small GPTs whose weights are all drawn, so that their logits are far from equal."""

from __future__ import annotations

from typing import Any

import torch

from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.model import GPT

VARIANTS = [
    (preset, layout) for preset in ("gpt2", "modern") for layout in ("first", "delay", "parallel", "flatten")
]


def tiny_config(preset: str = "modern", layout: str = "delay", **changes: Any) -> ModelConfig:
    """Two layers of 32 over 24 steps."""
    table: dict[str, Any] = {"layers": 2, "heads": 2, "width": 32, "context": 24, "codebook_size": 16}
    codebooks = 1 if layout == "first" else 4
    return ModelConfig(**{**table, "preset": preset, "layout": layout, "codebooks": codebooks, **changes})


def tiny_model(config: ModelConfig, seed: int = 0, std: float = 0.3) -> GPT:
    """A model in eval mode with every weight drawn from a normal distribution."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.endswith("ln_1.weight"):
                    parameter.normal_(std=std)
    return model


def some_codes(config: ModelConfig, frames: int, rows: int = 2, seed: int = 0) -> torch.Tensor:
    """Codes (rows, frames, K) with a BOS frame among them."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(config.codebook_size, (rows, frames, config.codebooks), generator=generator)
    codes[:, frames // 3] = config.codebook_size
    return codes
