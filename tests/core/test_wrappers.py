"""Networks in files of training: what wraps their names is taken off and told; nothing else comes through."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiogen_core import codecs, weights
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.settings import as_table, resolved
from audiogen_core.weights import Network
from support.forge import archive, torch_entries

FIXTURES = Path(__file__).parents[1] / "fixtures"
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
NETWORK = Network(r"(emb|layers)\.\d+\.")
TABLE = {
    name: torch.full((2, 3), float(i)) for i, name in enumerate(("emb.0.weight", "layers.0.w", "layers.1.w"))
}
OTHER = {name: value + 10 for name, value in TABLE.items()}
ADAM = {
    "state": {i: {"exp_avg": torch.ones(2, 3), "step": torch.tensor(3.0)} for i in range(3)},
    "param_groups": [{}],
}


def named(prefix: str, table: Mapping[str, Any] = TABLE) -> dict[str, Any]:
    return {prefix + name: value for name, value in table.items()}


def inside(wrapper: str) -> dict[str, Any]:
    """As FSDP and torch.compile leave them where layers were wrapped one by one."""
    return {name.replace("layers.0.", f"layers.0.{wrapper}."): value for name, value in TABLE.items()}


def dotless(prefix: str, table: Mapping[str, Any] = TABLE) -> dict[str, Any]:
    return {f"model_ema.{(prefix + name).replace('.', '')}": value for name, value in table.items()}


ZERO = {"initted": torch.tensor(True), "step": torch.tensor(7)}
DECAY = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(7)}
LAYERS = inside("_checkpoint_wrapped_module._orig_mod")
GAN = {**named("generator."), **named("discriminator.", OTHER), "loss.mel": torch.ones(2)}

WRAPPED: dict[str, tuple[dict[str, Any], str]] = {
    # what is saved, and what is said of it
    "plain": (TABLE, ""),
    "state_dict": ({"state_dict": TABLE, "epoch": 3}, ""),
    "best_state": ({"best_state": TABLE}, ""),
    "optimizer beside": ({"state_dict": TABLE, "optimizer_states": [ADAM], "lr_schedulers": [{}]}, ""),
    "lightning": ({"state_dict": named("model."), "epoch": 3}, "state_dict.model.*"),
    "lightning ddp": ({"state_dict": named("model.module.")}, "state_dict.model.module.*"),
    "lightning compiled": ({"state_dict": named("net._orig_mod.")}, "state_dict.net._orig_mod.*"),
    "ddp": (named("module."), "module.*"),
    "ddp of compiled": (named("module._orig_mod."), "module._orig_mod.*"),
    "compiled ddp": ({"model": named("_orig_mod.module.")}, "model._orig_mod.module.*"),
    "fsdp": ({"model": named("_fsdp_wrapped_module.")}, "model._fsdp_wrapped_module.*"),
    "fsdp of layers": (inside("_fsdp_wrapped_module"), ""),
    "checkpointed layers": ({"module": LAYERS}, "module.*"),
    "fabric": ({"state_dict": named("_forward_module.")}, "state_dict._forward_module.*"),
    "deepspeed": ({"module": TABLE, "optimizer": None, "ds_config": {}}, "module.*"),
    "model_state_dict": ({"model_state_dict": TABLE, "optimizer_state_dict": ADAM}, "model_state_dict.*"),
    "audiocraft": (
        {"best_state": {"model": TABLE}, "model": OTHER, "optimizer": ADAM},
        "best_state.model.*, not model.*",
    ),
    "audiocraft ema": (
        {"ema": {"state": {"model": TABLE}, "count": {}}, "model": OTHER},
        "ema.state.model.*, not model.*",
    ),
    "audiocraft fsdp": (
        {"best_state": {"model": OTHER}, "fsdp_best_state": {"model": TABLE}},
        "fsdp_best_state.model.*, not best_state.model.*",
    ),
    "gan": ({"generator": TABLE, "discriminator": OTHER}, "generator.*"),
    "gan in one": ({"state_dict": GAN}, "state_dict.generator.*"),
    "average beside": ({"model": OTHER, "ema_model": TABLE}, "ema_model.*, not model.*"),
    "average below": ({**OTHER, "ema": TABLE}, "ema.*, not those at the top"),
    "k-diffusion": (
        {"model": named("inner_model.", OTHER), "model_ema": named("inner_model."), "opt": ADAM},
        "model_ema.inner_model.*, not model.inner_model.*",
    ),
    "swa": (
        {"swa_state_dict": {**named("module."), "n_averaged": torch.tensor(3)}},
        "swa_state_dict.module.*",
    ),
    "weight averaging": (
        {"state_dict": named("model."), "current_model_state": named("model.", OTHER)},
        "state_dict.model.*, not current_model_state.model.*",
    ),
    "ema_pytorch": (
        {"ema": {**named("online_model.", OTHER), **named("ema_model."), **ZERO}},
        "ema.ema_model.*, not ema.online_model.*",
    ),
    "dotless average": (
        {"state_dict": {**named("model.", OTHER), **dotless(""), **DECAY}},
        "state_dict.model.*, with their averages for 3 of 3",
    ),
    "dotless average of what is around": (
        {"state_dict": {**named("model.net.", OTHER), **dotless("net.")}},
        "state_dict.model.net.*, with their averages for 3 of 3",
    ),
    "a counter among them": (
        {**TABLE, "step": torch.tensor(7)},
        "those at the top, without 1 tensors of training",
    ),
}


def read(path: Path, network: Network = NETWORK) -> tuple[dict[str, np.ndarray], str]:
    """The tensors of a network, and what was said of them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = weights.read_network(path, network)
    return dict(found), "; ".join(str(each.message) for each in said)


@pytest.mark.parametrize("suffix", [".ckpt", ".th"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_network_is_found_behind_its_wrappers(tmp_path: Path, kind: str, suffix: str) -> None:
    content, told = WRAPPED[kind]
    path = tmp_path / f"last{suffix}"
    torch.save(content, path)
    found, said = read(path)
    assert set(found) == set(TABLE)
    for name, value in TABLE.items():
        np.testing.assert_array_equal(found[name], value.numpy())
    assert said == (f"{path}: the weights taken are {told}" if told else "")


def test_shards_in_half_precision(tmp_path: Path) -> None:
    parts = [named("module.", dict([item])) for item in TABLE.items()]
    index = {name: f"pytorch_model-{i}.bin" for i, part in enumerate(parts) for name in part}
    for i, part in enumerate(parts):
        torch.save({name: value.half() for name, value in part.items()}, tmp_path / f"pytorch_model-{i}.bin")
    torch.save(ADAM, tmp_path / "optimizer.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        f'{{"weight_map": {str(index).replace(chr(39), chr(34))}}}'
    )
    found, said = read(tmp_path)
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in TABLE.items()
    }
    assert "module.*" in said


@pytest.mark.parametrize(
    "other", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "random_states_0.pth"]
)
def test_what_training_leaves_beside_the_weights_is_no_choice(tmp_path: Path, other: str) -> None:
    torch.save(TABLE, tmp_path / "last.ckpt")
    torch.save(ADAM, tmp_path / other)
    assert set(read(tmp_path)[0]) == set(TABLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (named("foo.bar."), "x.pth: all 3 names begin with foo.bar., which is no wrapper known here"),
        ({**named("foo."), "a": torch.ones(1)}, "x.pth: 3 of 4 names begin with foo., which is no wrapper"),
        (
            {**named("module."), "extra.weight": torch.ones(1)},
            "x.pth: 1 tensors belong to no part of this model: extra.weight",
        ),
        (
            {**TABLE, "layers.0.module.w": torch.ones(1)},
            "x.pth: two tensors are named 'layers.0.w' without their wrappers",
        ),
        ({"_fsdp_wrapped_module._flat_param": torch.ones(9)}, "x.pth: FSDP flattened these weights"),
    ],
)  # fmt: skip
def test_what_fits_nowhere_is_told_by_its_prefix(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=re.escape(message)):
        read(tmp_path / "x.pth")


def test_what_is_missing_is_told_after_the_prefix(tmp_path: Path) -> None:
    torch.save({"model": named("module.", {"a": torch.ones(1), "b": torch.ones(1)})}, tmp_path / "x.pth")
    table = weights.read_network(tmp_path / "x.pth", NETWORK)
    with pytest.raises(
        WeightsError, match=r"x\.pth: all 2 names begin with model\.module\.; the weights do not fit"
    ):
        table.take_all({"emb.0.weight": (2, 3)})


def test_nothing_more_than_the_network_is_let_through(tmp_path: Path) -> None:
    torch.save({"state_dict": named("model.", {**TABLE, "extra.weight": torch.ones(1)})}, tmp_path / "x.ckpt")
    with warnings.catch_warnings(action="ignore"):
        table = weights.read_network(tmp_path / "x.ckpt", NETWORK)
    table.take_all(dict.fromkeys(TABLE, (2, 3)))
    with pytest.raises(WeightsError, match=r"unexpected \(1\): extra\.weight"):
        table.finish()


def test_settings_that_training_pickles_are_read(tmp_path: Path) -> None:
    """OmegaConf's own objects, as audiocraft's checkpoints hold them, and argparse's."""
    path = tmp_path / "x.pth"
    path.write_bytes(archive(torch_entries((CORPUS / "pickle" / "settings").read_bytes(), {})))
    tree = weights.read_checkpoint(path)
    table = as_table(weights.setting(tree, "xp.cfg"), "xp.cfg")
    assert resolved(table, "xp.cfg") == {"rate": 8, "net": {"sizes": [1, 2], "same": 8}}
    assert weights.setting(tree, "args") == {"lr": 0.1, "out": "a/b"}
    with pytest.raises(ModelError, match="expected settings, found int"):
        as_table(3, "xp.cfg")


Wrap = Callable[[dict[str, Any]], dict[str, Any]]
WRAPS: dict[str, Wrap] = {
    "ddp": lambda table: named("module.", table),
    "compiled lightning": lambda table: {"state_dict": named("model._orig_mod.", table), "epoch": 1},
    "audiocraft": lambda table: {"best_state": {"model": table}, "model": {}, "ema": {}},
    "gan": lambda table: {"generator": table, "discriminator": {"conv.weight": torch.ones(1)}},
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_wrapped_encodec_is_the_same_codec(tmp_path: Path, wrap: str) -> None:
    original = FIXTURES / "encodec" / "24k" / "original_encodec_state_dict.th"
    torch.save(WRAPS[wrap](torch.load(original, weights_only=True)), tmp_path / "codec.th")
    with pytest.warns(UserWarning, match="the weights taken are"):
        wrapped = codecs.load_codec(tmp_path / "codec.th")
    assert wrapped.info == codecs.load_codec(original).info


def test_a_wrapped_lac_is_the_same_codec(tmp_path: Path) -> None:
    original = FIXTURES / "vampnet" / "small" / "codec.pth"
    stored = torch.load(original, weights_only=False)
    packed = {"metadata": stored["metadata"], "model": WRAPS["gan"](stored["state_dict"])}
    torch.save(packed, tmp_path / "codec.pth")
    with pytest.warns(UserWarning, match="the weights taken are"):
        wrapped = codecs.load_codec(tmp_path / "codec.pth")
    assert wrapped.info == codecs.load_codec(original).info
    torch.save(WRAPS["ddp"](stored["state_dict"]), tmp_path / "bare.pth")
    with pytest.raises(ModelError, match=r"bare\.pth: all \d+ names begin with module\.; .*EnCodec"):
        codecs.load_codec(tmp_path / "bare.pth")
