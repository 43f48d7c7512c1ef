"""Training of VampNet's low-rank updates against three steps of the original's own training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_onnx.exporter import adapted, model, weights

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = FIXTURES / "vampnet" / "small"


@cache
def stored() -> Any:
    return np.load(FIXTURES / "lora" / "vampnet_train.npz")


@cache
def vectors() -> Any:
    return weights.load_codec(SMALL / "codec.pth", "numpy").codebook_vectors()


def network(dropout: float = 0.0) -> model.VampNet:
    return adapted.adapted(*weights.load_apart(SMALL / "coarse.pth", vectors()), dropout=dropout)


def close(found: dict[str, torch.Tensor], what: str) -> None:
    arrays = stored()
    names = [key for key in arrays.files if key.startswith(f"{what}:")]
    assert {name.partition(":")[2] for name in names} == set(found)
    for name in names:
        made, within = found[name.partition(":")[2]].numpy(), 1e-4 * np.abs(arrays[name]).max()
        np.testing.assert_allclose(made, arrays[name], rtol=0, atol=min(within, 1e-5))


def test_three_steps_of_the_originals():
    arrays, net = stored(), network()
    learned = dict(adapted.factors(net))
    codes = torch.from_numpy(arrays["codes"])[:, : net.config.codebooks]
    optimiser = torch.optim.AdamW(learned.values(), lr=1e-4)
    for step in range(3):
        rate = adapted.noam(step + 1, net.config.width)
        np.testing.assert_allclose(rate, arrays["learning_rates"][step], rtol=1e-9)
        optimiser.param_groups[0]["lr"] = rate
        mask = torch.from_numpy(arrays[f"step{step}_mask"]).bool()
        if step == 0:
            hidden = codes.masked_fill(mask, net.config.codebook_size)
            np.testing.assert_array_equal(hidden.numpy(), arrays["step0_z_mask"])
            made = net(hidden).detach().permute(0, 3, 2, 1).flatten(2)  # (B, P, T, N) -> (B, N, T * P)
            np.testing.assert_allclose(made.numpy(), arrays["step0_logits"], rtol=0, atol=1e-4)
        loss = adapted.loss(net, codes, mask)
        np.testing.assert_allclose(loss.item(), arrays["losses"][step], rtol=1e-5)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            close({name: value.grad for name, value in learned.items()}, "step0_grad")
        norm = torch.nn.utils.clip_grad_norm_(learned.values(), adapted.CLIP)
        np.testing.assert_allclose(norm.item(), arrays["grad_norms"][step], rtol=1e-4)
        optimiser.step()
    # What is stored as of after the first step, too, is of after the third.
    for when in ("step0_after", "step2_after"):
        close({name: value.detach() for name, value in learned.items()}, when)


def test_only_updates_learn_and_dropout_acts():
    net = network(dropout=0.5)
    learning = {name for name, value in net.named_parameters() if value.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    codes = torch.from_numpy(stored()["codes"])[:, : net.config.codebooks]
    assert not torch.equal(net(codes), net(codes))
    assert torch.equal(net.eval()(codes), net(codes))


def test_what_is_written_is_read(tmp_path: Path):
    net = network()
    with torch.no_grad():
        for _, value in adapted.factors(net):
            value.add_(0.1)
    adapted.save(net, tmp_path / "lora.pth")
    upstream = torch.load(SMALL / "coarse_lora.pth", weights_only=True)
    ours = torch.load(tmp_path / "lora.pth", weights_only=True)
    assert set(ours) == set(upstream)
    merged = model.build(weights.load(SMALL / "coarse.pth", vectors(), tmp_path / "lora.pth"))
    codes = torch.from_numpy(stored()["codes"])[:, : net.config.codebooks]
    with torch.inference_mode():
        np.testing.assert_allclose(merged(codes).numpy(), net.eval()(codes).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("given", [0, 1])
def test_masks(given: int):
    codes, rng = torch.zeros(2000, 2, 5, dtype=torch.long), torch.Generator().manual_seed(0)
    mask = adapted.masked(torch.tensor([0.0, 1.0, 0.5] * 666 + [0.5, 0.5]), codes, given, rng)
    assert mask[0::3][:600, given:].all() and not mask[1::3][:600].any() and not mask[:, :given].any()
    share = mask[2::3][:600, given:].float().mean().item()
    assert abs(share - np.cos(np.pi / 4)) < 0.02
