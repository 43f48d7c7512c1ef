"""VampNet's networks against the original's outputs on small random checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_onnx.exporter import model, weights

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vampnet"
CASES = [("small", "coarse"), ("small", "c2f"), ("big", "coarse"), ("big", "c2f")]


def network(size: str, name: str, lora: Path | str | None = None) -> model.VampNet:
    vectors = weights.load_codec(FIXTURES / size / "codec.pth", "numpy").codebook_vectors()
    return model.build(weights.load(FIXTURES / size / f"{name}.pth", vectors, lora))


def stored(size: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{size}_transformer.npz") as arrays:
        return dict(arrays)


def lengths(arrays: dict[str, np.ndarray], name: str) -> list[int]:
    ends = [key.split("_")[1] for key in arrays if key.startswith(f"{name}_T") and key.endswith("_codes")]
    return sorted(int(end[1:]) for end in ends)


def flat(logits: torch.Tensor) -> np.ndarray:
    """(B, P, T, N) as the original orders them: (B, N, T*P)."""
    return logits.permute(0, 3, 2, 1).flatten(2).numpy()


@torch.inference_mode()
@pytest.mark.parametrize(("size", "name"), CASES)
def test_latents_layers_and_logits(size, name):
    arrays, net = stored(size), network(size, name)
    assert any(key.startswith(name) and key.endswith("_acts") for key in arrays)
    for length in lengths(arrays, name):
        key = f"{name}_T{length}"
        codes = torch.from_numpy(arrays[f"{key}_codes"])
        latents = net.embedding.latents(codes).transpose(1, 2).numpy()
        np.testing.assert_array_equal(latents, arrays[f"{key}_latents"])
        if f"{key}_acts" in arrays:  # stored for short clips
            streams = torch.stack(net.residuals(codes)).numpy()
            np.testing.assert_allclose(streams, arrays[f"{key}_acts"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(flat(net(codes)), arrays[f"{key}_logits"], rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("size", ["small", "big"])
def test_a_low_rank_update_replaces_the_checkpoints_own(size):
    arrays = stored(size)
    codes = torch.from_numpy(arrays["lora_codes"])
    base, changed = network(size, "coarse"), network(size, "coarse", FIXTURES / size / "coarse_lora.pth")
    np.testing.assert_allclose(flat(base(codes)), arrays["base_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(flat(changed(codes)), arrays["lora_logits"], rtol=0, atol=1e-4)
    assert np.abs(arrays["lora_logits"] - arrays["base_logits"]).max() > 1e-2


@pytest.mark.parametrize("size", ["small", "big"])
def test_a_low_rank_update_acts_as_strongly_as_is_asked(size):
    path = FIXTURES / size / "coarse_lora.pth"
    base, whole = (dict(network(size, "coarse", lora).named_parameters()) for lora in (None, path))
    for strength in (0.0, 0.5, 2.0):
        made = dict(network(size, "coarse", f"{path}:{strength}").named_parameters())
        for name, values in made.items():
            expected = base[name] + strength * (whole[name] - base[name])
            np.testing.assert_allclose(values.numpy(), expected.numpy(), rtol=0, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("size", ["small", "big"])
def test_position_buckets_and_bias(size):
    arrays, net = stored(size), network(size, "coarse")
    buckets = net.position_bias.bucket(torch.from_numpy(arrays["relpos"]))
    np.testing.assert_array_equal(buckets.numpy(), arrays["relpos_bucket"])
    bias = net.position_bias(arrays["position_bias"].shape[-1])
    np.testing.assert_array_equal(bias[:, None].numpy(), arrays["position_bias"])
