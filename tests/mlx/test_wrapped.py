"""MusicGen and Stable Audio as fine-tuning leaves them: the same tensors as unwrapped, or the prefix."""

from __future__ import annotations

import json
import shutil
import warnings
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
from audiogen_mlx.stable_audio import StableAudio
from audiogen_mlx.stable_audio.weights import read_stable_audio_tools
from audiogen_mlx.stable_audio_3 import StableAudio3

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


# Whole fine-tunes as people share them: halves, shards, pickles, an average beside what was trained last


def halved(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value.half() if value.is_floating_point() else value for name, value in table.items()}


def in_shards(folder: Path, table: dict[str, Any], stem: str, suffix: str) -> None:
    """Two shards with an index, as transformers writes them."""
    names = sorted(table)
    files = [f"{stem}-{number:05d}-of-00002{suffix}" for number in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        own = {name: table[name] for name in part}
        save_file(own, folder / file) if suffix == ".safetensors" else torch.save(own, folder / file)
    weight_map = {name: files[index % 2] for index, name in enumerate(names)}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))


SHARDS = [("model", ".safetensors"), ("pytorch_model", ".bin")]


@pytest.mark.parametrize(("stem", "suffix"), SHARDS)
def test_a_musicgen_in_halves_and_shards(tmp_path: Path, stem: str, suffix: str) -> None:
    folder = FIXTURES / "musicgen" / "musicgen-mono"
    shutil.copy(folder / "config.json", tmp_path)
    whole = load_file(folder / "model.safetensors")
    in_shards(tmp_path, halved(whole), stem, suffix)
    table = Files(tmp_path).table
    assert set(table) == set(Files(folder).table)
    for name in table:
        np.testing.assert_array_equal(table[name].astype(np.float32), whole[name].half().float().numpy())
    shutil.copy(FIXTURES / "musicgen" / "tokenizer" / "tokenizer.json", tmp_path)
    made = MusicGen.load(tmp_path).generate("drums", seconds=0.1, seed=1)
    assert np.isfinite(made.samples).all()


@pytest.mark.parametrize(("stem", "suffix"), SHARDS)
def test_a_stable_audio_in_halves_and_shards(tmp_path: Path, stem: str, suffix: str) -> None:
    shutil.copy(FIXTURES / "stable-audio" / "tiny-small" / "model_config.json", tmp_path)
    in_shards(tmp_path, halved(stable_audio()), stem, suffix)
    music = StableAudio.load(tmp_path, t5=FIXTURES / "stable-audio" / "t5")
    made = music.generate("rain", seconds=0.2, steps=2, seed=1)
    assert np.isfinite(made.samples).all()


@pytest.mark.parametrize("file", ["last.ckpt", "pytorch_model.bin", "weights.pth"])
def test_a_stable_audio_whose_average_lies_beside_what_was_trained_last(tmp_path: Path, file: str) -> None:
    """The average is taken, and said to be."""
    plain = stable_audio()
    spoilt = {name: torch.zeros_like(value) for name, value in plain.items()}
    torch.save(
        {"state_dict": named("diffusion.", spoilt) | named("diffusion_ema.module.", plain)}, tmp_path / file
    )
    with pytest.warns(
        UserWarning, match=r"taken are state_dict\.diffusion_ema\.module\..*, not .*diffusion\."
    ):
        found = read_stable_audio_tools(tmp_path / file)
    expected = read_stable_audio_tools(FIXTURES / "stable-audio" / "tiny-small" / "model.safetensors")
    assert all(np.array_equal(found.dit[name], expected.dit[name]) for name in expected.dit)


def test_a_musicgen_whose_average_lies_beside_what_was_trained_last(tmp_path: Path) -> None:
    shutil.copy(TEXT / "compression_state_dict.bin", tmp_path)
    torch.save(MUSICGENS["ema"], tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match=r"taken are ema\.state\.model\.\*, not model\.\*"):
        table = Files(tmp_path, Places(t5=T5)).table
    assert all(np.array_equal(table[name], TABLE[name].numpy()) for name in table)


@pytest.mark.parametrize("kind", ["lightning", "ema", "halves"])
def test_a_stable_audio_3_as_fine_tuning_leaves_it(tmp_path: Path, kind: str) -> None:
    folder = FIXTURES / "stable-audio-3" / "tiny-small"
    plain = load_file(folder / "model.safetensors")
    spoilt = {name: torch.zeros_like(value) for name, value in plain.items()}
    trees = {
        "lightning": {"state_dict": named("diffusion.", plain), "optimizer_states": []},
        "ema": {"state_dict": named("diffusion.", spoilt) | named("diffusion_ema.module.", plain)},
        "halves": halved(plain),
    }
    if kind == "halves":
        save_file(trees[kind], tmp_path / "model.safetensors")
    else:
        torch.save(trees[kind], tmp_path / "model.ckpt")
    shutil.copy(folder / "model_config.json", tmp_path)
    shutil.copytree(folder / "t5gemma-b-b-ul2", tmp_path / "t5gemma-b-b-ul2")
    asked = {"prompt": "a bell", "seconds": 0.3, "steps": 2, "seed": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = StableAudio3.load(tmp_path).generate(**asked)
    assert any("the weights taken are" in str(each.message) for each in caught) == (kind != "halves")
    expected = StableAudio3.load(folder).generate(**asked)
    within = 0.05 if kind == "halves" else 0.0
    np.testing.assert_allclose(found.samples, expected.samples, rtol=0, atol=within)
