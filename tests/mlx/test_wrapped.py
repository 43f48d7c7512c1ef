"""MusicGen and Stable Audio as fine-tuning leaves them: the same tensors as unwrapped, or the prefix."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.musicgen.files import Files, Places
from audiogen_core.sampling import Sampling
from audiogen_mlx.musicgen import MusicGen
from audiogen_mlx.stable_audio.weights import read_stable_audio_tools

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXT = FIXTURES / "musicgen" / "audiocraft-text"
T5 = FIXTURES / "musicgen" / "t5"
PACKAGE = torch.load(TEXT / "state_dict.bin", weights_only=False)
TABLE, SETTINGS = PACKAGE["best_state"], PACKAGE["xp.cfg"]


def named(prefix: str, table: dict[str, Any] = TABLE) -> dict[str, Any]:
    return {prefix + name: value for name, value in table.items()}


MUSICGENS = {
    "lightning": {"state_dict": named("model."), "xp.cfg": SETTINGS, "epoch": 3},
    "lightning with its codec": {
        "state_dict": {**named("lm.module."), "compression_model.encoder.weight": torch.ones(1)},
        "hyper_parameters": {"xp.cfg": SETTINGS},
    },
    "ddp": {"best_state": named("module."), "xp.cfg": SETTINGS},
    "training": {"best_state": {"model": TABLE}, "model": named(""), "xp.cfg": SETTINGS, "history": []},
    "ema": {
        "ema": {"state": {"model": TABLE}},
        "model": {k: v + 1 for k, v in TABLE.items()},
        "xp.cfg": SETTINGS,
    },
}


@pytest.mark.parametrize("file", ["state_dict.bin", "checkpoint.th", "last.ckpt"])
@pytest.mark.parametrize("kind", MUSICGENS)
def test_a_wrapped_musicgen_has_the_same_tensors(tmp_path: Path, kind: str, file: str) -> None:
    shutil.copy(TEXT / "compression_state_dict.bin", tmp_path)
    torch.save(MUSICGENS[kind], tmp_path / file)
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    expected = Files(TEXT, Places(t5=T5))
    for path in (tmp_path, tmp_path / file):
        files = Files(path, Places(t5=T5))
        assert files.config == expected.config
        with pytest.warns(UserWarning, match=rf"{file}: the weights taken are \w+\."):
            table = files.table
        assert set(table) == set(expected.table)
        assert all(np.array_equal(table[name], expected.table[name]) for name in table)


def test_a_wrapped_musicgen_makes_the_same_codes(tmp_path: Path) -> None:
    shutil.copy(TEXT / "compression_state_dict.bin", tmp_path)
    torch.save(MUSICGENS["lightning"], tmp_path / "epoch=3.ckpt")
    parts = {
        "t5": T5,
        "tokenizer": FIXTURES / "musicgen" / "tokenizer",
        "codec": FIXTURES / "encodec" / "32k",
    }

    def codes(path: Path) -> np.ndarray:
        music = MusicGen.load(path, **parts)
        return music.generate_codes("drums", seconds=0.1, sampling=Sampling(temperature=0)).values

    expected = codes(TEXT)
    with pytest.warns(UserWarning, match=r"state_dict\.model\.\*"):
        np.testing.assert_array_equal(codes(tmp_path), expected)


def test_without_settings_the_prefix_is_told_first(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": named("model."), "epoch": 3}, path)
    with pytest.raises(
        ModelError, match=r"last\.ckpt: all 36 names begin with model\.; it has no settings"
    ) as error:
        Files(path)
    assert "folder" not in str(error.value).replace(str(path), "")


def test_a_file_is_called_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="no MusicGen in or beside this file"):
        Files(path)


def test_several_checkpoints_are_named(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        torch.save(MUSICGENS["ddp"], tmp_path / name)
    with pytest.raises(ModelError, match=r"name one of a\.ckpt, b\.ckpt"):
        Files(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod.", "_forward_module."])
def test_a_wrapped_folder_of_transformers(tmp_path: Path, prefix: str) -> None:
    folder = FIXTURES / "musicgen" / "musicgen-mono"
    shutil.copy(folder / "config.json", tmp_path)
    save_file(named(prefix, load_file(folder / "model.safetensors")), tmp_path / "model.safetensors")
    expected = Files(folder)
    with pytest.warns(UserWarning, match="the weights taken are"):
        table = Files(tmp_path).table
    assert set(table) == set(expected.table)


def stable_audio() -> dict[str, Any]:
    return load_file(FIXTURES / "stable-audio" / "tiny-small" / "model.safetensors")


def averaged() -> dict[str, Any]:
    """A training whose average keeps the transformer's names without dots; what was trained last is zero."""
    table = stable_audio()
    made = {}
    for name, value in table.items():
        transformer = name.startswith("model.model.")
        made[f"diffusion.{name}"] = torch.zeros_like(value) if transformer else value
        if transformer:
            made[f"model_ema.{name.removeprefix('model.').replace('.', '')}"] = value
    return {"state_dict": made | {"model_ema.decay": torch.tensor(0.9)}}


STABLE_AUDIOS = {
    "ddp": lambda: named("module.", stable_audio()),
    "lightning": lambda: {
        "state_dict": named("diffusion._orig_mod.", stable_audio()),
        "optimizer_states": [],
    },
    "k-diffusion": lambda: {"model": {}, "model_ema": stable_audio()},
    "dotless average": averaged,
}


@pytest.mark.parametrize("kind", STABLE_AUDIOS)
def test_a_wrapped_stable_audio_has_the_same_parts(tmp_path: Path, kind: str) -> None:
    torch.save(STABLE_AUDIOS[kind](), tmp_path / "model.ckpt")
    expected = read_stable_audio_tools(FIXTURES / "stable-audio" / "tiny-small" / "model.safetensors")
    with pytest.warns(UserWarning, match="the weights taken are"):
        found = read_stable_audio_tools(tmp_path / "model.ckpt")
    for part in ("dit", "embedders", "vae"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_stable_audio_behind_an_unknown_prefix(tmp_path: Path) -> None:
    torch.save(named("foo.", stable_audio()), tmp_path / "model.ckpt")
    with pytest.raises(WeightsError, match=r"model\.ckpt: all \d+ names begin with foo\.; "):
        read_stable_audio_tools(tmp_path / "model.ckpt")
