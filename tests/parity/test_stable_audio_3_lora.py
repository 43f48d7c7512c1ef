"""LoRAs of Stable Audio 3 against the original: kinds, strengths, several at once, intervals, filters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from audiogen_core.errors import OptionError, WeightsError
from audiogen_mlx.stable_audio_3 import StableAudio3
from audiogen_mlx.stable_audio_3.lora import SUFFIX, Asked, Lora

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio-3"
FILES = FIXTURES / "loras"
KINDS = ["lora", "dora-rows", "dora-cols", "bora", "lora-xs", "dora-rows-xs", "dora-cols-xs", "bora-xs"]
STACKS = {
    "stack_lora_dora_rows": ("lora=1", "dora-rows=0.5"),
    "stack_dora_cols_xs_lora": ("dora-cols-xs=0.7", "lora=1"),
    "stack_lora_xs_bora": ("lora-xs=1", "bora=1"),
    "stack_lora_bora_xs": ("lora=0.5", "bora-xs=1"),
}


@cache
def stored() -> Any:
    return np.load(FIXTURES / "lora.npz")


def load(*files: str, **more: Any) -> StableAudio3:
    """The small model with files of that name, each followed by =STRENGTH or nothing."""
    pairs = [each.partition("=") for each in files]
    names = tuple(f"{FILES / name}.safetensors{sign}{strength}" for name, sign, strength in pairs)
    return StableAudio3.load(FIXTURES / "tiny-small", lora=names, low_memory=False, **more)


def output(made: StableAudio3) -> np.ndarray:
    """One pass for the first prompt, 1.3 s, at t = 0.6."""
    arrays, parts = stored(), made._parts
    (conditions,) = parts.condition(["warm lofi house loop with dusty drums, 120 BPM"], [1.3])
    dit = parts.dit(0.6)
    run = dit.condition(conditions.tokens, conditions.global_, 11, local=mx.array(arrays["local"]))
    return np.array(dit(mx.array(arrays["x"]), 0.6, run))


def agree(made: Any, expected: np.ndarray, within: float) -> None:
    np.testing.assert_allclose(np.array(made), expected, rtol=0, atol=within)


def test_without():
    made = StableAudio3.load(FIXTURES / "tiny-small", low_memory=False)
    agree(output(made), stored()["base_out"], 1e-4)
    agree(made._parts.embedders.seconds([1.3])[None], stored()["base_seconds"], 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind):
    name, within = kind.replace("-", "_"), 5e-4 if kind.endswith("xs") else 2e-4
    made = load(kind)
    agree(output(made), stored()[f"{name}_out1p0"], within)
    agree(made._parts.embedders.seconds([1.3])[None], stored()[f"{name}_seconds1p0"], 1e-4)
    dit, weight = made._parts.dit(0.6), 1e-4 if kind.endswith("xs") else 1e-5
    agree(dit.layers[0].self_attn.qkv.weight[:24], stored()[f"{name}_to_qkv"], weight)
    agree(dit.preprocess.weight[..., None], stored()[f"{name}_preprocess_conv"], weight)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_is_of_the_change_and_nothing_is_left_at_zero(kind):
    name, within = kind.replace("-", "_"), 5e-4 if kind.endswith("xs") else 2e-4
    agree(output(load(f"{kind}=0.5")), stored()[f"{name}_out0p5"], within)
    agree(output(load(f"{kind}=0")), stored()[f"{name}_out0p0"], 1e-4)


def test_a_dora_of_before_rows_and_columns_were_told_apart():
    agree(output(load("dora-legacy-cols")), stored()["dora_legacy_cols_out1p0"], 2e-4)


@pytest.mark.parametrize("name", STACKS)
def test_several_one_after_another(name):
    made = load(*STACKS[name])
    agree(output(made), stored()[name], 5e-4)
    agree(made._parts.dit(0.6).layers[0].self_attn.qkv.weight[:24], stored()[f"{name}_to_qkv"], 1e-4)


def test_one_that_covers_what_another_does_not(tmp_path):
    """The original drops it there, looking for it where it is not; so it makes of both what it would make
    without that part of the second, and we do not.
    """
    whole = output(load("part-a", "part-b"))
    agree(whole, stored()["stack_part_a_part_b_full"], 2e-4)
    covered = {name.partition(SUFFIX)[0] for name in load_file(FILES / "part-a.safetensors")}
    second = FILES / "part-b.safetensors"
    kept = {name: array for name, array in load_file(second).items() if name.partition(SUFFIX)[0] in covered}
    with safe_open(second, "np") as file:
        save_file(kept, tmp_path / second.name, file.metadata())
    files = (str(FILES / "part-a.safetensors"), str(tmp_path / second.name))
    cut = output(StableAudio3.load(FIXTURES / "tiny-small", lora=files, low_memory=False))
    agree(cut, stored()["stack_part_a_part_b_upstream"], 2e-4)
    assert np.abs(cut - whole).max() > 1e-3


def test_interval_and_filter():
    made = load("lora", lora_interval=(0.0, 0.5))
    agree(output(made), stored()["interval_off"], 2e-4)
    assert made._parts.dit(0.6) is not made._parts.dit(0.5)
    assert made._parts.dit(0.2) is made._parts.dit(0.5)
    clip = made.generate("a bell", seconds=0.5, steps=4, seed=1)
    whole = load("lora").generate("a bell", seconds=0.5, steps=4, seed=1)
    assert not np.array_equal(clip.samples, whole.samples)
    agree(output(load("lora", lora_off="layers.0, to_global_embed")), stored()["filter"], 2e-4)


def test_what_is_no_lora_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"model.x.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(WeightsError, match="no tensor of a LoRA for Stable Audio 3"):
        Lora.read(Asked(path))
    tensors = load_file(FILES / "lora.safetensors")
    first = next(name for name in tensors if name.endswith("lora_A"))
    save_file({name: array for name, array in tensors.items() if name != first}, path)
    with pytest.raises(WeightsError, match="has lora_B; a lora has lora_A, lora_B"):
        Lora.read(Asked(path))
    save_file(tensors, path, {"lora_config": '{"adapter_type": "loha"}'})
    with pytest.raises(WeightsError, match="the kind 'loha' is not known"):
        Lora.read(Asked(path))
    second = f"{first[:-1]}B"
    a, b = tensors[first].shape, tensors[second].shape
    huge = 1 << 20  # a product that would have four tebibytes
    for shapes in (
        [(4, 7), b],
        [(0, a[1]), (b[0], 0)],
        [(), b],
        [a, (1, b[1])],
        [(a[0], 1), b],
        [(1, huge), (huge, 1)],
    ):
        changed = {
            name: np.zeros(shape, np.float32) for name, shape in zip((first, second), shapes, strict=True)
        }
        save_file(tensors | changed, path)
        with pytest.raises(WeightsError, match="this LoRA is for another size"):
            StableAudio3.load(FIXTURES / "tiny-small", lora=(str(path),))._parts.embedders  # noqa: B018
    for kind in ("lora-xs", "dora-rows", "dora-cols", "bora"):
        own = load_file(FILES / f"{kind}.safetensors")
        with safe_open(FILES / f"{kind}.safetensors", "np") as file:
            said = file.metadata()
        leaf = next(name for name in own if name.startswith("model") and "lora_" not in name)
        for shape in ((), (1,), (1, 1)):
            save_file(own | {leaf: np.ones(shape, np.float32)}, path, said)
            if kind == "lora-xs" and shape == (1, 1):
                continue  # of rank 1, then
            with pytest.raises(WeightsError, match="this LoRA is for another size"):
                StableAudio3.load(FIXTURES / "tiny-small", lora=(str(path),))._parts.dit(0.6)
    endless = {"lora_config": {"alpha": float("nan")}}
    torch.save({name: torch.tensor(array) for name, array in tensors.items()} | endless, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="alpha must be a finite number"):
        Lora.read(Asked(tmp_path / "a.ckpt"))
    moved = {name.replace("layers.1", "layers.9"): array for name, array in tensors.items()}
    save_file(moved, path)
    with pytest.raises(WeightsError, match="which this model has not"):
        StableAudio3.load(FIXTURES / "tiny-small", lora=(str(path),))
    with pytest.raises(OptionError, match="PATH:STRENGTH"):
        Asked.of("a.safetensors=loud")
