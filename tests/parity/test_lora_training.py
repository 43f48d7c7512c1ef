"""LoRA training of MusicGen against peft and torch: losses, gradients and factors of four recorded runs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from audiogen_core import lora
from audiogen_core.musicgen.conditioning import Rows
from audiogen_core.musicgen.melody import repeated
from audiogen_mlx.musicgen import adapted
from audiogen_mlx.musicgen.adapted import Adapted, Batch, Factors
from audiogen_mlx.musicgen.generate import MusicGen
from audiogen_mlx.musicgen.kinds import Device, Host, Kind

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "lora"
MODELS = FIXTURES / "musicgen"
RUNS = ["qv_zero", "all", "audiocraft", "dora"]


@cache
def stored() -> Any:
    return np.load(FOLDER / "train.npz")


@cache
def music(name: str = "mono", *loras: str) -> MusicGen:
    return MusicGen.load(MODELS / f"musicgen-{name}", tokenizer=MODELS / "tokenizer", lora=list(loras))


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
    np.testing.assert_allclose(model.loss({}, batch(steps)), stored()[f"base_loss_{name}"], rtol=1e-6)


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


@pytest.mark.parametrize(
    ("kind", "checkpoint"), [(Host(), False), (Host(), True), (Device(mx.float32), False)]
)
@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_run(run: str, kind: Kind, checkpoint: bool):
    arrays, settings = stored(), json.loads(str(stored()[f"{run}_settings"]))
    factors, scales = adapted.begun(lora.read(lora.Asked(FOLDER / settings["init"])))
    model = Adapted(music()._parts.transformer, scales, checkpoint=checkpoint)
    model.kind = kind
    given = batch(None if settings["labels"] == "labels_full" else 14)
    optimiser = optim.AdamW(
        settings["lr"],
        betas=settings["betas"],
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        bias_correction=True,
    )
    losses = []
    for index in range(5):
        loss, gradients = model.gradients(factors, given)
        losses.append(loss)
        clipped, norm = optim.clip_grad_norm(gradients, settings["max_norm"] or float("inf"))
        np.testing.assert_allclose(norm.item(), arrays[f"{run}_grad_norms"][index], rtol=1e-4)
        gradients = clipped if settings["max_norm"] else gradients
        if index == 0:
            close(gradients, run, "grad")  # where gradients are clipped, as they are then
        factors = optimiser.apply_gradients(gradients, factors)
        mx.eval(factors, optimiser.state)
    losses.append(model.loss(factors, given))
    np.testing.assert_allclose(losses, arrays[f"{run}_losses"], rtol=1e-5)
    close(factors, run, "after")


def told(name: str, base: str = "melody") -> tuple[Adapted, Factors, Batch]:
    """A model beside which an adapter of the fixtures is learned, and two clips with texts of two lengths."""
    arrays, model = np.load(FOLDER / f"{base}.npz"), music(base)
    factors, scales = adapted.begun(lora.read(lora.Asked(FOLDER / base / name)))
    parts = model._parts
    mask = arrays["attention_mask"].astype(bool)
    assert mask.sum(axis=1).tolist() != [mask.shape[1]] * 2
    vectors = np.array(parts.t5(mx.array(arrays["input_ids"]), mx.array(mask)))
    texts = [own[real] for own, real in zip(vectors, mask, strict=True)]
    codes = [own.astype(np.int32) for own in stored()["codes"]]
    clips = None
    if base == "melody":
        heard = [repeated(each, model.config.melody_frames) for each in arrays["input_features"]]
        clips = [np.array(parts.transformer.project_melody(mx.array(each))) for each in heard]
    given = adapted.batch(model.config, codes, texts, [True, True], clips)
    return Adapted(parts.transformer, scales), factors, given


@pytest.mark.parametrize("kind", [Host(), Device(mx.float32)])
@pytest.mark.parametrize("name", ["qv", "dora"])
def test_beside_a_model_that_follows_a_melody(name: str, kind: Kind):
    """Logits are those of the model that the adapter was merged into, whatever the other text's length is."""
    model, factors, given = told(name)
    model.kind = kind
    made = model.logits(factors, given)
    network = music("melody", str(FOLDER / "melody" / name))._parts.transformer
    assert given.clip is not None
    for index, real in enumerate(given.mask):
        text = network.project_text(mx.array(given.text[index : index + 1][:, real]))
        rows = Rows(1, prefix=mx.concatenate([mx.array(given.clip[index : index + 1]), text], axis=1))
        tokens = mx.array(given.tokens[index : index + 1])
        expected = np.array(network(tokens, network.run(rows, tokens.shape[2])))
        np.testing.assert_allclose(made[index], expected[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [Host(), Device(mx.float32)])
@pytest.mark.parametrize(("base", "name"), [("mono", "dreambooth"), ("melody", "qv"), ("melody", "dora")])
def test_gradients_are_slopes(base: str, name: str, kind: Kind):
    """Of every kind of matrix, in a direction of its own: what the loss does a little way to either side."""
    model, factors, given = told(name, base)
    model.kind = kind
    given = replace(given, told=np.array([True, False]))
    _, gradients = model.gradients(factors, given)
    rng = np.random.default_rng(0)
    modules = {module.split(".layers.")[0] + module[-8:]: module for module in factors}
    for module in modules.values():
        for leaf, array in factors[module].items():
            if leaf == "lora_magnitude_vector" or "lora_magnitude_vector" not in factors[module]:
                way = rng.standard_normal(array.shape).astype(np.float32)
                way *= 0.02 / np.abs(way).max()
                ends = [
                    model.loss(
                        {**factors, module: {**factors[module], leaf: array + sign * mx.array(way)}}, given
                    )
                    for sign in (1, -1)
                ]
                slope = float((np.array(gradients[module][leaf]) * way).sum())
                assert (ends[0] - ends[1]) / 2 == pytest.approx(slope, rel=0.03, abs=3e-6), (module, leaf)


@pytest.mark.parametrize("kind", [Host(), Device(mx.float32)])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("learned", [".layers.1.", "lm_heads", ".layers.1.fc2"])
def test_what_lies_below_all_that_is_learned_changes_nothing(learned: str, checkpoint: bool, kind: Kind):
    """No gradients are worked out there: those above are as where all modules learn."""
    network, given = music()._parts.transformer, batch()
    modules = [*adapted.targeted(music().config, ["all", "lm_heads.0"])]
    factors, rng = adapted.fresh(network, modules, 2, 0), np.random.default_rng(0)
    some = {name: own for name, own in factors.items() if learned in name}
    for own in some.values():
        own["lora_B"] = mx.array(rng.normal(0, 0.05, own["lora_B"].shape).astype(np.float32))
    assert 0 < len(some) < len(factors)
    whole, part = (
        Adapted(network, dict.fromkeys(each, 1.0), checkpoint=checkpoint) for each in (factors, some)
    )
    whole.kind = part.kind = kind
    loss, gradients = whole.gradients(factors, given)
    found_loss, found = part.gradients(some, given)
    assert found.keys() == some.keys() and found_loss == pytest.approx(loss, rel=1e-6)
    for name, own in found.items():
        for leaf, gradient in own.items():
            expected = np.array(gradients[name][leaf])
            assert np.abs(expected).max() > 1e-6
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 + 1e-5 * np.abs(expected).max())
