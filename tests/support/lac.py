"""LAC and DAC checkpoints with random weights, as audiotools saves them: the originals' names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

TINY: dict[str, Any] = {
    "encoder_dim": 4,
    "encoder_rates": [2, 4],
    "decoder_dim": 16,
    "decoder_rates": [4, 2],
    "n_codebooks": 5,
    "codebook_size": 48,
    "codebook_dim": 4,
    "quantizer_dropout": False,
    "sample_rate": 16000,
}
FULL: dict[str, Any] = TINY | {
    "encoder_dim": 64,
    "encoder_rates": [2, 6, 8, 8],
    "decoder_dim": 1536,
    "decoder_rates": [6, 4, 4, 2, 2, 2],
    "n_codebooks": 14,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "sample_rate": 44100,
}
"""The geometry of VampNet's codec."""

Shape = tuple[int, ...]


def shapes(kwargs: dict[str, Any], family: str = "lac") -> dict[str, Shape]:
    """Name -> shape of every tensor of the original."""
    return dict([*_encoder(kwargs), *_quantizer(kwargs), *_decoder(kwargs, family)])


def state(kwargs: dict[str, Any], family: str = "lac", *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under which activations keep their size."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes(kwargs, family).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("alpha"):
            values = np.abs(values) + 0.5
        elif name.endswith("bias"):
            values *= 0.02
        elif name.endswith("weight_g"):
            # of 2 s taps of a transposed convolution two meet in a sample
            values = 0.7 + 0.1 * values
        made[name] = torch.tensor(values)
    return made


def save(path: Path, kwargs: dict[str, Any], family: str = "lac", *, seed: int = 0, **changed: Any) -> Path:
    """A checkpoint; `changed` replaces tensors by name or, as `kwargs`, the settings written."""
    written = changed.pop("written", kwargs)
    torch.save(
        {
            "state_dict": {**state(kwargs, family, seed=seed), **changed.pop("tensors", {})},
            "metadata": {"kwargs": written, "logs": {}},
        },
        path,
    )
    return path


def _conv(name: str, *shape: int) -> Iterator[tuple[str, Shape]]:
    """A weight-normalised convolution; the gain goes with the first axis, also where it is transposed."""
    yield f"{name}.weight_g", (shape[0], 1, 1)
    yield f"{name}.weight_v", shape


def _plain(name: str, outputs: int, inputs: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    yield from _conv(name, outputs, inputs, kernel)
    yield f"{name}.bias", (outputs,)


def _snake(name: str, width: int) -> tuple[str, Shape]:
    return f"{name}.alpha", (1, width, 1)


def _unit(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield _snake(f"{name}.block.0", width)
    yield from _plain(f"{name}.block.1", width, width, 7)
    yield _snake(f"{name}.block.2", width)
    yield from _plain(f"{name}.block.3", width, width, 1)


def _encoder(kwargs: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    width, rates = kwargs["encoder_dim"], kwargs["encoder_rates"]
    yield from _plain("encoder.block.0", width, 1, 7)
    for i, rate in enumerate(rates, 1):
        for unit in range(3):
            yield from _unit(f"encoder.block.{i}.block.{unit}", width)
        yield _snake(f"encoder.block.{i}.block.3", width)
        yield from _plain(f"encoder.block.{i}.block.4", 2 * width, width, 2 * rate)
        width *= 2
    yield _snake(f"encoder.block.{len(rates) + 1}", width)
    yield from _plain(f"encoder.block.{len(rates) + 2}", _latent(kwargs), width, 3)


def _quantizer(kwargs: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    small, books, wide = kwargs["codebook_dim"], kwargs["n_codebooks"], _latent(kwargs)
    for q, width in enumerate(small if isinstance(small, list) else [small] * books):
        name = f"quantizer.quantizers.{q}"
        yield from _plain(f"{name}.in_proj", width, wide, 1)
        yield from _plain(f"{name}.out_proj", wide, width, 1)
        yield f"{name}.codebook.weight", (kwargs["codebook_size"], width)


def _decoder(kwargs: dict[str, Any], family: str) -> Iterator[tuple[str, Shape]]:
    width, rates = kwargs["decoder_dim"], kwargs["decoder_rates"]
    yield from _plain("decoder.model.0", width, _latent(kwargs), 7)
    for i, rate in enumerate(rates, 1):
        name = f"decoder.model.{i}.block"
        yield _snake(f"{name}.0", width)
        yield from _conv(f"{name}.1", width, width // 2, 2 * rate)
        width //= 2
        yield f"{name}.1.bias", (width,)
        if family == "dac":
            for unit in range(3):
                yield from _unit(f"{name}.{unit + 2}", width)
            continue
        for m, kernel in enumerate((3, 7, 11)):
            for j in range(3):
                layer = f"{name}.2.mrf_blocks.{m}.block.{j}.layer"
                for at in (0, 2):
                    yield _snake(f"{layer}.{at}", width)
                    yield from _plain(f"{layer}.{at + 1}", width, width, kernel)
    yield _snake(f"decoder.model.{len(rates) + 1}", width)
    yield from _plain(f"decoder.model.{len(rates) + 2}", 1, width, 7)


def _latent(kwargs: dict[str, Any]) -> int:
    return int(kwargs.get("latent_dim") or kwargs["encoder_dim"] * 2 ** len(kwargs["encoder_rates"]))


def hop_length(kwargs: dict[str, Any]) -> int:
    return math.prod(kwargs["decoder_rates"])
