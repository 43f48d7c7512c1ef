"""Tables of names: every tensor of the published models has its place, and everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from audiogen_core.errors import WeightsError
from audiogen_mlx.nn import stored_shapes
from audiogen_mlx.stable_audio import read_config, weights
from audiogen_mlx.stable_audio.model import DiT
from support import stable_audio_full as full

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stable-audio"
COUNTS = {"small": (382, 340_879_488, 3), "1.0": (374, 1_056_828_544, 6)}


def write_config(folder: Path, name: str) -> read_config.Config:
    path = folder / "model_config.json"
    path.write_text(json.dumps(full.configuration(name)))
    return read_config.read_stable_audio_tools(path)


@pytest.mark.parametrize("name", COUNTS)
def test_every_tensor_of_a_published_model_is_used(tmp_path: Path, name: str) -> None:
    config = write_config(tmp_path, name)
    shapes = full.transformer(full.SMALL if name == "small" else full.ONE)
    count, parameters, conditioners = COUNTS[name]
    assert len(shapes) == count
    trained = [shape for key, shape in shapes.items() if not key.endswith((".beta", "inv_freq"))]
    assert sum(int(np.prod(shape)) for shape in trained) == parameters
    ours = full.random_weights(shapes).apply(weights.STABLE_AUDIO_TOOLS)
    wanted = stored_shapes(DiT(config.dit), weights.pieces(config.dit, ours))
    wanted |= {key: (*wanted[key], 1) for key in weights.SQUEEZED}
    assert {key: ours.shape(key) for key in ours} == wanted
    embedders = full.conditioners([number.id for number in config.numbers])
    assert len(embedders) == conditioners
    kept = full.random_weights(embedders).apply(weights.EMBEDDERS)
    assert set(kept) == {
        f"{number.id}.{part}"
        for number in config.numbers
        for part in ("frequencies", "out.weight", "out.bias")
    }


def tensors(layout: str = "tiny-small") -> dict[str, np.ndarray]:
    return load_file(FIXTURES / layout / "model.safetensors")


def saved(tmp_path: Path, table: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(table, path)
    return path


def config(layout: str = "tiny-small") -> read_config.Config:
    return read_config.read_stable_audio_tools(FIXTURES / layout / "model_config.json")


def same(path: Path, layout: str = "tiny-small") -> bool:
    facts = config(layout)
    theirs = weights.load_dit(facts.dit, weights.read_stable_audio_tools(path).dit)
    ours = weights.load_dit(
        facts.dit, weights.read_stable_audio_tools(FIXTURES / layout / "model.safetensors").dit
    )
    x, token = mx.random.normal((1, facts.dit.io_channels, 6)), mx.random.normal((1, facts.dit.embed_dim))
    found = [model.step(x, token, model.condition(None, None, 6)) for model in (ours, theirs)]
    return bool(mx.array_equal(*found).item())


def test_a_torch_checkpoint_with_a_wrapper(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model.ckpt"
    table = {name: torch.from_numpy(array) for name, array in tensors().items()}
    torch.save({"state_dict": table, "epoch": 3}, path)
    assert same(path)


def test_a_training_checkpoint_gives_its_average(tmp_path: Path) -> None:
    table = {}
    for name, array in tensors().items():
        if name.startswith("model.model."):
            table[f"diffusion_ema.ema_model.{name.removeprefix('model.')}"] = array
            table[f"diffusion.{name}"] = np.zeros_like(array)
        else:
            table[f"diffusion.{name}"] = array
    table["diffusion_ema.initted"] = np.ones(1, np.float32)
    table["diffusion_ema.step"] = np.ones(1, np.float32)
    path = saved(tmp_path, table)
    assert same(path)
    found = weights.read_stable_audio_tools(path)
    assert found.embedders is not None and "seconds_total.out.weight" in found.embedders
    assert found.vae is not None and "decoder.layers.0.bias" in found.vae


def test_a_transformer_alone_has_no_other_parts(tmp_path: Path) -> None:
    table = {name: array for name, array in tensors().items() if name.startswith("model.")}
    found = weights.read_stable_audio_tools(saved(tmp_path, table))
    assert found.embedders is None and found.vae is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("model.model.transformer.layers.1.ff_norm.beta"), "missing"),
        (
            lambda table: table.update({"model.model.transformer.layers.2.ff_norm.beta": np.ones(4)}),
            "unexpected",
        ),
        (
            lambda table: table.update({"model.model.postprocess_conv.weight": np.ones((8, 9, 1))}),
            "misshapen",
        ),
        (lambda table: table.update({"other.weight": np.ones(3)}), "belong to no part"),
        (
            lambda table: table["model.model.preprocess_conv.weight"].__setitem__((0, 0, 0), np.nan),
            "NaN or infinity",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "foreign", "nan"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change, message: str) -> None:
    table = tensors()
    change(table)
    path = saved(tmp_path, table)
    with pytest.raises(WeightsError, match=message):
        weights.load_dit(config().dit, weights.read_stable_audio_tools(path).dit)


def test_no_transformer_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no Stable Audio transformer"):
        weights.read_stable_audio_tools(saved(tmp_path, {"encoder.weight": np.ones(3)}))
