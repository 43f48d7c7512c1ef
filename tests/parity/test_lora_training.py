"""LoRA training of MusicGen against peft and torch: losses, gradients and factors of four recorded runs."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from audiogen_core import lora
from audiogen_mlx.musicgen import adapted
from audiogen_mlx.musicgen.adapted import Adapted, Batch, Factors
from audiogen_mlx.musicgen.generate import MusicGen

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "lora"
MODELS = FIXTURES / "musicgen"
RUNS = ["qv_zero", "all", "audiocraft", "dora"]


@cache
def stored() -> Any:
    return np.load(FOLDER / "train.npz")


@cache
def music() -> MusicGen:
    return MusicGen.load(MODELS / "musicgen-mono", tokenizer=MODELS / "tokenizer")


def batch(steps: int | None = None) -> Batch:
    """The recorded clips; of audiocraft's targets only the first `steps` steps."""
    arrays, model = stored(), music()
    vectors = np.array(model._parts.t5(mx.array(arrays["input_ids"]), mx.array(arrays["attention_mask"])))
    codes = [
        clip[:, : int(valid.sum())].astype(np.int32)
        for clip, valid in zip(arrays["codes"], arrays["valid_frames"], strict=True)
    ]
    made = adapted.batch(model.config, codes, list(vectors))
    if steps is None:
        return made
    return Batch(made.tokens[:, :, :steps], made.targets[:, :, :steps], made.text, made.mask, made.told)


def test_tokens_and_targets():
    arrays, made = stored(), batch()
    np.testing.assert_array_equal(np.array(made.tokens), arrays["decoder_input_full"])
    labels = arrays["labels_full"].transpose(0, 2, 1)
    expected = np.where(labels == -100, music().config.special, labels)
    np.testing.assert_array_equal(np.array(made.targets), expected)


@pytest.mark.parametrize(("name", "steps"), [("full", None), ("valid", 14)])
def test_loss_without_an_adapter(name: str, steps: int | None):
    model = Adapted(music()._parts.transformer, {})
    np.testing.assert_allclose(model.loss({}, batch(steps)).item(), stored()[f"base_loss_{name}"], rtol=1e-6)


def flat(factors: Factors) -> dict[str, np.ndarray]:
    return {
        f"{module}.{leaf}": np.array(array) for module, own in factors.items() for leaf, array in own.items()
    }


def close(made: Factors, run: str, what: str) -> None:
    """All factors, by peft's names."""
    arrays, found = stored(), flat(made)
    names = {key.partition(":")[2] for key in arrays.files if key.startswith(f"{run}_{what}:")}
    assert {name.removesuffix(".weight") for name in names} == set(found)
    for name in names:
        expected = arrays[f"{run}_{what}:{name}"]
        np.testing.assert_allclose(
            found[name.removesuffix(".weight")].reshape(expected.shape),
            expected,
            rtol=0,
            atol=1e-4,
            err_msg=name,
        )


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_run(run: str, checkpoint: bool):
    arrays, settings = stored(), json.loads(str(stored()[f"{run}_settings"]))
    factors, scales = adapted.begun(lora.read(lora.Asked(FOLDER / settings["init"])))
    model = Adapted(music()._parts.transformer, scales, checkpoint=checkpoint)
    given = batch(None if settings["labels"] == "labels_full" else 14)
    optimiser = optim.AdamW(
        settings["lr"],
        betas=settings["betas"],
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        bias_correction=True,
    )
    step = mx.value_and_grad(partial(model.loss, given=given))
    losses = []
    for index in range(5):
        loss, gradients = step(factors)
        losses.append(loss.item())
        clipped, norm = optim.clip_grad_norm(gradients, settings["max_norm"] or float("inf"))
        np.testing.assert_allclose(norm.item(), arrays[f"{run}_grad_norms"][index], rtol=1e-4)
        gradients = clipped if settings["max_norm"] else gradients
        if index == 0:
            close(gradients, run, "grad")  # where gradients are clipped, as they are then
        factors = optimiser.apply_gradients(gradients, factors)
        mx.eval(factors, optimiser.state)
    losses.append(model.loss(factors, given).item())
    np.testing.assert_allclose(losses, arrays[f"{run}_losses"], rtol=1e-5)
    close(factors, run, "after")
