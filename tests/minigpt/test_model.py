"""The GPT: its loss against the plain formula, its fast paths against the slow ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from audiogen_minigpt import kernels
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.model import GPT
from support.tiny_models import VARIANTS, some_codes, tiny_config, tiny_model


def plain_sums(model: GPT, inputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The summed loss of each codebook by the textbook, from the logits."""
    config = model.config
    local = torch.where(mask, targets % config.codebook_size, -100)
    losses = F.cross_entropy(model(inputs).flatten(0, 2), local.flatten(), reduction="none").view(local.shape)
    if config.layout != "flatten":
        return losses.sum(dim=(0, 1))
    due = (torch.arange(losses.shape[1]) + 1) % config.codebooks
    return torch.stack([losses[:, due == book].sum() for book in range(config.codebooks)])


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sliced_loss_is_the_plain_one(
    preset: str, layout: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "SLICE", 200)
    config = tiny_config(preset, layout)
    model = tiny_model(config)
    batch = model.layout.apply(some_codes(config, model.layout.window(config.context)))
    weights = torch.arange(1.0, config.codebooks + 1) if weighted else torch.ones(config.codebooks)
    sums, counts = model.loss_sums(*batch)
    (sums * weights).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = plain_sums(model, *batch)
    (expected * weights).sum().backward()
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-4)
    assert int(counts.sum()) == int(batch[2].sum())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
    mean, per_codebook = model.loss(*batch)
    torch.testing.assert_close(mean, expected.sum() / counts.sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(per_codebook, expected.detach() / counts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
def test_no_step_sees_a_later_one(preset: str, layout: str) -> None:
    config = tiny_config(preset, layout)
    model = tiny_model(config)
    tokens = model.layout.tokens(some_codes(config, 6))[:, : config.context]
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % config.codebook_size
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_a_new_model_knows_nothing(preset: str) -> None:
    config = tiny_config(preset)
    model = GPT(config)
    loss, _ = model.loss(*model.layout.apply(some_codes(config, 20)))
    assert loss.item() == pytest.approx(
        math.log(config.codebook_size), abs=0.05 if preset == "gpt2" else 1e-5
    )


@pytest.mark.parametrize(("preset", "layout"), VARIANTS)
def test_training_in_bfloat16_learns(preset: str, layout: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(preset, layout, context=64, dropout=0.1)
    model = GPT(config)
    batch = model.layout.apply(some_codes(config, model.layout.window(64)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model.loss(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_initial_weights_are_those_of_gpt2() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig.seed_preset())
    assert model.parameter_count() == pytest.approx(5.53e6, rel=0.002)
    scale = 0.02 / math.sqrt(2 * 6)
    for block in model.blocks:
        assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert block.mlp.c_proj.weight.std().item() == pytest.approx(scale, rel=0.02)
    assert model.head_weight.data_ptr() == model.wte.weight.data_ptr()


def test_flops_of_the_shape_of_gpt2() -> None:
    model = GPT(ModelConfig.size("base", layers=1))
    per_layer = 6 * 12 * 768**2 + 12 * 768 * 2048
    assert model.flops_per_token() == per_layer + 6 * 8 * 1024 * 768
    assert model.flops_per_token(1024) == model.flops_per_token() - 12 * 768 * 1024


@pytest.mark.parametrize("steps", [256, 300, 513])
@pytest.mark.parametrize("rows", [(1, 2), (3, 7)])
def test_blocked_attention_agrees_with_float32(steps: int, rows: tuple[int, int]) -> None:
    torch.manual_seed(0)
    q, k, v, upstream = (torch.randn(*rows, steps, 16) for _ in range(4))
    exact = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*exact, is_causal=True)
    expected.backward(upstream)
    short = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    found = kernels.causal_attention(*short)
    assert "_Blocked" in type(found.grad_fn.next_functions[0][0]).__name__  # type: ignore[union-attr]
    found.backward(upstream.bfloat16())
    assert distance(found, expected) < 0.01
    for mine, theirs in zip(short, exact, strict=True):
        assert distance(mine.grad, theirs.grad) < 0.02  # type: ignore[arg-type]


def test_attention_beyond_the_limit_uses_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "KEPT_LIMIT", 1000)
    q = torch.randn(1, 1, 256, 8, dtype=torch.bfloat16, requires_grad=True)
    out = kernels.causal_attention(q, q, q)
    assert "Flash" in type(out.grad_fn).__name__


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


def test_the_modern_functions_have_the_right_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    rope = kernels.rope_table(5, 8).double()
    assert torch.autograd.gradcheck(kernels.rms_norm, x)
    assert torch.autograd.gradcheck(lambda value: kernels.rotate(value, rope), x)
    assert torch.autograd.gradcheck(kernels.squared_relu, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_modern_functions_agree_with_their_formulas(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8).to(dtype)
    rope = kernels.rope_table(5, 8)
    calls = (kernels.rms_norm, lambda value: kernels.rotate(value, rope), kernels.squared_relu)
    found = [call(x) for call in calls]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for mine, call in zip(found, calls, strict=True):
        torch.testing.assert_close(mine, call(x), rtol=0.02, atol=0.02 if dtype == torch.bfloat16 else 1e-6)


def test_rotation_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    rope = kernels.rope_table(20, 8)
    q, k = torch.randn(8), torch.randn(8)
    turned_q, turned_k = (kernels.rotate(x.expand(20, 8), rope) for x in (q, k))
    products = turned_q @ turned_k.T
    torch.testing.assert_close(products.diagonal(3), products[0, 3].expand(17), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_one_graph_without_breaks(preset: str) -> None:
    config = tiny_config(preset)
    model = tiny_model(config)
    batch = model.layout.apply(some_codes(config, 12))
    compiled = torch.compile(model.loss_sums, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch)[0], model.loss_sums(*batch)[0], rtol=1e-5, atol=1e-4)
